"""`previous_response_id` and `store`: turns of OpenAI's Responses that this server keeps itself.

A provider is always sent the whole conversation. So a conversation goes on whoever answers it
(another provider, or one whose format has no such thing), the hold is for what is really sent, and
an id of the operator's account at the provider, which all tenants share, is of use to nobody.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
import structlog

from stationmaster.gateway.members import Members, decode, locate, read
from stationmaster.gateway.splitter import Splitter, data_of
from stationmaster.kernel.errors import Invalid, StationmasterError, TooLarge
from stationmaster.kernel.principal import Principal
from stationmaster.responses import Conversation, Responses

log = structlog.get_logger(__name__)

PREVIOUS = "previous_response_id"
MAX_INPUT_BYTES = 32 * 1000 * 1000  # of a conversation, as of any call of a model

_ENDS = frozenset({"response.completed", "response.incomplete"})
_KEPT = frozenset({"completed", "incomplete"})

_text = msgspec.json.Decoder(str | None)
_flag = msgspec.json.Decoder(bool | None)
_input: msgspec.json.Decoder[str | list[msgspec.Raw]] = msgspec.json.Decoder(
    str | list[msgspec.Raw]
)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Response(msgspec.Struct):
    id: str
    status: str = "completed"


_response = msgspec.json.Decoder(_Response)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose conversation is whole, and what is to be kept of it."""

    raw: bytes
    turn: "Turn | None"


async def remember(principal: Principal, raw: bytes, responses: Responses) -> Asked:
    """Put what was said before into a request.

    Raises `Invalid`, `NotFound` for a response that is not kept for who asks, and `TooLarge`.
    """
    members = decode(raw)
    previous = read(members, PREVIOUS, _text)
    stored = read(members, "store", _flag) is not False and responses.keeps
    if previous is None and not stored:
        return Asked(raw, None)
    said = _said(members)
    if previous is None:
        return Asked(raw, Turn(principal, responses, said, None, None))
    try:
        before = await responses.get(principal, previous)
    except StationmasterError as error:
        error.param = PREVIOUS
        raise
    spans = locate(raw, members)
    items = b"[" + b",".join(map(bytes, (*before.items(), *said))) + b"]"
    if len(items) > MAX_INPUT_BYTES:
        raise TooLarge(f"The conversation is longer than {MAX_INPUT_BYTES} bytes.", param=PREVIOUS)
    parts = {name: raw[start:end] for name, (start, end) in spans.items() if name != PREVIOUS}
    parts["input"] = items
    whole = b",".join(msgspec.json.encode(name) + b":" + value for name, value in parts.items())
    turn = Turn(principal, responses if stored else None, said, before, previous)
    return Asked(b"{" + whole + b"}", turn)


def _said(members: Members) -> list[msgspec.Raw]:
    """The request's own input, as items."""
    given = read(members, "input", _input)
    if given is None:
        raise Invalid("input: Field required.", param="input")
    if isinstance(given, str):
        return [msgspec.Raw(msgspec.json.encode({"role": "user", "content": given}))]
    return given


class Turn:
    """Keeps one answer, before its client has seen its end, and names what it went on from."""

    def __init__(
        self,
        principal: Principal,
        responses: Responses | None,
        said: list[msgspec.Raw],
        before: Conversation | None,
        previous: str | None,
    ) -> None:
        self._principal = principal
        self._responses = responses
        self._said = said
        self._before = before
        self._previous = previous

    async def whole(self, body: bytes) -> bytes:
        """A whole answer, as its client gets it."""
        told = self._named(body)
        await self._keep(told)
        return told

    async def chunks(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """A stream, as its client gets it: byte for byte, but for what it went on from."""
        splitter = Splitter()
        async with aclosing(chunks):
            async for chunk in chunks:
                events = splitter.feed(chunk, whole=True)
                told = [await self._event(event) for event in events]
                if self._previous is None:
                    yield chunk
                elif told:
                    yield b"".join(told)

    async def _event(self, event: bytes) -> bytes:
        if b'"response.' not in event or (data := data_of(event.rstrip(b"\r\n"))) is None:
            return event
        try:
            members = _object.decode(data)
            kind = msgspec.json.decode(members.get("type", msgspec.Raw(b'""')))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        if "response" not in members:
            return event
        told = self._named(bytes(members["response"]))
        if kind in _ENDS:
            await self._keep(told)
        if self._previous is None:
            return event
        members["response"] = msgspec.Raw(told)
        named = b"event: " + str(kind).encode() + b"\n"
        return named + b"data: " + msgspec.json.encode(members) + b"\n\n"

    def _named(self, response: bytes) -> bytes:
        """A response with `previous_response_id` as its client gave it."""
        if self._previous is None:
            return response
        try:
            members = _object.decode(response)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return response
        members[PREVIOUS] = msgspec.Raw(msgspec.json.encode(self._previous))
        return msgspec.json.encode(members)

    async def _keep(self, response: bytes) -> None:
        """Where that fails its client has its answer all the same: it is paid for."""
        if self._responses is None:
            return
        try:
            known = _response.decode(response)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if known.status not in _KEPT:
            return
        try:
            await self._responses.keep(
                self._principal,
                known.id,
                items=self._said,
                response=response,
                after=self._before,
            )
        except StationmasterError as error:
            log.error("A response could not be kept.", code=error.error_code)
