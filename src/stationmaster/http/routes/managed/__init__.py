"""Anthropic's Managed Agents API: an app of its own, with errors of Anthropic's shape."""
