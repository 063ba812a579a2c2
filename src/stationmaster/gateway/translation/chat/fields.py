"""What becomes of the fields of a chat completion request."""

from types import MappingProxyType

from stationmaster.gateway.translation.fields import Ignored, Refused, Table

_CACHE = Ignored("a hint to OpenAI's prompt cache")

TRANSLATED: frozenset[str] = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "service_tier",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    }
)

REQUEST: Table = MappingProxyType(
    {
        "audio": Refused("The model of this request writes text only."),
        "frequency_penalty": Refused("The model of this request has no penalties.", unless=(0,)),
        "function_call": Refused("This is out of use; ask with tool_choice."),
        "functions": Refused("This is out of use; give the functions as tools.", unless=([],)),
        "logit_bias": Refused("The model of this request takes no bias.", unless=({},)),
        "logprobs": Refused("The model of this request tells no probabilities.", unless=(False,)),
        "metadata": Ignored("notes for OpenAI's store of completions"),
        "modalities": Refused("The model of this request writes text only.", unless=(["text"],)),
        "moderation": Refused("The model of this request has no moderation of OpenAI's."),
        "n": Refused("The model of this request gives one answer at a time.", unless=(1,)),
        "prediction": Ignored("a hint for speed"),
        "presence_penalty": Refused("The model of this request has no penalties.", unless=(0,)),
        "prompt_cache_key": _CACHE,
        "prompt_cache_options": _CACHE,
        "prompt_cache_retention": _CACHE,
        "seed": Refused("The model of this request takes no seed."),
        "store": Refused("Completions are not stored here.", unless=(False,)),
        "top_logprobs": Refused("The model of this request tells no probabilities.", unless=(0,)),
        "verbosity": Refused("The model of this request has no verbosity.", unless=("medium",)),
        "web_search_options": Refused("OpenAI's search is not at hand for this model."),
    }
)
"""Beside those that are translated. A test compares with the fields that OpenAI's client knows."""

MESSAGE: Table = MappingProxyType(
    {
        "annotations": Ignored("the sources of an earlier answer", noted=False),
        "audio": Refused("The model of this request hears nothing."),
        "function_call": Refused("This is out of use; give tool_calls."),
        "name": Ignored("Anthropic's messages have no names"),
    }
)
PART: Table = MappingProxyType({"prompt_cache_breakpoint": _CACHE})
IMAGE: Table = MappingProxyType({"detail": Ignored("Anthropic's models look at all of a picture")})
STREAM_OPTIONS: Table = MappingProxyType(
    {"include_obfuscation": Ignored("padding of OpenAI's, without meaning")}
)
