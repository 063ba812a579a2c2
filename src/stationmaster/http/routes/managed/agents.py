"""Agents: defined, changed by versions, listed, archived."""

from typing import Annotated

from fastapi import FastAPI, Path, Query

from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.query import (
    PAGE_SIZE,
    Archived,
    CreatedGte,
    CreatedLte,
    PageCursor,
    PageLimit,
    after_number,
    since,
    until,
)
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.managed.agent import Agent, AgentCreate, AgentPage, AgentUpdate
from stationmaster.kernel.clock import iso
from stationmaster.kernel.paging import Page
from stationmaster.sessions.agents import AgentVersion

AgentId = Annotated[str, Path(description="The agent's id, `agent_…`.")]
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Left out: the latest.")]


async def create_agent(body: AgentCreate, services: Given, caller: Caller) -> Agent:
    """Define an agent, at version 1."""
    return agent_view(await services.agents.create(caller, body.model_dump(exclude_unset=True)))


async def get_agent(
    agent_id: AgentId, services: Given, caller: Caller, version: Version = None
) -> Agent:
    """An agent, at its latest version or at an earlier one."""
    return agent_view(await services.agents.get(caller, agent_id, version=version))


async def update_agent(
    agent_id: AgentId, body: AgentUpdate, services: Given, caller: Caller
) -> Agent:
    """Make an agent's next version. What changes nothing makes none."""
    fields = body.model_dump(exclude_unset=True)
    fields.pop("version", None)
    made = await services.agents.update(caller, agent_id, fields, version=body.version)
    return agent_view(made)


async def list_agents(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
    include_archived: Archived = False,
    created_gte: CreatedGte = None,
    created_lte: CreatedLte = None,
) -> AgentPage:
    """The project's agents, newest first."""
    found = await services.agents.list(
        caller,
        limit=limit,
        after=id_cursor(page, "agent"),
        include_archived=include_archived,
        created_from=since(None, created_gte),
        created_to=until(None, created_lte),
    )
    return _page(found)


async def list_agent_versions(
    agent_id: AgentId,
    services: Given,
    caller: Caller,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
) -> AgentPage:
    """An agent's versions, newest first."""
    after = after_number(page)
    return _page(await services.agents.versions(caller, agent_id, limit=limit, after=after))


async def archive_agent(agent_id: AgentId, services: Given, caller: Caller) -> Agent:
    """Take an agent out of use. The sessions that it has go on."""
    return agent_view(await services.agents.archive(caller, agent_id))


def agent_view(agent: AgentVersion) -> Agent:
    """An agent as the API shows it."""
    return Agent(
        id=agent.id,
        version=agent.version,
        created_at=iso(agent.created_at),
        updated_at=iso(agent.updated_at),
        archived_at=None if agent.archived_at is None else iso(agent.archived_at),
        **agent.definition.to_json(),
    )


def _page(found: Page[AgentVersion]) -> AgentPage:
    return AgentPage(data=[agent_view(item) for item in found.items], next_page=found.next_cursor)


def install(api: FastAPI) -> None:
    """Add the routes."""
    here = "/v1/agents"
    one = f"{here}/{{agent_id}}"
    add(api, "POST", here, create_agent, summary="Define an agent", reply=Agent)
    add(api, "GET", here, list_agents, summary="List agents", reply=AgentPage)
    add(api, "GET", one, get_agent, summary="Show an agent", reply=Agent, refusals=(404,))
    add(
        api,
        "POST",
        one,
        update_agent,
        summary="Make an agent's next version",
        reply=Agent,
        refusals=(404, 409),
    )
    add(
        api,
        "GET",
        f"{one}/versions",
        list_agent_versions,
        summary="List an agent's versions",
        reply=AgentPage,
        refusals=(404,),
    )
    add(
        api,
        "POST",
        f"{one}/archive",
        archive_agent,
        summary="Archive an agent",
        reply=Agent,
        refusals=(404,),
    )
