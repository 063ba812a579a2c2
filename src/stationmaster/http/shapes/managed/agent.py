"""Agents, as defined and as shown."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.managed.terms import JsonObject, Metadata, MetadataPatch, NextPage

# The parts of a definition are checked by the verbs, which name what is wrong with them.
Model = Annotated[Any, Field(description="A model's name, or an object with its name as `id`.")]
Tools = Annotated[
    Any,
    Field(
        description="`agent_toolset_20260401`, `mcp_toolset`s and `custom` tools, with `enabled`"
        " and `permission_policy`."
    ),
]
McpServers = Annotated[
    Any, Field(description="Of the operator's catalogue, by name and URL; no other.")
]
Skills = Annotated[Any, Field(description="Of the operator's catalogue, by name.")]
Rules = Annotated[
    Any,
    Field(
        description="Ours: what decides on tool calls before anybody is asked: a list of `tool`,"
        " `action` (`allow`, `ask`, `deny`), `pattern`."
    ),
]
Multiagent = Annotated[
    Any, Field(description="Other agents of the project that this one may call.")
]


class AgentCreate(Request):
    """An agent to be defined."""

    name: str
    model: Model
    description: str | None = None
    system: Annotated[str | None, Field(description="The system prompt, at most 100 KB.")] = None
    tools: Tools = None
    mcp_servers: McpServers = None
    skills: Skills = None
    multiagent: Multiagent = None
    rules: Rules = None
    execution_identity: Annotated[
        Any, Field(description="Null or `service_account`; no other is supported.")
    ] = None
    metadata: Metadata = Field(default_factory=dict)


class AgentUpdate(Request):
    """A next version. What is left out stays, null or an empty list clears."""

    version: Annotated[
        int | None, Field(ge=1, description="Refused unless this is the agent's latest version.")
    ] = None
    name: str | None = None
    model: Model = None
    description: str | None = None
    system: str | None = None
    tools: Tools = None
    mcp_servers: McpServers = None
    skills: Skills = None
    multiagent: Multiagent = None
    rules: Rules = None
    execution_identity: Any = None
    metadata: MetadataPatch = None


class Agent(Reply):
    """A version of an agent."""

    id: str
    type: Literal["agent"] = "agent"
    version: int
    name: str
    description: str | None
    model: JsonObject
    system: str | None
    tools: list[JsonObject]
    mcp_servers: list[JsonObject]
    skills: list[JsonObject]
    multiagent: JsonObject | None
    execution_identity: JsonObject
    rules: Annotated[list[JsonObject], Field(description="Ours; left out where there are none.")]
    metadata: dict[str, str]
    created_at: str
    updated_at: str
    archived_at: str | None

    @model_serializer(mode="wrap")
    def _plain(self, usual: SerializerFunctionWrapHandler) -> JsonObject:
        """As the API has it where nothing of ours is used."""
        made: JsonObject = usual(self)
        if not self.rules:
            made.pop("rules", None)
        return made


class AgentPage(Reply):
    """Agents, or versions of one, newest first."""

    data: list[Agent]
    next_page: NextPage
