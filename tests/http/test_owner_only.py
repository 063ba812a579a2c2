"""A provider that is its owner's alone, and a configuration that asks for one without a login."""

import json
from pathlib import Path
from typing import Any

import pytest

from stationmaster.kernel.errors import Invalid
from tests.http.conftest import USER, House, Open

MESSAGES: dict[str, Any] = {
    "model": "haiku",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello."}],
}


async def test_the_owner_alone_is_answered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {**MESSAGES, "temperature": 0}  # which is kept for the project: not for others, though
    provider = house.application.provider
    monkeypatch.setattr(type(provider), "owner_only", True, raising=False)
    assert (await house.client.post("/v1/messages", json=asked)).status_code == 200
    rights = {"name": "narrow", "permissions": ["read:*", "write:*", "admin:*"]}
    narrow = (await house.client.post("/api/admin/keys", json=rights)).json()["key"]
    tenant = await house.client.post("/api/admin/organizations", json={"name": "Two"})
    for key in (USER, narrow, tenant.json()["key"]):
        for path in ("/v1/messages", "/v1/chat/completions"):
            answer = await house.client.post(path, json=asked, headers=house.as_key(key))
            assert answer.status_code == 403, answer.text
            assert "owner" in answer.json()["error"]["message"]
    assert (await house.client.get("/v1/usage")).json()["total_calls"] == 1


async def test_the_kind_needs_a_login(open_house: Open, tmp_path: Path) -> None:
    models = {"providers": {"mine": {"type": "claude_code"}}}
    (tmp_path / "config.yaml").write_text(json.dumps(models))
    with pytest.raises(Invalid, match="CLAUDE_CODE_CREDENTIALS_SECRET"):
        async with open_house():
            pass
