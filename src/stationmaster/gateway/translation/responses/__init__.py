"""OpenAI's Responses, as a client's format."""
