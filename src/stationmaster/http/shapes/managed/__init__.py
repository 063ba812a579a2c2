"""The shapes of Anthropic's Managed Agents API. Its SDK's typed models are their specification."""
