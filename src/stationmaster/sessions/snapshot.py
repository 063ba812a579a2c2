"""The agent of a session: a definition as it was when the session was made."""

from collections.abc import Mapping
from typing import Any

from stationmaster.kernel.errors import Conflict, Invalid
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.agents import AgentVersion, find_agent
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.checks import refuse_unknown
from stationmaster.sessions.definition import Definition, changed, define
from stationmaster.sessions.offers import check_team
from stationmaster.storage import Transaction

OVERRIDES = ("mcp_servers", "model", "skills", "system", "tools")


def resolve(
    tx: Transaction, principal: Principal, catalogue: Catalogue, wanted: Any
) -> dict[str, Any]:
    """The API's `session.agent` for what a request names.

    Besides the API's forms, an object of type `inline` is a whole definition that is kept nowhere
    else. Whoever makes a session must have the rights that its agent needs.
    """
    if isinstance(wanted, str):
        wanted = {"type": "agent", "id": wanted}
    if not isinstance(wanted, Mapping):
        raise Invalid("agent is neither an id nor an object.", param="agent")
    kind = wanted.get("type")
    if kind == "inline":
        fields = {name: value for name, value in wanted.items() if name != "type"}
        definition = define(fields, catalogue, principal, _look_up(tx, principal))
        made = AgentVersion("inline", 1, definition, 0, 0).snapshot()
        return _expanded(tx, principal, catalogue, made)
    allowed = {"type", "id", "version"} | (
        set(OVERRIDES) if kind == "agent_with_overrides" else set()
    )
    if kind not in {"agent", "agent_with_overrides"}:
        raise Invalid("agent.type must be agent.", param="agent.type")
    refuse_unknown(wanted, allowed, "agent")
    found = _named(tx, principal, wanted)
    overrides = {name: wanted[name] for name in OVERRIDES if name in wanted}
    return snapshot(tx, principal, catalogue, found, overrides)


def _named(tx: Transaction, principal: Principal, wanted: Mapping[str, Any]) -> AgentVersion:
    agent_id, version = wanted.get("id"), wanted.get("version")
    if not isinstance(agent_id, str):
        raise Invalid("agent.id is not an id.", param="agent.id")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise Invalid("agent.version is not a number.", param="agent.version")
    found = find_agent(tx, principal.owner, agent_id, version)
    if found.archived_at is not None:
        raise Conflict("The agent is archived.", code="agent_archived", param="agent")
    return found


def snapshot(
    tx: Transaction,
    principal: Principal,
    catalogue: Catalogue,
    found: AgentVersion,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """An agent's version for a session, with `overrides` over it."""
    definition = found.definition
    # Checked again in whole: rights and the operator's offers may have changed since.
    again = {
        "model": definition.model,
        "mcp_servers": definition.mcp_servers,
        "skills": definition.skills,
        "tools": definition.tools,
        **overrides,
    }
    definition = changed(definition, again, catalogue, principal, _look_up(tx, principal))
    made = AgentVersion(found.id, found.version, definition, 0, 0).snapshot()
    return _expanded(tx, principal, catalogue, made)


def overridden(
    agent: dict[str, Any], catalogue: Catalogue, principal: Principal, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """A session's agent with other tools. Raises as `Agents.update` does."""
    refuse_unknown(fields, {"tools", "mcp_servers"}, "agent")
    present = Definition(
        agent["name"],
        agent["model"],
        tools=agent["tools"],
        mcp_servers=agent["mcp_servers"],
    )
    made = changed(present, fields, catalogue, principal, lambda _id, _version: 1)
    agent = {**agent, "tools": made.tools, "mcp_servers": made.mcp_servers}
    check_team(agent, (agent["multiagent"] or {}).get("agents", []), catalogue)
    return agent


def _look_up(tx: Transaction, principal: Principal) -> Any:
    return lambda other, version: find_agent(tx, principal.owner, other, version).version


def _expanded(
    tx: Transaction, principal: Principal, catalogue: Catalogue, agent: dict[str, Any]
) -> dict[str, Any]:
    """Sub-agents in whole, as they are now: a later version of theirs changes no session."""
    multiagent = agent["multiagent"]
    if multiagent is None:
        return agent
    others = []
    for each in multiagent["agents"]:
        found = find_agent(tx, principal.owner, each["id"], each["version"]).snapshot()
        del found["multiagent"]
        others.append(found)
    check_team(agent, others, catalogue)
    return {**agent, "multiagent": {**multiagent, "agents": others}}
