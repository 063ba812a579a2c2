"""Models by purpose: a name that may stand where a model's does."""

from collections.abc import Mapping

import msgspec

Value = bool | int | float | list[str]


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model, and Ollama's options for it where a request does not say otherwise."""

    model: str
    options: dict[str, Value] = msgspec.field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "tiny": Preset(model="llama3.2:1b", options={"temperature": 0.3}),
    "fast": Preset(model="llama3.2:3b", options={"temperature": 0.3}),
    "balanced": Preset(model="llama3.1:8b", options={"temperature": 0.5}),
    "quality": Preset(model="qwen2.5:14b", options={"temperature": 0.5}),
    "coding": Preset(model="qwen2.5-coder:7b", options={"temperature": 0.2}),
}
