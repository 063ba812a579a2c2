"""Environments, as defined and as shown."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.managed.terms import JsonObject, Metadata, MetadataPatch, NextPage

Config = Annotated[
    Any,
    Field(
        description="`cloud` with `limited` networking, without hosts and packages: agents reach"
        " the model gateway alone, and the operator provides what they need. Or `self_hosted`: the"
        " tools of its sessions are run by workers of your own. The type never changes."
    ),
]
Scope = Annotated[str | None, Field(description="`organization`; no other is supported.")]


class EnvironmentCreate(Request):
    """An environment to be defined."""

    name: str
    description: str | None = None
    config: Config = None
    metadata: Metadata = Field(default_factory=dict)
    scope: Scope = None


class EnvironmentUpdate(Request):
    """What to change. What is left out stays."""

    name: str | None = None
    description: str | None = None
    config: Config = None
    metadata: MetadataPatch = None
    scope: Scope = None


class Environment(Reply):
    """An environment."""

    id: str
    type: Literal["environment"] = "environment"
    name: str
    description: str | None
    config: JsonObject
    metadata: dict[str, str]
    scope: Literal["organization"] = "organization"
    created_at: str
    updated_at: str
    archived_at: str | None


class EnvironmentPage(Reply):
    """Environments, newest first."""

    data: list[Environment]
    next_page: NextPage
