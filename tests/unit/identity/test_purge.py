"""What has had its time is deleted, and nothing that still counts."""

from typing import Any

import pytest
from sqlalchemy import Table, insert, select

from stationmaster.access import purge as module
from stationmaster.access.clients import SOURCE
from stationmaster.access.purge import DAY_MS
from stationmaster.access.tables import (
    api_keys,
    invites,
    oidc_attempts,
    refresh_tokens,
    run_tokens,
    sign_in_failures,
    sign_ins,
    socket_tickets,
)
from stationmaster.jobs.tables import instances
from tests.unit.identity.conftest import Station

NOW = 1_000 * DAY_MS
HOUR_MS = DAY_MS // 24
LIVING = "ins_living"
NOBODYS = {"instance_id": LIVING, "run_id": None}


def key(name: str, revoked_at: int | None, source: str = SOURCE) -> dict[str, Any]:
    return {
        "id": name,
        "organization_id": "org_a",
        "project_id": "proj_a",
        "name": name,
        "hash": name,
        "hint": "",
        "source": source,
        "scopes": [],
        "created_at": 1,
        "revoked_at": revoked_at,
    }


def invite(name: str, expires_at: int, **values: Any) -> dict[str, Any]:
    return {
        "id": name,
        "organization_id": "org_a",
        "email": f"{name}@example.com",
        "role": "member",
        "invited_at": 1,
        "expires_at": expires_at,
        **values,
    }


def sign_in(name: str, expires_at: int) -> dict[str, Any]:
    return {
        "id": name,
        "user_id": "user_1",
        "organization_id": "org_a",
        "project_id": "proj_a",
        "method": "password",
        "created_at": 1,
        "expires_at": expires_at,
    }


def refresh(name: str, sign_in_id: str, expires_at: int) -> dict[str, Any]:
    return {"hash": name, "sign_in_id": sign_in_id, "created_at": 1, "expires_at": expires_at}


def token(name: str, revoked_at: int | None = None, **values: Any) -> dict[str, Any]:
    row = {"id": name, "hash": name, "created_at": 1, "revoked_at": revoked_at, **NOBODYS}
    return {**row, **values}


def ticket(name: str, expires_at: int) -> dict[str, Any]:
    return {"hash": name, "credential": "c", "claims": None, "expires_at": expires_at}


def failure(name: str, failed_at: int) -> dict[str, Any]:
    return {"subject": name, "failures": 9, "failed_at": failed_at, "locked_until": 0}


def attempt(name: str, expires_at: int) -> dict[str, Any]:
    return {"state": name, "browser": "b", "sealed": "s", "expires_at": expires_at}


ROWS: dict[Table, list[dict[str, Any]]] = {
    socket_tickets: [ticket("kept", NOW), ticket("gone", NOW - 1)],
    sign_ins: [sign_in("kept", NOW), sign_in("gone", NOW - 1)],
    refresh_tokens: [
        refresh("kept", "kept", NOW),
        refresh("gone", "kept", NOW - 1),
        refresh("gone too", "gone", NOW),  # its sign-in takes it along
    ],
    sign_in_failures: [failure("kept", NOW - HOUR_MS), failure("gone", NOW - HOUR_MS - 1)],
    oidc_attempts: [attempt("kept", NOW), attempt("gone", NOW - 1)],
    run_tokens: [
        token("kept", NOW - DAY_MS),
        token("kept free"),
        token("gone", NOW - DAY_MS - 1),
        # Of a server that died, or of a version that did not write down whose it is.
        token("gone orphan", instance_id="ins_dead"),
        token("gone unknown", instance_id=None),
        token("kept young", instance_id="ins_dead", created_at=NOW - DAY_MS),
        token("kept at work", instance_id="ins_dead", run_id="run_1"),
    ],
    invites: [
        invite("kept", NOW - 90 * DAY_MS),
        invite("kept accepted", 1, accepted_at=NOW),
        invite("gone", NOW - 90 * DAY_MS - 1),
        invite("gone deleted", NOW, deleted_at=1),
        invite("gone accepted", NOW, accepted_at=1),
    ],
    api_keys: [
        key("kept", NOW - 90 * DAY_MS),
        key("kept in use", None),
        key("kept on record", 1, "created"),
        key("gone", NOW - 90 * DAY_MS - 1),
    ],
}


async def names(station: Station, table: Table) -> set[str]:
    column = next(iter(table.primary_key.columns))
    return await station.database.read(lambda tx: set(tx.execute(select(column)).scalars()))


@pytest.mark.parametrize("batch", [1, 1000])
async def test_what_is_over_goes(
    station: Station, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", batch)
    station.clock.advance((NOW - station.clock.now()) / 1000)
    living = {"id": LIVING, "started_at": 1, "lease_until": 1}  # late, and not yet given up
    await station.database.write(lambda tx: tx.execute(insert(instances), living))
    for table, rows in ROWS.items():
        for row in rows:
            await station.database.write(
                lambda tx, table=table, row=row: tx.execute(insert(table), row)  # type: ignore[misc]
            )
    purge = station.purge()
    assert await purge.run() > 0
    for table, rows in ROWS.items():
        column = next(iter(table.primary_key.columns)).name
        kept = {row[column] for row in rows if row[column].startswith("kept")}
        assert await names(station, table) == kept, table.name
    assert await purge.run() == 0
