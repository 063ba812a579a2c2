"""Which calls may be answered from the cache, and what makes two of them the same question."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from stationmaster.cache import Answer
from stationmaster.gateway.body import CallBody
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid
from stationmaster.providers.base import Headers

HEADER = "x-stationmaster-cache"
STANDARD = "cache-control"

TOOLS = ("tools", "functions", "mcp_servers", "container", "web_search_options")
"""Members by which a model acts or looks things up: its answer may be another each time."""
_NONE = frozenset({b"null", b"[]", b"{}", b"false"})

REMEMBERING = ("previous_response_id", "conversation", "background")
"""Members by which a call goes on with what a provider remembers: never from the cache."""

_DEPENDS = ("anthropic-", "openai-")
"""Headers that pass on and change what is answered; the others that pass on do not."""

_MAX_AGE = re.compile(r"max-age=(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants of the cache. `max_age` is in seconds, None any; at 0 it asks anew."""

    max_age: int | None = None

    @property
    def anew(self) -> bool:
        """Whether the provider is to be asked in any case."""
        return self.max_age == 0

    def accepts(self, answer: Answer, now: Millis) -> bool:
        """Whether an answer is young enough."""
        return self.max_age is None or now - answer.kept_at <= self.max_age * 1000


def wish_of(body: CallBody, headers: Mapping[str, str]) -> Wish | None:
    """What is wanted of the cache; None where a call has nothing to do with it.

    By itself it is used where the same question has the same answer: for embeddings, and for calls
    without tools whose `temperature` is 0. `x-stationmaster-cache: on` asks for it elsewhere too,
    `off` for none, and `cache-control` for `no-store`, `no-cache` or a `max-age`.

    Raises `Invalid` for another word in the header of ours.
    """
    asked = headers[HEADER].strip().lower() if HEADER in headers else ""
    if asked not in {"", "on", "off"}:
        raise Invalid(f"{HEADER}: Must be on or off.", param=HEADER)
    if not asked and not _same_each_time(body):
        return None
    standard = headers.get(STANDARD, "").lower()
    if asked == "off" or "no-store" in standard or _any(body, REMEMBERING):
        return None
    if "no-cache" in standard:
        return Wish(max_age=0)
    young = _MAX_AGE.search(standard)
    return Wish(max_age=int(young[1]) if young else None)


def _same_each_time(body: CallBody) -> bool:
    if body.operation == "embeddings":
        return True
    if "temperature" not in body.members or _any(body, TOOLS):
        return False
    try:
        return float(bytes(body.members["temperature"])) == 0
    except ValueError:
        return False


def _any(body: CallBody, names: Sequence[str]) -> bool:
    members = body.members
    return any(name in members and bytes(members[name]) not in _NONE for name in names)


MAX_READ = 1024 * 1024
"""Bytes. To read a longer body as a whole would keep others waiting."""


class _TwiceError(ValueError):
    """A name that comes twice in an object: each reader may take another of the two."""


def question(
    body: CallBody, headers: Headers, query: str, *, provider: str, model: str, max_tokens: int
) -> Iterator[bytes]:
    """All that an answer depends on: two calls with the same parts are the same question.

    The body counts as what it means: blanks and the order of members do not, and the model's name
    is the one that really answers. `max_tokens` is what was held for. A body that can be read in
    two ways, or is longer than `MAX_READ`, counts as itself, byte for byte.
    """
    yield body.operation.encode()
    yield provider.encode()
    yield model.encode()
    yield b"%d" % max_tokens
    yield query.encode()
    for name, value in sorted(each for each in headers if each[0].startswith(_DEPENDS)):
        yield f"{name}:{value}".encode()
    yield _meaning(body)


def _meaning(body: CallBody) -> bytes:
    if len(body.raw) > MAX_READ:
        return body.raw
    try:
        members = json.loads(body.raw, object_pairs_hook=_once, parse_float=Decimal)
        del members["model"]
        return _encoder.encode(members)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return body.raw


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _TwiceError
    return found


_encoder = msgspec.json.Encoder(order="sorted", decimal_format="number")
