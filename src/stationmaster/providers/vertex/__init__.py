"""Anthropic's models on Google's Vertex AI."""

from stationmaster.providers.vertex.provider import VertexProvider
from stationmaster.providers.vertex.token import AccessTokens, ServiceAccount

__all__ = ["AccessTokens", "ServiceAccount", "VertexProvider"]
