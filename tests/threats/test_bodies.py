"""Bodies that mean harm, on every route that takes one: refused by name, never an error of ours."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from stationmaster.http.routes.app import openapi_document
from tests.http.conftest import House, Open
from tests.http.test_authorization_matrix import ROWS, made_here
from tests.support.databases import Databases
from tests.threats.asking import Ids

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 0.1, 1e308, 10**30, 2**63, -(2**63) - 1, "", " ", "\0", "a\0b", "\ud800",
    "x" * 70_000, "../../etc/passwd", "-rf", "--help", "' OR 1=1 --", "%_%", "\x1b[2J\r\nSet: x",
    "\u202egpj.exe", "２", "1e9999", "9" * 400, [], [None], [[[]]], {}, {"a": {"b": []}},
    ["\0"], {"\0": "\0"}, {"$gt": ""}, "2026-13-45T99:99:99Z", "http://169.254.169.254/", "NaN",
)  # fmt: skip
EACH = 3  # values for each field; over the fields each is used many times
RAW = (
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": ' + b"9" * 5_000 + b"}",
    b'{"a": "\\ud800"}',
    b'{"name": "a", "name": "b"}',
    b"\x00",
    b"null",
    b"[1]",
    b'"text"',
)
JSON_TYPE = {"content-type": "application/json", "anthropic-version": "2023-06-01"}


@pytest.fixture
async def house(open_house: Open, databases: Databases) -> AsyncIterator[House]:
    """On each kind of database: what one takes, the other may not be able to keep."""
    async with open_house(RATE_LIMIT_ENABLED="false", DATABASE_URL=databases.url()) as opened:
        yield opened


@pytest.fixture
async def plain_house(open_house: Open) -> AsyncIterator[House]:
    """On one: what is refused before anything is kept."""
    async with open_house(RATE_LIMIT_ENABLED="false") as opened:
        yield opened


def fields() -> Iterator[tuple[str, str]]:
    """Every field of every body: what the matrix says, and what the document says."""
    document = openapi_document()
    for name, row in ROWS.items():
        if not isinstance(row.body, dict):
            continue
        method, _, path = name.partition(" ")
        declared = document["paths"].get(path, {}).get(method.lower(), {})
        content = declared.get("requestBody", {}).get("content", {}).get("application/json", {})
        shape = content.get("schema", {})
        if "$ref" in shape:
            shape = document["components"]["schemas"].get(shape["$ref"].rpartition("/")[2], {})
        yield from ((name, each) for each in sorted({*row.body, *shape.get("properties", {})}))


async def send(house: House, ids: dict[str, str], name: str, content: bytes) -> httpx.Response:
    """The answer; of one that is right the head alone: it may be a stream without an end."""
    method, _, path = name.partition(" ")
    where = path.format_map(Ids(ids)) + ROWS[name].query
    async with house.client.stream(method, where, content=content, headers=JSON_TYPE) as answer:
        if answer.status_code >= 400:
            await answer.aread()
    return answer


def fault(answer: httpx.Response) -> str | None:
    """What is wrong with an answer to a wrong request; None where nothing is."""
    if answer.status_code < 400:
        return None  # it is right all the same
    if answer.status_code >= 500 and answer.status_code != 503:
        return "an error of ours"
    problem = answer.json()
    said = problem.get("detail") or problem.get("error", {}).get("message")
    kind = problem.get("code") or problem.get("error", {}).get("type")
    return None if said and kind else "no typed refusal"


@pytest.mark.timeout(300)
async def test_no_value_of_a_field_is_an_error_of_ours(house: House) -> None:
    ids, wrong = await made_here(house), []
    values = itertools.cycle(VALUES)
    if "postgresql" in house.settings.database_url.get_secret_value():
        next(values)  # so that both databases see different pairs
    for name, field in fields():
        for value in itertools.islice(values, EACH):
            content = json.dumps({**ROWS[name].body, field: value}).encode()
            answer = await send(house, ids, name, content)
            if why := fault(answer):
                wrong.append((why, name, field, repr(value)[:60], answer.text[:200]))
    assert wrong == []


async def test_no_bytes_are_an_error_of_ours(plain_house: House) -> None:
    ids, wrong = await made_here(plain_house), []
    for name, row in ROWS.items():
        if not isinstance(row.body, dict):
            continue
        for content in RAW:
            answer = await send(plain_house, ids, name, content)
            why = fault(answer) or ("let in" if answer.status_code < 300 else None)
            if why:
                wrong.append((why, name, content[:40], answer.status_code))
    assert wrong == []


PASSED_ON = {"POST /v1/messages", "POST /v1/messages/count_tokens"}
"""They go to the provider as they are: see test_requests.py."""
ELSEWHERE = {
    "command": "touch /tmp/x",
    "args": ["-c", "id"],
    "env": {"LD_PRELOAD": "/tmp/x.so"},
    "mcpServers": {"evil": {"command": "touch", "args": ["/tmp/x"]}},
    "hooks": {"PreToolUse": [{"command": "id"}]},
    "api_base": "http://169.254.169.254",
    "base_url": "http://169.254.169.254",
    "api_key": "sk-mine",
    "organization_id": "org_other",
    "is_admin": True,
}


async def test_no_route_takes_a_field_that_it_does_not_know(plain_house: House) -> None:
    """So no field can become a program, an address or a right."""
    ids, taken = await made_here(plain_house), []
    for name, row in ROWS.items():
        if not isinstance(row.body, dict) or name in PASSED_ON:
            continue
        for field in ELSEWHERE.keys() - row.body.keys():
            content = json.dumps({**row.body, field: ELSEWHERE[field]}).encode()
            answer = await send(plain_house, ids, name, content)
            if answer.status_code not in {400, 401, 403, 404, 409, 422}:
                taken.append((name, field, answer.status_code))
    assert taken == []
