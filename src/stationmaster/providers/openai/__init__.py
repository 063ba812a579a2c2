"""OpenAI's API, or any server that speaks it: Azure, vLLM, llama.cpp, OpenRouter and others."""

from stationmaster.providers.openai.provider import OpenAIProvider

__all__ = ["OpenAIProvider"]
