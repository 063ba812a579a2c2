"""The revision that brings sessions takes tasks along as they are, both ways."""

from typing import Any

from tests.support.schema import insert, move, rows

OWNED = {"organization_id": "org_1", "project_id": "proj_1", "key_id": "key_1"}


def _session(name: str) -> dict[str, Any]:
    places = {"workspace": "w", "scope": "w", "directory": "w"}
    return {"id": f"sesn_{name}", **OWNED, **places, "created_at": 5}


def _run(name: str, state: str, started: int | None, ended: int | None) -> dict[str, Any]:
    return {
        "id": f"run_{name}",
        "session_id": f"sesn_{name}",
        **OWNED,
        "options": "{}",
        "state": state,
        "epoch": 1,
        "queued_at": 5,
        "started_at": started,
        "ended_at": ended,
        "cancel_requested": False,
        "turns": 1,
        "usage": '{"input_tokens":1}',
        "cost": 7,
        "model_calls": 1,
        "artifacts": "{}",
    }


async def test_tasks_become_sessions_in_the_state_that_they_are_in(database_url: str) -> None:
    await move(database_url, "0002")
    runs = [
        _run("a", "completed", 6, 9),
        _run("b", "running", 6, None),
        _run("c", "queued", None, None),
    ]
    await insert(database_url, "sessions", *(_session(name) for name in "abc"))
    await insert(database_url, "runs", *runs)
    await move(database_url, "0003")
    columns = "status, stop_reason, run_id, active_ms, running_since, updated_at"
    assert await rows(database_url, f"SELECT {columns} FROM sessions ORDER BY id") == [
        ("idle", '{"type":"end_turn"}', None, 3, None, 9),
        ("running", None, "run_b", 0, 6, 6),
        ("idle", None, "run_c", 0, None, 5),
    ]
    kinds = await rows(database_url, "SELECT DISTINCT kind, on_crash, queue, cost FROM sessions")
    assert kinds == [("task", "interrupt", "[]", 7)]
    assert await rows(database_url, "SELECT count(*) FROM admission") == [(1,)]
    await move(database_url, "0002", down=True)
    kept = await rows(database_url, "SELECT * FROM sessions ORDER BY id")
    assert kept == [tuple(_session(name).values()) for name in "abc"]
    await move(database_url, "head")
