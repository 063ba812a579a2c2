"""An agent's definition: the API's fields, checked, every default filled in.

What this server cannot honour is refused by name, never ignored.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.checks import bounded, patched, refuse_unknown
from stationmaster.sessions.offers import check_mcp_servers, check_multiagent, check_skills
from stationmaster.sessions.rules import check_rules
from stationmaster.sessions.runs.options import MODEL
from stationmaster.sessions.toolset import check_tools, unsupported

MAX_NAME_BYTES = 256
MAX_DESCRIPTION_BYTES = 2048
MAX_SYSTEM_BYTES = 100_000

LookUp = Callable[[str, int | None], int]
"""Gives the version of a sub-agent that a definition names."""


class Definition(msgspec.Struct, frozen=True):
    """What an agent is, in the form of the API."""

    name: str
    model: dict[str, Any]
    description: str | None = None
    system: str | None = None
    tools: list[dict[str, Any]] = []
    mcp_servers: list[dict[str, Any]] = []
    skills: list[dict[str, Any]] = []
    multiagent: dict[str, Any] | None = None
    execution_identity: dict[str, Any] = msgspec.field(
        default_factory=lambda: {"type": "service_account"}
    )
    # Ours: what decides on tool calls besides the tools' own policies. See `rules.py`.
    rules: list[dict[str, Any]] = []
    metadata: dict[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """As kept."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Definition":
        """As read."""
        return msgspec.convert(data, cls)


def define(
    fields: Mapping[str, Any], catalogue: Catalogue, principal: Principal, look_up: LookUp
) -> Definition:
    """Check a whole definition. Raises `Invalid`, `TooLarge`, `Denied`, with `param`."""
    for name in ("name", "model"):
        if fields.get(name) is None:
            raise Invalid(f"An agent needs a {name}.", param=name)
    return changed(Definition("", {}), fields, catalogue, principal, look_up)


def changed(
    present: Definition,
    fields: Mapping[str, Any],
    catalogue: Catalogue,
    principal: Principal,
    look_up: LookUp,
) -> Definition:
    """A definition with `fields` over it; a list or a text given as None is emptied."""
    refuse_unknown(fields, Definition.__struct_fields__)
    made = present.to_json()
    if fields.get("name") is not None:
        made["name"] = bounded(fields["name"], MAX_NAME_BYTES, "name", least=1)
    if fields.get("model") is not None:
        made["model"] = _model(fields["model"], principal)
    for name, limit in (("description", MAX_DESCRIPTION_BYTES), ("system", MAX_SYSTEM_BYTES)):
        if name in fields:
            text = fields[name]
            made[name] = text if text is None else bounded(text, limit, name)
    if "rules" in fields:
        made["rules"] = check_rules([] if fields["rules"] is None else fields["rules"])
    if "metadata" in fields:
        made["metadata"] = patched(present.metadata, fields["metadata"])
    if fields.get("execution_identity") not in (None, {"type": "service_account"}):
        raise unsupported("execution_identity")
    _offered(made, fields, catalogue, principal)
    if "multiagent" in fields:
        made["multiagent"] = check_multiagent(fields["multiagent"], look_up)
    return Definition.from_json(made)


def _offered(
    made: dict[str, Any],
    fields: Mapping[str, Any],
    catalogue: Catalogue,
    principal: Principal,
) -> None:
    if "mcp_servers" in fields:
        made["mcp_servers"] = check_mcp_servers(fields["mcp_servers"], catalogue, principal)
    if "skills" in fields:
        made["skills"] = check_skills(fields["skills"], catalogue, principal)
    if "tools" in fields or "mcp_servers" in fields:
        tools = fields["tools"] if "tools" in fields else made["tools"]
        made["tools"] = check_tools(tools, catalogue, made["mcp_servers"])


def _model(given: Any, principal: Principal) -> dict[str, Any]:
    config = {"id": given} if isinstance(given, str) else given
    if not isinstance(config, Mapping):
        raise Invalid("model is neither a name nor an object.", param="model")
    refuse_unknown(config, {"id", "effort", "inference_geo", "speed"}, "model")
    name = config.get("id")
    if not isinstance(name, str) or MODEL.fullmatch(name) is None:
        raise Invalid("model is not a model's name.", param="model")
    principal.require_model(name)
    for field, usual in (("effort", None), ("inference_geo", None), ("speed", "standard")):
        if config.get(field) is not None and config[field] != usual:
            raise unsupported(f"model.{field}")
    return {"id": name, "speed": "standard"}
