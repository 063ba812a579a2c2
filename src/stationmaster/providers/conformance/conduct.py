"""What a provider must do in whatever format it speaks."""

import asyncio
import json
from typing import cast, get_args

from stationmaster.providers.base import Listing, Operation
from stationmaster.providers.conformance.messages import assembled, events_of
from stationmaster.providers.conformance.openai import chunks_of, completed
from stationmaster.providers.conformance.subject import ENDLESS, Subject, whole

FORBIDDEN_HEADERS = frozenset(
    {"connection", "content-encoding", "content-length", "set-cookie", "transfer-encoding"}
)


def words_of(operation: Operation, body: bytes, *, stream: bool) -> str:
    """The text of an answer, in either format."""
    if operation == "messages":
        message = assembled(events_of(body)) if stream else json.loads(body)
        return str(message["content"][0]["text"])
    answer = completed(chunks_of(body)) if stream else json.loads(body)
    return str(answer["choices"][0]["message"]["content"])


async def says_what_it_is(subject: Subject) -> None:
    """A name, and formats that there are."""
    assert subject.provider.name
    assert subject.provider.operations
    assert subject.provider.operations <= set(get_args(Operation))


async def passes_clean_headers(subject: Subject) -> None:
    """No header of the connection to the upstream, and no cookie, comes through."""
    for stream in (False, True):
        reply = await subject.provider.send(subject.request(stream=stream))
        await whole(reply)
        names = [name for name, _ in reply.headers]
        assert not FORBIDDEN_HEADERS & set(names)
        assert all(name == name.lower() for name in names)
        assert names.count("content-type") == 1


async def closes_the_upstream_midway(subject: Subject) -> None:
    """A reply that is given up closes its upstream call, once, and harms no other."""
    reply = await subject.provider.send(subject.request(ENDLESS, stream=True))
    chunks = reply.chunks()
    await anext(chunks)
    await reply.aclose()
    await reply.aclose()
    await chunks.aclose()
    await subject.upstream_closed()
    await _answers(subject, "lantern", stream=False)


async def closes_the_upstream_when_cancelled(subject: Subject) -> None:
    """A reader that is cancelled in mid-stream closes the upstream call."""
    begun = asyncio.Event()

    async def read() -> None:
        reply = await subject.provider.send(subject.request(ENDLESS, stream=True))
        try:
            async for _ in reply.chunks():
                begun.set()
        finally:
            await reply.aclose()

    reading = asyncio.ensure_future(read())
    await begun.wait()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await subject.upstream_closed()
    await _answers(subject, "lantern", stream=True)


async def keeps_calls_apart(subject: Subject) -> None:
    """Many calls at once, some of them given up: each gets its own answer."""

    async def one(number: int) -> None:
        stream = number % 2 == 0
        if number % 5 == 4:
            reply = await subject.provider.send(subject.request(stream=stream))
            await reply.aclose()
        else:
            await _answers(subject, f"word{number}x", stream=stream)

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(one(number))


async def can_be_checked(subject: Subject) -> None:
    """`check` is silent while it can serve."""
    await subject.provider.check()


async def lists_models(subject: Subject) -> None:
    """The model that answers is among them, the unknown one is not."""
    listed = await cast("Listing", subject.provider).models()
    assert subject.model in listed
    assert subject.unknown_model not in listed


async def _answers(subject: Subject, word: str, *, stream: bool) -> None:
    body = await subject.asked(subject.request(word, stream=stream))
    assert word in words_of(subject.streaming, body, stream=stream)
