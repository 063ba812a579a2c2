"""Large answers over a real socket, compressed for clients that ask."""

import gzip
import json
from typing import Any

import httpx

from tests.http.conftest import House, Open
from tests.support.wire_upstream import WireUpstream, fixed, text

ASKS = {"accept-encoding": "gzip"}
PLAIN = {"accept-encoding": "identity"}
BODY: Any = {
    "model": "haiku",
    "max_tokens": 2000,
    "messages": [{"role": "user", "content": "Say pear."}],
}


async def raw(house: House, method: str, path: str, **members: Any) -> tuple[httpx.Response, bytes]:
    async with house.client.stream(method, path, **members) as answer:
        return answer, b"".join([piece async for piece in answer.aiter_raw()])


async def test_the_same_answer_with_and_without(house: House) -> None:
    answer, squeezed = await raw(house, "GET", "/openapi.json", headers=ASKS)
    plain, body = await raw(house, "GET", "/openapi.json", headers=PLAIN)
    assert answer.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(squeezed) == body
    assert len(squeezed) * 4 < len(body)
    for each in (answer, plain):
        assert "Accept-Encoding" in each.headers["vary"]
        assert each.headers["x-content-type-options"] == "nosniff"


async def test_head_tells_what_get_would(house: House) -> None:
    got, _ = await raw(house, "GET", "/v1/models", headers=ASKS)
    head, nothing = await raw(house, "HEAD", "/v1/models", headers=ASKS)
    assert nothing == b""
    for name in ("content-type", "content-encoding", "content-length", "vary"):
        assert head.headers.get(name) == got.headers.get(name), name


async def test_a_models_answer_is_compressed_and_its_stream_is_not(open_house: Open) -> None:
    async with WireUpstream(fixed(text("pear " * 400))) as upstream:
        given = {
            "PROVIDER": "anthropic",
            "ANTHROPIC_API_KEY": "sk-upstream-0123456789",
            "ANTHROPIC_BASE_URL": upstream.url,
        }
        async with open_house(**given) as house:
            answer, squeezed = await raw(house, "POST", "/v1/messages", json=BODY, headers=ASKS)
            plain, whole = await raw(house, "POST", "/v1/messages", json=BODY, headers=PLAIN)
            assert answer.headers["content-encoding"] == "gzip"
            same = [json.loads(each) | {"id": ""} for each in (gzip.decompress(squeezed), whole)]
            assert same[0] == same[1]
            assert "content-encoding" not in plain.headers
            asked = {**BODY, "stream": True}
            stream, events = await raw(house, "POST", "/v1/messages", json=asked, headers=ASKS)
            assert "content-encoding" not in stream.headers
            assert b"event: message_stop" in events


async def test_an_answer_that_holds_a_secret_is_neither_compressed_nor_stored(
    house: House,
) -> None:
    many = [f"10.0.{number}.0/24" for number in range(100)]
    body = {"name": "long", "permissions": ["read:tasks"], "addresses": many}
    answer, shown = await raw(house, "POST", "/api/admin/keys", json=body, headers=ASKS)
    assert answer.status_code == 201, shown
    assert len(shown) >= 1000
    assert "content-encoding" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    listed, _ = await raw(house, "GET", "/api/admin/keys", headers=ASKS)
    assert listed.headers["content-encoding"] == "gzip"
