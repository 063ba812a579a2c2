"""Anthropic's Messages API, or any server that speaks it."""

from stationmaster.providers.anthropic.provider import AnthropicProvider
from stationmaster.providers.upstream import Timeouts

__all__ = ["AnthropicProvider", "Timeouts"]
