"""The revision of session resources takes sessions along, both ways."""

from typing import Any

from tests.support.schema import insert, move, rows

AGENT = r'{"id":"agent_1","model":{"id":"m-1","speed":"standard"},"system":"\u0000\ud800"}'


def _session(name: str, **fields: Any) -> dict[str, Any]:
    owned = {"organization_id": "org_1", "project_id": "proj_1", "key_id": "key_1"}
    places = {"workspace": "w", "scope": "w", "directory": "w"}
    return {"id": f"sesn_{name}", **owned, **places, "created_at": 5, **fields}


async def test_sessions_have_the_model_of_their_agent(database_url: str) -> None:
    await move(database_url, "0007")
    sessions = [_session("a", agent=AGENT, kind="session"), _session("b")]
    await insert(database_url, "sessions", *sessions)
    before = await rows(database_url, "SELECT * FROM sessions ORDER BY id")
    await move(database_url, "0008")
    found = await rows(database_url, "SELECT id, model, resources FROM sessions ORDER BY id")
    assert found == [("sesn_a", "m-1", "[]"), ("sesn_b", None, "[]")]
    await move(database_url, "0007", down=True)
    assert await rows(database_url, "SELECT * FROM sessions ORDER BY id") == before
