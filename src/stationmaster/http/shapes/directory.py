"""Organisations and people, where the Admin API of the SDKs has nothing for them."""

from typing import Annotated

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.key import KeyLimits

Role = Annotated[str, Field(max_length=16, description="`owner`, `admin`, `member` or `viewer`.")]


class OrganizationRequest(Request):
    """A tenant to be made."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: Annotated[str | None, Field(max_length=4096)] = None


class OrganizationChanges(Request):
    """What is to be different of your organisation. What is left out stays."""

    name: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    description: Annotated[str | None, Field(max_length=4096)] = None
    limits: Annotated[
        KeyLimits | None, Field(description="How fast it may go in all; replaces what was.")
    ] = None


class OrganizationView(Reply):
    """An organisation."""

    id: str
    name: str
    description: str | None
    limits: dict[str, int]
    created_at: str


class NewOrganization(OrganizationView):
    """A tenant that was just made."""

    project_id: Annotated[str, Field(description="Its default project.")]
    key_id: str
    key: Annotated[str, Field(description="Its master key. It is shown this once.")]


class UserRequest(Request):
    """A person to be added without an invite."""

    email: Annotated[str, Field(min_length=3, max_length=320)]
    name: Annotated[str, Field(max_length=256)]
    role: Role = "member"


class UserChanges(Request):
    """What is to be different of a person. What is left out stays."""

    name: Annotated[str | None, Field(max_length=256)] = None
    role: Role | None = None
    status: Annotated[
        str | None, Field(max_length=16, description="`active`, or `disabled` for a while.")
    ] = None


class UserView(Reply):
    """A person in the organisation."""

    id: str
    email: str | None
    name: str
    role: str
    status: str
    created_at: str


class InviteToken(Reply):
    """What an invited person shows to come in."""

    token: Annotated[str, Field(description="It is good until the invite is over.")]
    expires_at: str


class Acceptance(Request):
    """A person comes in."""

    token: Annotated[str, Field(min_length=1, max_length=256)]
    name: Annotated[str, Field(max_length=256)]
