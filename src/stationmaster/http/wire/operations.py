"""What the OpenAPI document says of the endpoints for model calls, which are plain ASGI."""

from typing import Any

from stationmaster.http.wire import anthropic, openai
from stationmaster.http.wire.models import MODELS

_ANTHROPIC_ERROR = {
    "title": "AnthropicError",
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": "string"},
    },
}

_OPENAI_ERROR = {
    "title": "OpenAIError",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        },
    },
}

SCHEMAS: dict[str, Any] = {"AnthropicError": _ANTHROPIC_ERROR, "OpenAIError": _OPENAI_ERROR}

_ERRORS = {
    "400": "The request is not valid",
    "401": "There is no valid credential",
    "402": "A budget does not cover the call",
    "403": "The credential does not permit this",
    "404": "The model is not known",
    "413": "The body is larger than 32 MB",
    "429": "A limit is reached, here or at the provider",
    "502": "The provider failed",
    "503": "The server cannot do this now",
    "504": "The provider did not answer in time",
    "529": "The provider is overloaded",
}

_MODEL = {"type": "string", "description": "A model, or an alias such as `sonnet`."}
_STREAM = {"type": "boolean", "description": "Answer with server-sent events."}
_LIST = {"type": "array", "items": {"type": "object"}}
_ANSWER: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
_STREAMED: dict[str, Any] = {**_ANSWER, "text/event-stream": {"schema": {"type": "string"}}}

_AS_IT_IS = (
    "Passed on as it is where the model's provider takes this format: fields that are not known"
    " here and beta headers survive. For another provider it is translated; what cannot be is"
    " refused by name."
)


def paths(security: list[dict[str, list[str]]]) -> dict[str, Any]:
    """Every operation, by path."""
    described = {
        anthropic.MESSAGES: _post(
            "messages",
            "Call a model",
            f"Anthropic's format. {_AS_IT_IS} The call is held for before it goes out and billed"
            " after it.",
            fields={
                "model": _MODEL,
                "messages": _LIST,
                "max_tokens": {"type": "integer", "minimum": 1},
                "stream": _STREAM,
            },
            required=["model", "messages", "max_tokens"],
            answers=_STREAMED,
        ),
        anthropic.COUNT_TOKENS: _post(
            "count_tokens",
            "Count the tokens of a call",
            "Anthropic's format. It costs nothing. Where the model's provider does not count, the"
            " answer is an estimate, and `x-stationmaster-estimated` says so.",
            fields={"model": _MODEL, "messages": _LIST},
            required=["model", "messages"],
            answers=_ANSWER,
        ),
        openai.CHAT: _post(
            "chat_completions",
            "Call a model, in OpenAI's chat format",
            f"{_AS_IT_IS} The call is held for before it goes out and billed after it.",
            fields={
                "model": _MODEL,
                "messages": _LIST,
                "max_completion_tokens": {"type": "integer", "minimum": 1},
                "n": {"type": "integer", "minimum": 1, "maximum": 128},
                "stream": _STREAM,
            },
            required=["model", "messages"],
            answers=_STREAMED,
        ),
        openai.RESPONSES: _post(
            "responses",
            "Call a model, in OpenAI's Responses format",
            f"{_AS_IT_IS} The call is held for before it goes out and billed after it.",
            fields={
                "model": _MODEL,
                "input": {"anyOf": [{"type": "string"}, _LIST]},
                "max_output_tokens": {"type": "integer", "minimum": 1},
                "stream": _STREAM,
            },
            required=["model", "input"],
            answers=_STREAMED,
        ),
        openai.INPUT_TOKENS: _counting_input(),
        openai.EMBEDDINGS: _post(
            "embeddings",
            "Turn texts into vectors",
            "OpenAI's format, for providers that take it.",
            fields={"model": _MODEL, "input": {}},
            required=["model", "input"],
            answers=_ANSWER,
        ),
        MODELS: _get("models", "List the models that the key may use", []),
        MODELS + "/{model}": _get(
            "model",
            "Show one model",
            [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
        ),
    }
    for path, methods in described.items():
        shape = "AnthropicError" if path in anthropic.FACES else "OpenAIError"
        for operation in methods.values():
            operation["security"] = security
            operation["responses"] |= _refusals(shape, money=path not in _FREE)
    return described


def _counting_input() -> dict[str, Any]:
    return _post(
        "count_response_input",
        "Count the input tokens of a response",
        "In OpenAI's Responses format, `previous_response_id` included. It costs nothing. Where"
        " the model's provider does not count, the answer is an estimate, and"
        " `x-stationmaster-estimated` says so.",
        fields={"model": _MODEL, "input": {"anyOf": [{"type": "string"}, _LIST]}},
        required=["model", "input"],
        answers=_ANSWER,
    )


_UNPAID = ("400", "401", "403", "404", "429", "503")
_FREE = (MODELS, MODELS + "/{model}")


def _refusals(shape: str, *, money: bool) -> dict[str, Any]:
    error = {"schema": {"$ref": f"#/components/schemas/{shape}"}}
    wanted = _ERRORS if money else {status: _ERRORS[status] for status in _UNPAID}
    return {
        status: {"description": says, "content": {"application/json": error}}
        for status, says in wanted.items()
    }


def _post(
    name: str,
    summary: str,
    description: str,
    *,
    fields: dict[str, Any],
    required: list[str],
    answers: dict[str, Any],
) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": fields}
    return {
        "post": {
            "operationId": name,
            "tags": ["models"],
            "summary": summary,
            "description": description,
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {"200": {"description": "The provider's answer", "content": answers}},
        }
    }


def _get(name: str, summary: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "get": {
            "operationId": name,
            "tags": ["models"],
            "summary": summary,
            "description": "In Anthropic's shape where `anthropic-version` is sent, else in"
            " OpenAI's. What providers tell of their models is remembered for an hour.",
            "parameters": parameters,
            "responses": {"200": {"description": "What there is", "content": _ANSWER}},
        }
    }
