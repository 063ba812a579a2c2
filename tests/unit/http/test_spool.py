"""Bodies on the disk: bounded, read again, and the same whatever the boundary of their form."""

import hashlib
from collections.abc import Sequence

import pytest

from stationmaster.http.spool import MEMORY, spooled
from stationmaster.http.wire.exchange import Message, Receive, RequestGoneError, Scope
from stationmaster.kernel.errors import TooLarge

FORM = "multipart/form-data; boundary={}"


def scope(**headers: str) -> Scope:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": named}


def arriving(pieces: Sequence[bytes], *, gone: bool = False) -> Receive:
    left = list(pieces)

    async def receive() -> Message:
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or gone}

    return receive


async def read(receive: Receive) -> bytes:
    found = b""
    while True:
        message = await receive()
        found += message["body"]
        if not message["more_body"]:
            return bytes(found)


@pytest.mark.parametrize("size", [0, 1, MEMORY, MEMORY + 1, 3 * MEMORY])
async def test_a_body_is_read_as_often_as_wanted(size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    pieces = [content[at : at + 70_000] for at in range(0, size, 70_000)] or [b""]
    async with spooled(scope(), then := arriving(pieces), limit=size) as body:
        assert await body.whole() == content
        for _ in range(2):
            assert await read(body.receive(then)) == content
        last = body.receive(then)
        await read(last)
        assert (await last())["type"] == "http.disconnect"
        assert (body.size, body.sha256) == (size, hashlib.sha256(content).hexdigest())


async def test_what_is_too_large_is_refused_as_it_comes() -> None:
    with pytest.raises(TooLarge):
        async with spooled(scope(), arriving([b"x" * 6, b"x" * 5]), limit=10):
            pass


async def test_what_says_that_it_is_too_large_is_not_read() -> None:
    with pytest.raises(TooLarge):
        async with spooled(scope(content_length="11"), arriving([]), limit=10):
            pass


async def test_a_client_that_goes_away_is_noticed() -> None:
    with pytest.raises(RequestGoneError):
        async with spooled(scope(), arriving([b"x"], gone=True), limit=10):
            pass


async def digest(boundary: str, pieces: Sequence[bytes]) -> str:
    headers = scope(content_type=FORM.format(boundary))
    async with spooled(headers, arriving(pieces), limit=1000) as body:
        return body.sha256


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
async def test_a_form_is_the_same_whatever_its_boundary_and_its_pieces(size: int) -> None:
    whole = b"--one\r\nname\r\n\r\n-- --o--one\r\nb\r\n--one--\r\n"
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    other = [whole.replace(b"--one", b"--another-one")]
    assert await digest("one", pieces) == await digest("another-one", other)


async def test_another_form_is_another() -> None:
    assert await digest("one", [b"--one\r\na--one--"]) != await digest(
        "one", [b"--one\r\nb--one--"]
    )
    assert await digest("one", [b"a--oneb--onec"]) != await digest("one", [b"a--oneb", b"c"])
