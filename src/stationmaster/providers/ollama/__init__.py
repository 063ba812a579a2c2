"""Ollama's own API, asked and answering in OpenAI's format."""

from stationmaster.providers.ollama.presets import Preset
from stationmaster.providers.ollama.provider import OllamaProvider, PullProgress

__all__ = ["OllamaProvider", "Preset", "PullProgress"]
