"""`model: "agent:NAME"`: which agents there are to ask, and which requests ask one.

Asked of every request, so what answers them is imported with the first.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from stationmaster.gateway.dispatch import SCOPE
from stationmaster.gateway.members import decode, model_of
from stationmaster.http.services import Services
from stationmaster.http.wire.exchange import Exchange, Scope
from stationmaster.http.wire.face import Face
from stationmaster.http.wire.plain_chat import Prepared
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.principal import Principal
from stationmaster.providers.base import Operation
from stationmaster.sessions.agents import AgentVersion

PREFIX = "agent:"
OWNER = "agents"
OPERATIONS: frozenset[Operation] = frozenset({"chat", "messages"})
MOST = 1000  # agents that are looked at
_PAGE = 100
_HINT = re.compile(rb'"agent:')  # in a long prompt a pattern finds so short a word in half the time


def names_agent(operation: Operation, raw: bytes) -> bool:
    """Whether a request is for an agent. Cheap for those that are not."""
    if operation not in OPERATIONS or _HINT.search(raw) is None:
        return False
    return model_of(decode(raw)).startswith(PREFIX)


class AgentModels:
    """Agents as models."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def names(self, principal: Principal) -> list[str]:
        """Those that the caller may ask."""
        if not all(map(principal.may, (SCOPE, "read:agents", "read:sessions", "write:sessions"))):
            return []
        gateway = self._services.gateway
        return [
            PREFIX + each.definition.name
            async for each in self._agents(principal)
            if gateway.may_use(principal, each.definition.model["id"])
        ]

    async def _agents(self, principal: Principal) -> AsyncGenerator[AgentVersion, None]:
        """The project's agents, the newest first."""
        after: str | None = None
        for _ in range(MOST // _PAGE):
            page = await self._services.agents.list(principal, limit=_PAGE, after=after)
            for each in page.items:
                yield each
            after = page.next_cursor
            if after is None:
                return

    async def _find(self, principal: Principal, name: str) -> AgentVersion:
        """The newest agent of a name, or the one whose id it is."""
        async with aclosing(self._agents(principal)) as agents:
            async for each in agents:
                if name in (each.definition.name, each.id):
                    return each
        raise NotFound(
            f"model: There is no agent {name[:256]!r} here.", code="unknown_model", param="model"
        )

    async def answer(
        self, face: Face, principal: Principal, request: Prepared, exchange: Exchange, scope: Scope
    ) -> None:
        """Answer a request for which `names_agent` is true; see `agent_answer.answer`."""
        from stationmaster.http.wire import agent_answer

        principal.require(SCOPE)
        model = model_of(decode(request.raw))
        agent = await self._find(principal, model.removeprefix(PREFIX))
        if any(tool["type"] == "custom" for tool in agent.definition.tools):
            raise Invalid(
                "model: This agent has custom tools, which its client runs: make a session.",
                param="model",
            )
        await self._services.runs.require_room(principal)  # before there is a session
        asked = agent_answer.Asked(face, principal, request, model, agent.id)
        await agent_answer.answer(self._services, asked, exchange, scope)
