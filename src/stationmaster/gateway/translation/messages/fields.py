"""What becomes of the fields of a Messages request."""

from types import MappingProxyType

from stationmaster.gateway.translation.fields import Ignored, Refused, Table

_CACHE = Ignored("providers of OpenAI's format cache by themselves")

TRANSLATED: frozenset[str] = frozenset(
    {
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_p",
    }
)

REQUEST: Table = MappingProxyType(
    {
        "betas": Ignored("each thing that a beta adds has a field of its own"),
        "billing_policy": Refused("Only Anthropic bills so."),
        "cache_control": _CACHE,
        "compaction": Refused("The model of this request cannot compact a conversation."),
        "container": Refused("The model of this request has no containers."),
        "context_management": Ignored("the whole history is sent"),
        "diagnostics": Ignored("about Anthropic's prompt cache"),
        "fallback_credit_token": Refused("Only Anthropic knows this token."),
        "fallbacks": Refused("Only Anthropic falls back by itself.", unless=([],)),
        "inference_geo": Refused("Where this model runs cannot be chosen.", unless=("global",)),
        "mcp_servers": Refused("The model of this request reaches no servers.", unless=([],)),
        "speed": Refused("The model of this request has one speed.", unless=("standard",)),
        "thread": Refused("The model of this request keeps no threads."),
        "top_k": Refused("The model of this request does not sample by top_k."),
        "user_profile_id": Refused("Only Anthropic knows user profiles."),
        "workspace_id": Ignored("a workspace of Anthropic's"),
    }
)
"""Beside those that are translated. A test compares with the fields Anthropic's client knows."""

BLOCK: Table = MappingProxyType({"cache_control": _CACHE})
TEXT: Table = MappingProxyType(
    {**BLOCK, "citations": Ignored("the sources of an earlier answer", noted=False)},
)
IMAGE: Table = MappingProxyType(
    {**BLOCK, "transformations": Refused("The model of this request takes pictures as they are.")}
)
DOCUMENT: Table = MappingProxyType(
    {
        **BLOCK,
        "citations": Refused(
            "The model of this request cites no sources.", unless=({"enabled": False},)
        ),
        "context": Refused("A document's context has no place in OpenAI's format."),
    }
)
CALL: Table = MappingProxyType(
    {
        **BLOCK,
        "caller": Refused("Only the model itself can call.", unless=({"type": "direct"},)),
        "toolset_name": Refused("Anthropic's toolsets are not at hand for this model."),
    }
)
TOOL: Table = MappingProxyType(
    {
        **BLOCK,
        "allowed_callers": Refused("Only the model itself can call.", unless=(["direct"], [])),
        "defer_loading": Ignored("the tool is there from the start"),
        "eager_input_streaming": Ignored("arguments are streamed as they come"),
        "input_examples": Refused("Examples have no place in OpenAI's format.", unless=([],)),
    }
)
THINKING: Table = MappingProxyType(
    {"display": Ignored("what the model shows of its thinking comes as it is")}
)
