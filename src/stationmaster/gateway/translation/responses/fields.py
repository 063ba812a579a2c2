"""What becomes of the fields of a Responses request."""

from types import MappingProxyType

from stationmaster.gateway.translation.fields import Ignored, Refused, Table

_CACHE = Ignored("a hint to OpenAI's prompt cache")
_KEPT = Ignored("kept with the response by this server, not by the provider", noted=False)

TRANSLATED: frozenset[str] = frozenset(
    {
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "model",
        "parallel_tool_calls",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "stream",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    }
)

REQUEST: Table = MappingProxyType(
    {
        "access_programs": Refused("Only OpenAI has these programs."),
        "background": Refused("Responses are not made in the background here.", unless=(False,)),
        "background_options": Refused("Responses are not made in the background here."),
        "context_management": Refused("The conversation is sent as it is.", unless=([],)),
        "conversation": Refused("Conversations are not kept here; use previous_response_id."),
        "image": Refused("Pictures are sent as they are."),
        "max_tool_calls": Ignored("about OpenAI's own tools"),
        "metadata": _KEPT,
        "moderation": Refused("The model of this request has no moderation of OpenAI's."),
        "previous_response_id": _KEPT,
        "prompt": Refused("Prompts are not kept here; use instructions and input."),
        "prompt_cache_key": _CACHE,
        "prompt_cache_options": _CACHE,
        "prompt_cache_retention": _CACHE,
        "store": _KEPT,
        "stream_options": Ignored("padding of OpenAI's, without meaning"),
        "top_logprobs": Refused("The model of this request tells no probabilities.", unless=(0,)),
        "truncation": Refused("The conversation is sent as it is.", unless=("disabled",)),
    }
)
"""Beside those that are translated. A test compares with the fields that OpenAI's client knows."""

ITEM: Table = MappingProxyType(
    {
        "id": Ignored("the item's own number", noted=False),
        "phase": Ignored("which part of an earlier answer a message was", noted=False),
        "status": Ignored("an item of the past is over", noted=False),
        "type": Ignored("told by the role", noted=False),
    }
)
CALL: Table = MappingProxyType(
    {
        "id": ITEM["id"],
        "status": ITEM["status"],
        "async": Refused("Calls wait for their result here.", unless=(False,)),
        "caller": Refused("Only the model itself can call.", unless=({"type": "direct"},)),
        "name": Ignored("the call tells the tool's name", noted=False),
        "namespace": Refused("Tools have no namespaces here."),
    }
)
PART: Table = MappingProxyType(
    {
        "annotations": Ignored("the sources of an earlier answer", noted=False),
        "detail": Ignored("Anthropic's models look at all of a picture"),
        "logprobs": Ignored("the probabilities of an earlier answer", noted=False),
        "prompt_cache_breakpoint": _CACHE,
    }
)
TOOL: Table = MappingProxyType(
    {
        "allowed_callers": Refused("Only the model itself can call.", unless=(["direct"], [])),
        "async": Refused("Calls wait for their result here.", unless=(False,)),
        "defer_loading": Ignored("the tool is there from the start"),
        "output_schema": Refused("The model of this request knows no schema of results."),
    }
)
REASONING: Table = MappingProxyType(
    {
        "context": Ignored("earlier thinking is sent where its model takes it"),
        "generate_summary": Ignored("what the model shows of its thinking comes as it is"),
        "mode": Refused("The model of this request has one mode.", unless=("standard",)),
        "summary": Ignored("what the model shows of its thinking comes as it is"),
    }
)
TEXT: Table = MappingProxyType(
    {"verbosity": Refused("The model of this request has no verbosity.", unless=("medium",))}
)
