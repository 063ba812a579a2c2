"""OpenAI's API beside the calls of models: files and batches."""

from stationmaster.http.routes.openai.app import is_openai, openai_api

__all__ = ["is_openai", "openai_api"]
