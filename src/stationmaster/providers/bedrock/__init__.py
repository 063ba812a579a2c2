"""Anthropic's models on Amazon Bedrock."""

from stationmaster.providers.bedrock.provider import BedrockProvider
from stationmaster.providers.bedrock.signature import Credentials

__all__ = ["BedrockProvider", "Credentials"]
