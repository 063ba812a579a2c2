"""Agents and environments through Anthropic's own SDK."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from tests.http.conftest import ADMIN, STRANGER, House
from tests.support.sdk import check, sdk

TOOLSET: Any = {"type": "agent_toolset_20260401"}
WEATHER: Any = {
    "type": "custom",
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
NOBODY = "agent_01jd3k00000000000000000000"
NOWHERE = "env_01jd3k00000000000000000000"


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, ADMIN) as made:
        yield made


async def test_an_agent_from_definition_to_archive(client: anthropic.AsyncAnthropic) -> None:
    agents = client.beta.agents
    made = check(
        await agents.create(
            name="Helper",
            model="claude-sonnet-4-5",
            system="Be brief.",
            description="It helps.",
            metadata={"team": "a"},
            tools=[TOOLSET, WEATHER],
        )
    )
    assert (made.version, made.name, made.system) == (1, "Helper", "Be brief.")
    assert made.model.id == "claude-sonnet-4-5"
    assert [tool.type for tool in made.tools] == ["agent_toolset_20260401", "custom"]
    assert made.archived_at is None
    assert check(await agents.retrieve(made.id)) == made

    changed = check(await agents.update(made.id, version=1, system="Be long.", metadata={"b": "c"}))
    assert (changed.version, changed.system) == (2, "Be long.")
    assert (changed.name, changed.metadata) == ("Helper", {"team": "a", "b": "c"})
    assert changed.created_at == made.created_at
    cleared = check(await agents.update(made.id, system=None, tools=[], metadata={"team": None}))
    assert (cleared.version, cleared.system, cleared.tools) == (3, None, [])
    assert cleared.metadata == {"b": "c"}
    assert check(await agents.update(made.id, name="Helper")).version == 3

    assert check(await agents.retrieve(made.id, version=1)).to_dict() == made.to_dict()
    versions = [check(item).version async for item in agents.versions.list(made.id, limit=2)]
    assert versions == [3, 2, 1]

    archived = check(await agents.archive(made.id))
    assert archived.archived_at is not None
    assert check(await agents.archive(made.id)) == archived
    assert [item.id async for item in agents.list()] == []
    assert [check(item).id async for item in agents.list(include_archived=True)] == [made.id]
    with pytest.raises(anthropic.ConflictError) as caught:
        await agents.update(made.id, name="Other")
    assert caught.value.error_code == "agent_archived"


async def test_agents_are_listed_in_pages(client: anthropic.AsyncAnthropic) -> None:
    made = [
        (await client.beta.agents.create(name=f"a{n}", model="claude-haiku-4-5")) for n in range(5)
    ]
    page = await client.beta.agents.list(limit=2)
    assert [check(item).name for item in page.data] == ["a4", "a3"]
    assert [item.name async for item in page] == ["a4", "a3", "a2", "a1", "a0"]
    first, last = made[0].created_at, made[-1].created_at
    within = client.beta.agents.list(created_at_gte=first, created_at_lte=last)
    assert len([item async for item in within]) == 5
    later = client.beta.agents.list(created_at_gte="2999-01-01T00:00:00Z")
    assert [item async for item in later] == []


async def test_an_environment_from_definition_to_its_end(
    client: anthropic.AsyncAnthropic,
) -> None:
    environments = client.beta.environments
    made = check(await environments.create(name="Here", metadata={"a": "b"}))
    assert made.config.type == "cloud"
    assert check(await environments.retrieve(made.id)) == made
    changed = check(
        await environments.update(
            made.id, name="There", description="Far.", metadata={"a": None, "c": "d"}
        )
    )
    assert (changed.name, changed.description, changed.metadata) == ("There", "Far.", {"c": "d"})
    assert [check(item).id async for item in environments.list(limit=1)] == [made.id]
    assert check(await environments.archive(made.id)).archived_at is not None
    assert [item async for item in environments.list()] == []
    assert len([item async for item in environments.list(include_archived=True)]) == 1
    with pytest.raises(anthropic.BadRequestError) as caught:
        await environments.update(made.id, name="Nowhere")
    assert caught.value.error_code == "environment_archived"
    gone = check(await environments.delete(made.id))
    assert (gone.id, gone.type) == (made.id, "environment_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await environments.retrieve(made.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"model": "--help"}, "model"),
        ({"model": {"id": "claude-haiku-4-5", "effort": "max"}}, "model.effort"),
        ({"model": {"id": "claude-haiku-4-5", "color": "red"}}, "model.color"),
        ({"system": "x" * 100_001}, "system"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"tools": [{"type": "rocket"}]}, "tools.0.type"),
        ({"tools": "all"}, "tools"),
        ({"mcp_servers": [{"type": "url", "name": "x", "url": "http://x"}]}, "mcp_servers.0"),
        ({"skills": [{"type": "custom", "skill_id": "x"}]}, "skills.0.skill_id"),
        ({"multiagent": {"type": "coordinator", "agents": [NOBODY]}}, "multiagent"),
        ({"execution_identity": {"type": "aws_role", "role_arn": "x"}}, "execution_identity"),
        ({"rules": "all"}, "rules"),
        ({"rules": [{"tool": "bash", "action": "perhaps"}]}, "rules.0.action"),
        ({"rules": [{"tool": "bash", "action": "ask", "when": "x"}]}, "rules.0.when"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_a_wrong_definition_is_named_and_makes_nothing(
    client: anthropic.AsyncAnthropic, fields: dict[str, Any], param: str
) -> None:
    good: dict[str, Any] = {"name": "a", "model": "claude-haiku-4-5"}
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.beta.agents.create(**good, extra_body=fields)
    assert caught.value.status_code in {400, 403, 413}
    assert caught.value.body["error"]["details"]["param"] == param  # type: ignore[index]
    assert [item async for item in client.beta.agents.list()] == []


@pytest.mark.parametrize(
    ("config", "param"),
    [
        ({"type": "elsewhere"}, "config.type"),
        ({"type": "self_hosted", "hosts": []}, "config.hosts"),
        ({"type": "cloud", "networking": {"type": "unrestricted"}}, "config.networking.type"),
        (
            {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["a.org"]}},
            "config.networking.allowed_hosts",
        ),
        ({"type": "cloud", "packages": {"pip": ["numpy"]}}, "config.packages.pip"),
    ],
)
async def test_an_environment_that_cannot_be_is_refused_by_name(
    client: anthropic.AsyncAnthropic, config: Any, param: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        await client.beta.environments.create(name="x", config=config)
    assert caught.value.body["error"]["details"]["param"] == param  # type: ignore[index]
    assert [item async for item in client.beta.environments.list()] == []


async def test_a_version_that_is_not_the_latest_changes_nothing(
    client: anthropic.AsyncAnthropic,
) -> None:
    made = await client.beta.agents.create(name="a", model="claude-haiku-4-5")
    await client.beta.agents.update(made.id, name="b", version=1)
    with pytest.raises(anthropic.ConflictError) as caught:
        await client.beta.agents.update(made.id, name="c", version=1)
    assert caught.value.error_code == "version_conflict"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert (await client.beta.agents.retrieve(made.id)).name == "b"


async def test_what_is_not_there_or_anothers_is_not_found(
    client: anthropic.AsyncAnthropic, house: House, stranger: dict[str, str]
) -> None:
    agent = await client.beta.agents.create(name="a", model="claude-haiku-4-5")
    environment = await client.beta.environments.create(name="e")
    async with sdk(house.url, STRANGER) as other:
        for who, agent_id, environment_id in (
            (client, NOBODY, NOWHERE),
            (client, "nonsense", "nonsense"),
            (other, agent.id, environment.id),
        ):
            for attempt in (
                who.beta.agents.retrieve(agent_id),
                who.beta.agents.update(agent_id, name="x"),
                who.beta.agents.archive(agent_id),
                who.beta.environments.retrieve(environment_id),
                who.beta.environments.update(environment_id, name="x"),
                who.beta.environments.archive(environment_id),
                who.beta.environments.delete(environment_id),
            ):
                with pytest.raises(anthropic.NotFoundError) as caught:
                    await attempt
                assert caught.value.type == "not_found_error"
        assert [item async for item in other.beta.agents.list()] == []
        assert [item async for item in other.beta.environments.list()] == []
    assert (await client.beta.agents.retrieve(agent.id)).version == 1
