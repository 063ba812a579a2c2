"""Anthropic's Managed Agents API: an app of its own, with errors of Anthropic's shape."""

from stationmaster.http.routes.managed.app import is_managed, managed_api

__all__ = ["is_managed", "managed_api"]
