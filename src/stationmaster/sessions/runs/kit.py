"""What a task's agent gets beyond its tools: sub-agents, skills and tool servers, found by name."""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from stationmaster.agents.base import SubAgent
from stationmaster.kernel.errors import Denied, Invalid, NotFound
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.agents import Agents, AgentVersion
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.offers import usable
from stationmaster.sessions.runs.bounds import check_kit
from stationmaster.sessions.runs.options import Kit, RunOptions
from stationmaster.sessions.toolset import tools_of

MOST_NAMED = 20  # of each, as an agent's definition may have
MOST_AGENTS = 1000  # of a project that are looked through, the newest
PAGE = 100

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")
_NAME_LENGTH = 64


class Kits:
    """Finds what tasks ask for by name, under the rights of who asks."""

    def __init__(self, agents: Agents, catalogue: Catalogue) -> None:
        self._agents = agents
        self._catalogue = catalogue

    async def find(self, principal: Principal, options: RunOptions, tools: Sequence[str]) -> Kit:
        """What the options name. A sub-agent has those of its own tools that are among `tools`.

        Raises `Denied` where the caller's scopes or profile do not allow one, `NotFound`
        (`unknown_agent`, `unknown_skill`, `unknown_mcp_server`) with the nearest name that the
        caller may use, and `Invalid`. All of them name the field as `param`.
        """
        offers = self._catalogue
        skills, servers = options.skills, options.mcp_servers
        check_kit(principal.profile, skills=skills, mcp_servers=servers)
        return Kit(
            await self._sub_agents(principal, options.agents, tools),
            _offered(principal, "skills", skills, offers.skills, "allow_skills"),
            _offered(principal, "mcp", servers, offers.mcp_servers, "mcp_servers"),
        )

    async def _sub_agents(
        self, principal: Principal, names: Sequence[str], tools: Sequence[str]
    ) -> tuple[SubAgent, ...]:
        if not names:
            return ()
        param, profile = "allow_agents", principal.profile
        there = await self._all(principal)
        made: dict[str, SubAgent] = {}
        for name in _each_once(names, param):
            found = [each for each in there if name in (each.id, each.definition.name)]
            check_kit(profile, sub_agents=(found[0].definition.name if found else name,))
            if not found:
                known = {each.definition.name for each in there}
                allowed = [each for each in known if profile is None or profile.allows_agent(each)]
                raise _unknown("agent", name, allowed, param)
            sub_agent = self._sub_agent(principal, found[0], tools)
            if len(found) > 1 or sub_agent.name in made:
                raise Invalid(
                    f"More than one agent is meant by {name[:64]!r}. Name it by its id.",
                    code="ambiguous_agent",
                    param=param,
                )
            made[sub_agent.name] = sub_agent
        return tuple(made.values())

    async def _all(self, principal: Principal) -> list[AgentVersion]:
        found: list[AgentVersion] = []
        after: str | None = None
        while len(found) < MOST_AGENTS:
            page = await self._agents.list(principal, limit=PAGE, after=after)
            found += page.items
            after = page.next_cursor
            if after is None:
                break
        return found

    def _sub_agent(
        self, principal: Principal, found: AgentVersion, tools: Sequence[str]
    ) -> SubAgent:
        definition = found.definition
        model = str(definition.model["id"])
        principal.require_model(model)
        own = tools_of(definition.to_json(), self._catalogue.tools)
        # What an agent calls its sub-agents is narrower than what a definition may be named.
        name = _NOT_IN_NAMES.sub("-", definition.name).strip("-")[:_NAME_LENGTH] or found.id
        return SubAgent(
            name=name,
            description=definition.description or definition.name,
            prompt=definition.system or definition.name,
            tools=tuple(tool for tool in own if tool in tools),
            model=model,
        )


def _offered(
    principal: Principal, kind: str, names: Sequence[str], there: Collection[str], param: str
) -> tuple[str, ...]:
    for name in _each_once(names, param):
        if name not in there:
            allowed = [each for each in there if usable(principal, kind, each)]
            raise _unknown("skill" if kind == "skills" else "MCP server", name, allowed, param)
        if not usable(principal, kind, name):
            raise Denied(
                f"This credential may not use {name[:64]!r}.", scope=f"use:{kind}", param=param
            )
    return _each_once(names, param)


def _each_once(names: Sequence[str], param: str) -> tuple[str, ...]:
    if len(names) > MOST_NAMED:
        raise Invalid(f"{param} has more than {MOST_NAMED} entries.", param=param)
    return tuple(dict.fromkeys(names))


def _unknown(what: str, name: str, allowed: Iterable[str], param: str) -> NotFound:
    nearest = difflib.get_close_matches(name[:_NAME_LENGTH], sorted(allowed), n=1, cutoff=0.0)
    hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
    return NotFound(
        f"There is no {what} {name[:64]!r} that a task may use{hint}.",
        code=f"unknown_{what.lower().replace(' ', '_')}",
        param=param,
    )
