"""What agents can be given, by the caller's rights."""

from typing import Annotated

from pydantic import Field

from stationmaster.http.shapes.base import Reply


class AgentOffer(Reply):
    """An agent of the project."""

    id: str
    name: str
    description: str | None
    tools: Annotated[list[str], Field(description="Of its toolset, and its own.")]
    model: str


class SkillOffer(Reply):
    """A skill of the operator's."""

    name: str
    description: str | None
    command: Annotated[str, Field(description="How an agent is told to use it.")]


class McpServerOffer(Reply):
    """A tool server of the operator's."""

    name: str
    url: Annotated[str, Field(description="As an agent's definition names it.")]


class Counts(Reply):
    """How many of each."""

    agents: int
    skills: int
    mcp_servers: int
    tools: int


class Capabilities(Reply):
    """What an agent of the caller's can be, and be given."""

    agents: list[AgentOffer]
    skills: list[SkillOffer]
    mcp_servers: list[McpServerOffer]
    tools: list[str]
    counts: Counts
    agents_count: Annotated[
        int, Field(description="As `counts` has it, at the top for plain clients.")
    ]
    skills_count: int
