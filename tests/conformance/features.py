"""The rows of the table, and why a cell may say something else than pass."""

from typing import Literal

Client = Literal["openai-python", "openai-node", "anthropic-python", "anthropic-node", "claude"]
Provider = Literal["anthropic", "openai", "ollama", "bedrock", "vertex"]

CLIENTS: dict[Client, str] = {
    "openai-python": "`openai`, Python",
    "openai-node": "`openai`, Node",
    "anthropic-python": "`anthropic`, Python",
    "anthropic-node": "`@anthropic-ai/sdk`, Node",
    "claude": "Claude Code",
}
PROVIDERS: dict[Provider, str] = {
    "anthropic": "A provider of Anthropic's format",
    "openai": "A provider of OpenAI's format",
    "ollama": "Ollama, by its own format",
    "bedrock": "Anthropic's models at Bedrock",
    "vertex": "Anthropic's models at Vertex",
}
AS_ANTHROPIC: tuple[Provider, ...] = ("anthropic", "bedrock", "vertex")
"""Whose answers are Anthropic's, however they are wrapped."""

STATUSES = (400, 401, 402, 403, 404, 413, 422, 429, 500, 502, 503, 529)
OURS = (401, 402, 403)
"""What the server itself answers; from a provider they would concern the server's own account."""

FEATURES: dict[str, str] = {
    "text": "text",
    "stream": "stream",
    "tools": "tools",
    "parallel": "parallel tools",
    "image": "images",
    "structured": "structured output",
    "thinking": "thinking, and its signature given back",
    "count_tokens": "token counts",
    "embeddings": "embeddings",
    "responses": "responses",
    "previous": "a response that goes on by `previous_response_id`",
    "agent": "an agent as a model, whole and streamed",
    "gzip": "answers of 1,000 bytes and more compressed, streams never",
    "batches": "batches",
    **{f"error_{status}": f"error {status}" for status in STATUSES},
    "retry": "tries again, and not before `retry-after`",
    "timeout": "its own timeout closes the provider's call",
    "cancel": "hanging up in mid-stream does, too",
}

_OF_A_FORMAT = (
    *("text", "stream", "tools", "parallel", "image", "structured", "thinking", "count_tokens"),
    *("embeddings", "responses", "previous", "error_400", "error_429", "error_500", "cancel"),
)


def features_of(provider: Provider) -> dict[str, str]:
    """The rows of its table: of the further ones those that its format can change."""
    if provider in {"anthropic", "openai"}:
        return FEATURES
    return {name: FEATURES[name] for name in _OF_A_FORMAT}


REASONS: dict[str, str] = {
    "no_such_call": "The client has no such call.",
    "no_embeddings": "Anthropic's format has no embeddings; refused by name with a 400.",
    "no_signature": "The format has no signatures. The words of the thinking pass, both ways.",
    "brings_tools": "Claude Code brings its own tools, and an agent takes none; refused by name.",
    "streams": "Claude Code asks for streams alone, which are never compressed.",
    "not_by_itself": "Claude Code asks only when told to (`/context`); a test of its own shows it.",
}
"""By the word with which a check says so; the check shows that it is so."""
