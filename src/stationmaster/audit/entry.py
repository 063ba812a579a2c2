"""One line of the audit log: who did what, on what, from where, when, and how it went."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import msgspec

from stationmaster.kernel import origin
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.origin import Origin
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.kernel.text import scrub

Outcome = Literal["success", "refused", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("success", "refused", "failed")

GENESIS = "0" * 64
MAX_DETAILS = 4096  # bytes; details tell what changed, not what it was about
MAX_TARGET = 128
_MAX_ADDRESS = 64
_MAX_ACTOR = 64


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and from where. Of a key there are its id and its last four characters."""

    kind: str
    id: str
    hint: str
    organization_id: str
    project_id: str | None
    address: str | None
    request_id: str | None

    @classmethod
    def of(cls, principal: Principal, here: Origin | None = None) -> Self:
        """The caller, with the address and id of the request under way.

        Call it before the transaction begins: inside, the request is not known.
        """
        here = here or origin.current()
        owner = principal.owner
        return cls(
            principal.kind,
            principal.id[:_MAX_ACTOR],
            principal.hint,
            owner.organization_id,
            owner.project_id,
            here.address,
            here.request_id,
        )

    @classmethod
    def named(cls, kind: str, name: str, owner: Owner, here: Origin | None = None) -> Self:
        """Somebody without a credential that counts: a user who signs in, or an address."""
        here = here or origin.current()
        return cls(
            kind,
            name[:_MAX_ACTOR],
            "",
            owner.organization_id,
            owner.project_id or None,
            here.address,
            here.request_id,
        )

    @classmethod
    def server(cls, owner: Owner) -> Self:
        """The server itself."""
        return cls("server", "server", "", owner.organization_id, owner.project_id, None, None)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that is written. `seq` counts in its organisation's chain, from 1."""

    organization_id: str
    seq: int
    at: Millis
    project_id: str | None
    actor_kind: str
    actor_id: str
    actor_hint: str
    address: str | None
    request_id: str | None
    action: str
    target: str | None
    outcome: str
    details: Mapping[str, Any]
    hash: str


def encode_details(details: Mapping[str, Any] | None) -> str:
    """The details as JSON; too long ones are replaced by their length."""
    encoded = msgspec.json.encode(scrub(details or {}))
    if len(encoded) > MAX_DETAILS:
        encoded = msgspec.json.encode({"omitted_bytes": len(encoded)})
    return encoded.decode()


def clipped(value: str | None, most: int = _MAX_ADDRESS) -> str | None:
    """Text that came from outside, as long as its column takes, and storable everywhere."""
    return None if value is None else str(scrub(value)).replace("\0", "?")[:most]


# Everything that a row says, in the order in which it is hashed.
FIELDS = (
    "organization_id",
    "seq",
    "at",
    "project_id",
    "actor_kind",
    "actor_id",
    "actor_hint",
    "address",
    "request_id",
    "action",
    "target",
    "outcome",
    "details",
    "key_id",
)


def entry_hash(key: bytes, previous: str, row: Mapping[str, Any]) -> str:
    """The hash of a row: keyed, and over the hash of the row before."""
    return _mac(key, ["entry", previous, *(row[name] for name in FIELDS)])


def checkpoint_hash(key: bytes, previous: str, row: Mapping[str, Any]) -> str:
    """The hash of a checkpoint, over the one before it."""
    fields = ("organization_id", "seq", "from_seq", "entry_hash", "at", "key_id")
    return _mac(key, ["checkpoint", previous, *(row[name] for name in fields)])


def _mac(key: bytes, fields: list[Any]) -> str:
    return hmac.new(key, msgspec.json.encode(fields), hashlib.sha256).hexdigest()
