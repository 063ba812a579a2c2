"""The answer to a chat that asks an agent.

What the agent does besides speaking stays its own; the session that it did it in tells of it. Its
model calls are metered as any run's, and nothing else is: the answer's usage is theirs.
"""

import time
from contextlib import aclosing
from dataclasses import dataclass

from starlette.datastructures import Headers

from stationmaster.gateway.translation.reply import (
    Begun,
    Counted,
    Event,
    Finished,
    Stopped,
    TextPiece,
    Tokens,
    drafted,
)
from stationmaster.gateway.translation.translation import conversation, reply_to
from stationmaster.gateway.translation.translator import ClientFormat
from stationmaster.http.limiting import admit
from stationmaster.http.services import Services
from stationmaster.http.tags import tags_of
from stationmaster.http.wire.agent_call import AgentCall, Outcome
from stationmaster.http.wire.agent_prompt import left_out, prompt_of
from stationmaster.http.wire.exchange import (
    EVENT_STREAM,
    Exchange,
    RawHeaders,
    Scope,
    request_id_of,
)
from stationmaster.http.wire.face import Face
from stationmaster.http.wire.plain_chat import Prepared, plain_members, within
from stationmaster.kernel.errors import StationmasterError
from stationmaster.kernel.money import to_dollars
from stationmaster.kernel.principal import Principal

PROVIDER = b"agents"
_RETRYING = frozenset({b"retry-after", b"x-should-retry"})
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks which agent what. `model` is the agent as the client names it."""

    face: Face
    principal: Principal
    request: Prepared
    model: str
    agent_id: str


async def answer(services: Services, asked: Asked, exchange: Exchange, scope: Scope) -> None:
    """Run a turn of the agent, and tell its words.

    Raises what is wrong with the request before its turn begins. What fails after that is
    answered too, and says that it must not be sent again by itself: the agent has begun to work.
    """
    face, principal, request = asked.face, asked.principal, asked.request
    talk, ignored = conversation(face.operation, request.raw)
    content = prompt_of(talk)
    await admit(services.limiter, scope, principal, "tasks")
    tags = tags_of(Headers(scope=scope))
    call = await AgentCall.begin(services, principal, asked.agent_id, content, tags)
    writer = reply_to(
        face.operation,
        talk,
        model=asked.model,
        call_id=call.session_id,
        created=int(time.time()),
        size=len(request.raw),
    )
    headers = [
        (b"x-stationmaster-session", call.session_id.encode()),
        (b"x-stationmaster-provider", PROVIDER),
    ]
    if ignored := (*ignored, *left_out(talk)):
        headers.append((b"x-stationmaster-ignored", ", ".join(ignored).encode()))
    told = _Told(call, writer, asked.model, headers)
    try:
        async with within(request.timeout):
            if talk.stream:
                await told.stream(exchange)
            else:
                await told.whole(face, exchange, principal)
    except StationmasterError as error:
        await _refuse(face, exchange, error, scope)
    finally:
        await call.aclose()


class _Told:
    """One turn, told in a client's format."""

    def __init__(
        self, call: AgentCall, writer: ClientFormat, model: str, headers: RawHeaders
    ) -> None:
        self._call = call
        self._writer = writer
        self._begun = Begun(call.session_id, model)
        self._headers = headers

    async def stream(self, exchange: Exchange) -> None:
        """The head goes out with the first words: what fails before them fails with a status."""
        exchange.keep_alive(lambda: True)
        begun = False
        async with aclosing(self._call.pieces()) as pieces:
            async for piece in pieces:
                if not begun:
                    begun = True
                    await self._begin(exchange)
                await exchange.write(self._writer.write(TextPiece(piece)))
        if not begun:
            await self._begin(exchange)
        await exchange.end(b"".join(map(self._writer.write, self._ending())))

    async def _begin(self, exchange: Exchange) -> None:
        await exchange.begin([EVENT_STREAM, *self._headers])
        await exchange.write(self._writer.write(self._begun))

    async def whole(self, face: Face, exchange: Exchange, principal: Principal) -> None:
        """All at once, with what it cost."""
        async with aclosing(self._call.pieces()) as pieces:
            words = [TextPiece(piece) async for piece in pieces]
        body = self._writer.whole(drafted([self._begun, *words, *self._ending()]))
        outcome = self._outcome
        if face.operation == "chat":
            body = plain_members(body, outcome.cost, principal.owner.project_id)
        cost = (b"x-stationmaster-cost-usd", f"{to_dollars(outcome.cost):f}".encode())
        await exchange.whole(200, [_JSON, *self._headers, cost], body)

    def _ending(self) -> list[Event]:
        return [Stopped("end"), Counted(_tokens(self._outcome)), Finished()]

    @property
    def _outcome(self) -> Outcome:
        assert self._call.outcome is not None
        return self._call.outcome


async def _refuse(face: Face, exchange: Exchange, error: Exception, scope: Scope) -> None:
    request_id = request_id_of(scope)
    if exchange.started:
        await exchange.end(face.frame(error, request_id))
        return
    status, headers, body = face.refuse(error, request_id)
    kept = [header for header in headers if header[0] not in _RETRYING]
    await exchange.whole(status, [*kept, (b"x-should-retry", b"false")], body)


def _tokens(outcome: Outcome) -> Tokens:
    used = outcome.usage
    return Tokens(
        input=used.get("input_tokens", 0),
        output=used.get("output_tokens", 0),
        cache_write=used.get("cache_write_tokens", 0),
        cache_read=used.get("cache_read_tokens", 0),
    )
