"""Clients and the keys of their users, in the envelope that people know."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request

T = TypeVar("T")


class Enveloped(Reply, Generic[T]):
    """An answer."""

    status: Literal["success"] = "success"
    data: T
    timestamp: str


class ClientRequest(Request):
    """A client to be made."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: Annotated[str | None, Field(max_length=4096)] = None


class ClientChange(Request):
    """What to change; what is left out stays."""

    name: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    description: Annotated[str | None, Field(max_length=4096)] = None


class Client(Reply):
    """An organisation."""

    id: str
    name: str
    description: str | None
    created_at: str


class NewClient(Client):
    """A client that was just made."""

    master_api_key: Annotated[str, Field(description="Shown this once.")]


class MasterKey(Reply):
    """A new master key."""

    master_api_key: Annotated[str, Field(description="Shown this once.")]


class Closed(Reply):
    """It is done."""

    ok: Literal[True] = True


class UserLogin(Request):
    """A user of the client's, under the name that the client has for it."""

    user_id: Annotated[str, Field(min_length=1, max_length=255)]
    display_name: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    permissions: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=50,
            default_factory=lambda: ["read_messages", "send_messages"],
            description="`read_messages`, `send_messages`, `manage_rooms`, `invite_users`, or any"
            " scope.",
        ),
    ]


class UserLogout(Request):
    """Whom to log out. Left out: the user whose key this is asked with."""

    user_id: Annotated[str | None, Field(min_length=1, max_length=255)] = None


class UserKey(Reply):
    """A user's key; the one from before is not valid any more."""

    user_id: str
    display_name: str
    permissions: list[str]
    api_key: Annotated[str, Field(description="Shown this once.")]
    created_at: str


class ValidToken(Reply):
    """Whose key it is."""

    valid: Literal[True] = True
    client_id: str
    user_id: Annotated[str | None, Field(description="Null for a master key.")]
    display_name: str | None
    permissions: list[str]
    expires_at: str | None
