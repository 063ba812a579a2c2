"""A model call and the providers, in words that are the same for all of them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request

Json = dict[str, Any]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class ProcessMessage(Request):
    """One message of a conversation; `id`, `created_at` and `metadata` are the client's own."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[Json] | None = ""
    tool_call_id: str | None = None
    tool_calls: list[Json] | None = None
    id: str | None = None
    created_at: str | None = None
    metadata: Json | None = None


class ProcessParams(Request):
    """What some clients put aside."""

    stream: Annotated[bool, Field(description="True is refused: use /v1/stream.")] = False


class ProcessRequest(Request):
    """A call: `messages`, or `user_message` with an optional `system_message`, or `content`."""

    provider: Annotated[
        Name,
        Field(description="One of GET /v1/providers, which then answers; any other is mapped."),
    ]
    model_name: Annotated[
        Name, Field(description="A model; one that nobody serves gets the Claude that is like it.")
    ]
    messages: list[ProcessMessage] | None = None
    system_message: str | None = None
    user_message: str | None = None
    content: str | list[Json] | None = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = 1000
    temperature: Annotated[float | None, Field(ge=0, le=2)] = 0.7
    use_cli: Annotated[bool | None, Field(description="True is refused: use /v1/task.")] = None
    async_processing: Annotated[bool, Field(description="True is refused: use /v1/batches.")] = (
        False
    )
    additional_params: ProcessParams | None = None
    tools: Annotated[list[Json] | None, Field(description="In OpenAI's format.")] = None
    tool_choice: str | Json | None = None
    output_schema: Annotated[Json | None, Field(description="The answer's JSON schema.")] = None
    media_content: Annotated[
        list[Json] | None, Field(description="Ignored, which `metadata.warnings` says.")
    ] = None
    memory: Annotated[
        Json | None, Field(description="Ignored, which `metadata.warnings` says.")
    ] = None
    project_id: str | None = "default"


class ProcessUsage(Reply):
    """The tokens that were used; those of the input include what was cached."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class ProcessMetadata(Reply):
    """How the answer came about."""

    actual_model: str
    actual_provider: str
    usage: ProcessUsage
    cost_usd: float
    processing_time: Annotated[float, Field(description="Seconds.")]
    finish_reason: str | None
    mapped_from: Annotated[
        str | None, Field(description="What was asked for, where something else answered.")
    ]
    warnings: Annotated[list[str], Field(description="What of the request was ignored.")]


class ProcessReply(Reply):
    """The answer. `model` and `provider` are what was asked for."""

    content: str
    content_blocks: Annotated[
        list[Json] | None,
        Field(description="The answer as Anthropic's blocks, where it calls tools."),
    ]
    model: str
    provider: str
    metadata: ProcessMetadata


class ProviderView(Reply):
    """A provider, and those of its models that the key may use."""

    name: str
    available: Annotated[bool, Field(description="False while it is left alone after failures.")]
    models: list[str]


class ProviderModel(Reply):
    """What is known of a model: tokens, and null for what nobody tells."""

    max_tokens: int | None
    context_window: int | None
    supports_functions: bool | None
    supports_vision: bool | None


class ProviderModels(Reply):
    """A provider's models, by name."""

    provider: str
    models: dict[str, ProviderModel]
