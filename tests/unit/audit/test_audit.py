"""What is written, and who may read it."""

import asyncio
from typing import Any

import pytest

from stationmaster.audit import Actor, Audit, Chains, Entry, Sought
from stationmaster.kernel import origin
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database

HOME = Owner("org_a", "proj_a")
ADMIN = Principal("key", "key_a", HOME, "key_a", frozenset({"*"}), hint="wxyz")
OTHER = Principal("key", "key_b", Owner("org_b", "proj_b"), "key_b", frozenset({"*"}))


async def put(
    database: Database, audit: Audit, action: str, who: Principal = ADMIN, **fields: Any
) -> None:
    actor = Actor.of(who)
    await database.write(lambda tx: audit.record(tx, actor, action, **fields))


async def every(audit: Audit, who: Principal = ADMIN, **sought: Any) -> list[Entry]:
    return (await audit.list(who, Sought(**sought), limit=100, after=None)).items


async def test_an_entry_says_who_what_where_when_and_how(
    database: Database, audit: Audit, clock: ManualClock
) -> None:
    token = origin.begin(origin.Origin("203.0.113.9", "req_1"))
    try:
        await put(
            database, audit, "key.create", target="key_c", outcome="refused", details={"a": 1}
        )
    finally:
        origin.end(token)
    (entry,) = await every(audit)
    assert (entry.seq, entry.at, entry.organization_id) == (1, clock.now(), "org_a")
    assert (entry.actor_kind, entry.actor_id, entry.actor_hint) == ("key", "key_a", "wxyz")
    assert (entry.address, entry.request_id) == ("203.0.113.9", "req_1")
    assert (entry.action, entry.target, entry.outcome) == ("key.create", "key_c", "refused")
    assert entry.details == {"a": 1}
    assert entry.project_id == "proj_a"


async def test_an_entry_is_there_only_if_what_it_is_about_is(
    database: Database, audit: Audit, chains: Chains
) -> None:
    await put(database, audit, "first.done")
    actor = Actor.of(ADMIN)

    def fails(tx: Any) -> None:
        audit.record(tx, actor, "second.done")
        raise Invalid("no")

    with pytest.raises(Invalid):
        await database.write(fails)
    await put(database, audit, "third.done")
    assert [(entry.seq, entry.action) for entry in await every(audit)] == [
        (2, "third.done"),
        (1, "first.done"),
    ]
    assert all(verdict.whole for verdict in await chains.verify())


async def test_many_at_once_make_one_chain(
    database: Database, audit: Audit, chains: Chains
) -> None:
    await asyncio.gather(*(put(database, audit, f"thing.n{n}") for n in range(25)))
    entries = await every(audit)
    assert [entry.seq for entry in entries] == list(range(25, 0, -1))
    assert {entry.action for entry in entries} == {f"thing.n{n}" for n in range(25)}
    (verdict,) = await chains.verify()
    assert verdict.whole
    assert verdict.entries == 25


async def test_an_organisation_sees_its_own_alone(database: Database, audit: Audit) -> None:
    await put(database, audit, "mine.done")
    await put(database, audit, "theirs.done", OTHER)
    assert [entry.action for entry in await every(audit)] == ["mine.done"]
    assert [entry.action for entry in await every(audit, OTHER)] == ["theirs.done"]
    exported = [entry async for page in await audit.export(OTHER, Sought()) for entry in page]
    assert [entry.action for entry in exported] == ["theirs.done", "audit.export"]


async def test_reading_needs_the_right(audit: Audit) -> None:
    user = Principal("key", "key_u", HOME, "key_u", frozenset({"read:*", "write:*"}))
    with pytest.raises(Denied):
        await every(audit, user)
    with pytest.raises(Denied):
        await audit.export(user, Sought())


async def test_entries_are_sought_by_what_they_say(
    database: Database, audit: Audit, clock: ManualClock
) -> None:
    start = clock.now()
    await put(database, audit, "key.create", target="key_1")
    clock.advance(10)
    await put(database, audit, "key.revoke", target="key_1", outcome="refused")
    await put(database, audit, "keyring.made", target="key_2")

    async def actions(**sought: Any) -> list[str]:
        return [entry.action for entry in await every(audit, **sought)]

    assert await actions(action="key.*") == ["key.revoke", "key.create"]
    assert await actions(action="key.create") == ["key.create"]
    assert await actions(action="%") == []
    assert await actions(target="key_2") == ["keyring.made"]
    assert await actions(outcome="refused") == ["key.revoke"]
    assert await actions(actor="key_zz") == []
    assert await actions(since=start + 1) == ["keyring.made", "key.revoke"]
    assert await actions(until=start + 1) == ["key.create"]
    with pytest.raises(Invalid):
        Sought(outcome="perhaps")


async def test_pages_follow_each_other_without_gap_or_repeat(
    database: Database, audit: Audit
) -> None:
    for n in range(7):
        await put(database, audit, f"thing.n{n}")
    seen, after = [], None
    while True:
        page = await audit.list(ADMIN, Sought(), limit=3, after=after)
        seen += [entry.seq for entry in page.items]
        after = page.next_cursor
        if after is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    for wrong in ("x", "-1", "1.5", "9" * 40, "٣"):
        with pytest.raises(Invalid):
            await audit.list(ADMIN, Sought(), limit=3, after=wrong)


async def test_what_is_too_long_or_no_text_is_kept_storable(
    database: Database, audit: Audit, chains: Chains
) -> None:
    await put(
        database,
        audit,
        "odd.done",
        target="\ud800" + "x" * 500 + "\0",
        details={"name": "a\0b\ud800", "long": "y" * 100},
    )
    await put(database, audit, "odd.done", details={"long": "y" * 10_000})
    long, odd = await every(audit)
    assert odd.target is not None
    assert odd.target.startswith("?xxx")
    assert len(odd.target) == 128
    assert odd.details["name"] == "a\0b?"
    assert set(long.details) == {"omitted_bytes"}
    assert all(verdict.whole for verdict in await chains.verify())
