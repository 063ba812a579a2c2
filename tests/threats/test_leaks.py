"""What must not come out: secrets by the API, prompts and names by the metrics."""

from typing import Any

import pytest

from tests.http.conftest import ADMIN, SECRET, USER, House, Open
from tests.http.test_authorization_matrix import CALL, ROWS, made_here
from tests.threats.asking import Ids

ENCRYPTION = "an-encryption-key-for-tests-0123456789"
PROVIDER = "sk-ant-providers-key-for-tests"
CANARY = "canary7f3a91"


async def test_what_was_secret_once_is_never_shown_again(open_house: Open) -> None:
    """Keys, passwords and settings are written, and read by nobody: not even by an admin."""
    async with open_house(
        RATE_LIMIT_ENABLED="false", ENCRYPTION_KEYS=ENCRYPTION, ANTHROPIC_API_KEY=PROVIDER
    ) as house:
        ids = await made_here(house)
        secrets = {ADMIN, USER, SECRET, ENCRYPTION, PROVIDER, "a-long-password-of-a-user"}
        for path, body in (
            ("/api/admin/keys", {"name": "another"}),
            (f"/api/admin/keys/{ids['key_id']}/rotate", {}),
            ("/api/admin/organizations", {"name": "Three"}),
            ("/api/v1/clients", {"name": "Four", "email": "four@example.org"}),
        ):
            answer = await house.client.post(path, json=body)
            secrets |= _secrets(answer.json())
        assert len(secrets) >= 8
        shown = []
        version = {"anthropic-version": "2023-06-01"}
        for name in (name for name in ROWS if name.startswith("GET ")):
            where = name.removeprefix("GET ").format_map(Ids(ids)) + ROWS[name].query
            async with house.client.stream("GET", where, headers=version) as answer:
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    continue  # it may have no end; the same events are listed
                told = (await answer.aread()).decode("utf-8", "replace")
            shown += [(name, secret) for secret in secrets if secret in told]
        assert shown == []


def _secrets(told: Any) -> set[str]:
    if isinstance(told, dict):
        return set().union(*map(_secrets, told.values()))
    if isinstance(told, list):
        return set().union(*map(_secrets, told))
    return {told} if isinstance(told, str) and told.startswith(("sm_live_", "sm_")) else set()


async def test_metrics_tell_of_no_prompt_no_key_and_nobody(house: House) -> None:
    body = {"name": CANARY, "permissions": ["read:*", "write:*"]}
    key = (await house.client.post("/api/admin/keys", json=body)).json()
    call = {**CALL, "messages": [{"role": "user", "content": CANARY}], "system": CANARY}
    headers = house.as_key(key["key"])
    tags = {"x-stationmaster-tags": CANARY}
    assert (
        await house.client.post("/v1/messages", json=call, headers={**headers, **tags})
    ).status_code == 200
    task = await house.perform(CANARY, metadata={"a": CANARY})
    await house.client.get(f"/v1/{CANARY}", headers={"user-agent": CANARY})
    await house.client.get("/v1/tasks", headers=house.as_key(CANARY * 3))
    told = (await house.client.get("/metrics")).text
    assert "http_requests_total" in told
    for word in (CANARY, key["id"], key["key"], task["task_id"], task["session_id"], "org_"):
        assert word not in told


@pytest.mark.parametrize("path", ["/health", "/ready", "/live", "/"])
async def test_the_anonymous_learn_no_address_and_no_path(open_house: Open, path: str) -> None:
    async with open_house() as house:
        told = (await house.client.get(path, headers=house.as_key(None))).text
        for word in (
            str(house.settings.data_dir),
            "sqlite:",
            "http://",
            "127.0.0.1",
            "hostname",
            ".db",
        ):
            assert word not in told, word
