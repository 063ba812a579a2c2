"""What models were asked and answered, kept where a project switched that on: on a real server."""

import asyncio
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from stationmaster.kernel.errors import Upstream
from tests.http.conftest import ADMIN, USER, House, Open

POLICY = "/api/admin/projects/proj_default/call-policy"
SECRET = "sk-ant-api03-abcdefghijklmnopqrst"
WORDS = f"Zaffre: write to bob@example.org with {SECRET}."
REDACTED = "Zaffre: write to [email] with [redacted]."
MESSAGES: dict[str, Any] = {
    "model": "haiku",
    "max_tokens": 400,
    "messages": [{"role": "user", "content": WORDS}],
}


async def switch(house: House, **policy: Any) -> Any:
    answer = await house.client.put(POLICY, json={"enabled": True, **policy})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def kept(house: House, count: int, **query: Any) -> list[Any]:
    """The newest calls, once there are so many."""
    async with asyncio.timeout(20):
        while True:
            answer = await house.client.get("/v1/calls", params=query)
            found: list[Any] = answer.raise_for_status().json()["calls"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


async def read(house: House, call_id: str) -> Any:
    return (await house.client.get(f"/v1/calls/{call_id}")).raise_for_status().json()


async def test_nothing_is_kept_by_itself(house: House) -> None:
    assert (await house.client.get(POLICY)).json() == {
        "project_id": "proj_default",
        "enabled": False,
        "requests": True,
        "answers": True,
        "agent_calls": False,
        "retention_days": 30,
        "rules": ["card_number", "email", "iban"],
        "patterns": [],
    }
    (await house.client.post("/v1/messages", json=MESSAGES)).raise_for_status()
    await switch(house)
    later = await house.client.post("/v1/messages", json=MESSAGES)
    found = await kept(house, 1)
    assert [call["id"] for call in found] == [later.headers["x-stationmaster-call"]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
async def test_what_is_kept_of_each_format(house: House, path: str, stream: bool) -> None:
    await switch(house)
    body = {**MESSAGES, "stream": stream}
    if path == "/v1/responses":
        del body["max_tokens"]
        body["input"] = body.pop("messages")[0]["content"]
    answer = await house.client.post(path, json=body)
    assert answer.status_code == 200
    (call,) = await kept(house, 1)
    assert call["outcome"] == "complete"
    assert call["model"].startswith("claude-haiku-")
    found = await read(house, call["id"])
    assert found["left_out"] == {}
    told = json.dumps(found)
    assert REDACTED in told
    assert "bob@example.org" not in told
    assert SECRET not in told
    assert text_of(path, found["answer"])
    if not stream:
        assert text_of(path, found["answer"]) == text_of(path, answer.json()).replace(
            WORDS, REDACTED
        )
    lines = (await house.client.get("/v1/usage/export?format=json")).json()
    assert [line["call_id"] for line in lines] == [call["id"]]


def text_of(path: str, answer: Any) -> str:
    if path == "/v1/messages":
        return "".join(block["text"] for block in answer["content"])
    if path == "/v1/chat/completions":
        return str(answer["choices"][0]["message"]["content"])
    return "".join(part["text"] for item in answer["output"] for part in item["content"])


async def test_a_cached_answer_is_kept_like_another(house: House) -> None:
    await switch(house)
    asked = {**MESSAGES, "temperature": 0}
    for _ in range(2):
        (await house.client.post("/v1/messages", json=asked)).raise_for_status()
    for _ in range(2):
        (await house.client.post("/v1/messages", json={**asked, "stream": True})).raise_for_status()
    found = await kept(house, 4)
    assert [call["outcome"] for call in found] == ["cached", "complete", "cached", "complete"]
    answers = [(await read(house, call["id"]))["answer"]["content"] for call in found]
    assert answers[0] == answers[1]
    assert answers[2] == answers[3]


async def test_a_batch_and_a_prompt_of_many_are_kept(house: House) -> None:
    await switch(house)
    request = {"custom_id": "one", "params": MESSAGES}
    made = await house.client.post("/v1/messages/batches", json={"requests": [request]})
    assert made.status_code == 200
    (await house.client.post("/v1/batch", json={"prompts": [{"prompt": WORDS}]})).raise_for_status()
    for call in await kept(house, 2):
        assert REDACTED in json.dumps((await read(house, call["id"]))["request"])


async def test_the_projects_own_rules(house: House) -> None:
    own = {"name": "color", "pattern": "(?i)zaffre"}
    told = await switch(house, rules=[], patterns=[own], retention_days=3, answers=False)
    assert told["patterns"] == [own]
    (await house.client.post("/v1/messages", json=MESSAGES)).raise_for_status()
    (call,) = await kept(house, 1)
    found = await read(house, call["id"])
    said = found["request"]["messages"][0]["content"]
    assert said == "[color]: write to bob@example.org with [redacted]."
    assert found["answer"] is None
    assert found["left_out"] == {"answer": "not_wanted"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"patterns": [{"name": "a", "pattern": "(a"}]}, "patterns"),
        ({"patterns": [{"name": "a", "pattern": r"(a)\1"}]}, "patterns"),
        ({"patterns": [{"name": "a b", "pattern": "a"}]}, "patterns"),
        ({"patterns": [{"name": "a", "pattern": "a*"}]}, "patterns"),
        ({"rules": ["everything"]}, "rules"),
        ({"retention_days": 0}, "retention_days"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_a_policy_that_cannot_be_followed_is_refused(
    house: House, change: dict[str, Any], param: str
) -> None:
    answer = await house.client.put(POLICY, json={"enabled": True, **change})
    assert answer.status_code in {400, 422}
    assert param in answer.text
    assert (await house.client.get(POLICY)).json()["enabled"] is False


async def test_who_may_read_and_what_goes_on_record(house: House) -> None:
    await switch(house)
    (await house.client.post("/v1/messages", json=MESSAGES)).raise_for_status()
    (call,) = await kept(house, 1)
    user = house.as_key(USER)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/x"), ("DELETE", "/x")):
        answer = await house.client.request(method, f"/v1/calls{path}", headers=user)
        assert answer.status_code == 403
    await read(house, call["id"])
    gone = await house.client.delete(f"/v1/calls/{call['id']}")
    assert gone.json() == {"deleted": 1}
    missing = await house.client.get(f"/v1/calls/{call['id']}")
    assert (missing.status_code, missing.json()["code"]) == (404, "call_not_found")
    assert (await house.client.delete("/v1/calls")).json() == {"deleted": 0}
    entries = (await house.client.get("/v1/audit", params={"limit": 100})).json()["entries"]
    told = [(e["action"], e["target"]) for e in entries if e["action"].startswith("call")]
    assert told == [
        ("call.clear", "proj_default"),
        ("call.delete", call["id"]),
        ("call.read", call["id"]),
        ("call_policy.set", "proj_default"),
    ]


async def test_another_tenants_calls_are_not_there(house: House, stranger: dict[str, str]) -> None:
    await switch(house)
    (await house.client.post("/v1/messages", json=MESSAGES)).raise_for_status()
    (call,) = await kept(house, 1)
    for method in ("GET", "DELETE"):
        answer = await house.client.request(method, f"/v1/calls/{call['id']}", headers=stranger)
        assert answer.status_code == 404
    assert (await house.client.get("/v1/calls", headers=stranger)).json()["calls"] == []
    for method, body in (("GET", None), ("PUT", {"enabled": False})):
        answer = await house.client.request(method, POLICY, json=body, headers=stranger)
        assert answer.status_code == 404
    assert (await house.client.get(POLICY)).json()["enabled"] is True


async def test_one_that_failed_is_kept_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await switch(house)

    async def send(request: Any) -> Any:
        raise Upstream("No answer came.")

    monkeypatch.setattr(house.application.provider, "send", send)
    assert (await house.client.post("/v1/messages", json=MESSAGES)).status_code == 502
    (call,) = await kept(house, 1)
    assert call["outcome"] == "error"
    found = await read(house, call["id"])
    assert found["request"]["messages"][0]["content"] == REDACTED
    assert found["answer"] is None


async def test_the_words_are_nowhere_in_the_clear(open_house: Open, tmp_path: Path) -> None:
    """Neither in the database's files nor in the log."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        async with open_house() as house:
            await switch(house, rules=[])
            (await house.client.post("/v1/messages", json=MESSAGES)).raise_for_status()
            (call,) = await kept(house, 1)
            await read(house, call["id"])
    assert "Zaffre" not in said.getvalue()
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert files
    for path in files:
        found = path.read_bytes()
        assert b"Zaffre" not in found, path
        assert ADMIN.encode() not in found


async def test_what_was_kept_survives_a_restart_and_so_does_the_policy(open_house: Open) -> None:
    async with open_house() as house:
        await switch(house)
        (await house.client.post("/v1/messages", json=MESSAGES)).raise_for_status()
    async with open_house() as house:  # written at the stop, if not before
        (before,) = await kept(house, 1)
        (await house.client.post("/v1/messages", json=MESSAGES)).raise_for_status()
        after = await kept(house, 2)
        assert after[1] == before
        metrics = (await house.client.get("/metrics")).text
        assert 'kept_calls_total{result="kept"} 1.0' in metrics
