"""Any tampering is found, and retention is none."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update

from stationmaster.audit import Actor, Audit, Chains, Keyring, Sought
from stationmaster.audit.tables import (
    audit_chains,
    audit_checkpoints,
    audit_entries,
    audit_keys,
)
from stationmaster.audit.verification import PRUNED_AT_ONCE
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction
from stationmaster.storage.sealing import Sealer

ADMIN = Principal("key", "key_a", Owner("org_a", "proj_a"), "key_a", frozenset({"*"}))
DAY = 86_400.0

Tamper = Callable[[Transaction], Any]


async def fill(database: Database, audit: Audit, number: int, who: Principal = ADMIN) -> None:
    actor = Actor.of(who)

    def verb(tx: Transaction) -> None:
        for n in range(number):
            audit.record(tx, actor, "thing.done", target=f"thing_{n}", details={"n": n})

    await database.write(verb)


async def faults(chains: Chains) -> list[int]:
    return [fault.seq for verdict in await chains.verify() for fault in verdict.faults]


def of(seq: int) -> Any:
    return (audit_entries.c.organization_id == "org_a") & (audit_entries.c.seq == seq)


# One change each, by somebody who can write the database but does not know its keys.
TAMPERINGS: dict[str, tuple[Tamper, int]] = {
    "deleted": (lambda tx: tx.execute(delete(audit_entries).where(of(4))), 4),
    "first deleted": (lambda tx: tx.execute(delete(audit_entries).where(of(1))), 1),
    "last deleted": (lambda tx: tx.execute(delete(audit_entries).where(of(9))), 9),
    "renumbered": (lambda tx: tx.execute(update(audit_entries).where(of(9)).values(seq=12)), 9),
    "given to others": (
        lambda tx: tx.execute(update(audit_entries).where(of(5)).values(organization_id="org_b")),
        5,
    ),
    "end set back": (lambda tx: tx.execute(update(audit_chains).values(seq=8)), 9),
    "end's hash": (lambda tx: tx.execute(update(audit_chains).values(hash="0" * 64)), 9),
    "end removed": (lambda tx: tx.execute(delete(audit_chains)), 9),
    "another key": (
        lambda tx: tx.execute(update(audit_entries).where(of(3)).values(key_id="k")),
        3,
    ),
    "key removed": (lambda tx: tx.execute(delete(audit_keys)), 1),
    "all gone but the end": (lambda tx: tx.execute(delete(audit_entries)), 9),
}


@pytest.mark.parametrize("how", TAMPERINGS)
async def test_a_tampering_is_found_where_it_is(
    database: Database, audit: Audit, chains: Chains, how: str
) -> None:
    await fill(database, audit, 9)
    assert await faults(chains) == []
    tamper, seq = TAMPERINGS[how]
    await database.write(tamper)
    assert seq in await faults(chains)


def _copy(tx: Transaction) -> None:
    row = dict(tx.execute(select(audit_entries).where(of(2))).mappings().one())
    tx.execute(insert(audit_entries), {**row, "seq": 10})
    tx.execute(update(audit_chains).values(seq=10, hash=row["hash"]))


async def test_an_entry_added_by_copying_another_is_found(
    database: Database, audit: Audit, chains: Chains
) -> None:
    await fill(database, audit, 9)
    await database.write(_copy)
    assert await faults(chains) == [10]


async def test_two_that_changed_places_are_found(
    database: Database, audit: Audit, chains: Chains
) -> None:
    await fill(database, audit, 9)

    def swap(tx: Transaction) -> None:
        for old, new in ((3, 99), (4, 3), (99, 4)):
            tx.execute(update(audit_entries).where(of(old)).values(seq=new))

    await database.write(swap)
    assert set(await faults(chains)) >= {3, 4}


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "at": st.integers(0, 2**50),
    "project_id": st.none() | TEXTS,
    "actor_kind": TEXTS,
    "actor_id": TEXTS,
    "actor_hint": TEXTS,
    "address": st.none() | TEXTS,
    "request_id": st.none() | TEXTS,
    "action": TEXTS,
    "target": st.none() | TEXTS,
    "outcome": TEXTS,
    "details": st.sampled_from(['{"n":99}', '{"n": 1}', "{}", '{"n":1,"n":1}']),
    "hash": st.text("0123456789abcdef", min_size=64, max_size=64),
}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_change_of_any_field_of_any_entry_is_found(
    changing: tuple[asyncio.Runner, Database, Audit, Chains], data: st.DataObject
) -> None:
    runner, database, _audit, chains = changing
    seq = data.draw(st.integers(1, 9))
    column = data.draw(st.sampled_from(sorted(CHANGES)))
    value = data.draw(CHANGES[column])

    async def attempt() -> None:
        row = await database.read(
            lambda tx: dict(tx.execute(select(audit_entries).where(of(seq))).mappings().one())
        )
        if row[column] == value:
            return
        await database.write(
            lambda tx: tx.execute(update(audit_entries).where(of(seq)).values({column: value}))
        )
        assert seq in await faults(chains)
        await database.write(
            lambda tx: tx.execute(
                update(audit_entries).where(of(seq)).values({column: row[column]})
            )
        )
        assert await faults(chains) == []

    runner.run(attempt())


@pytest.fixture
def changing(databases: Any) -> Any:
    """A chain of nine, on a loop of its own: Hypothesis calls a plain function many times."""
    with asyncio.Runner() as runner:

        async def prepare() -> tuple[asyncio.Runner, Database, Audit, Chains]:
            database, clock = databases.open(), ManualClock()
            keyring = Keyring(database, Sealer([b"a secret of the operator's"]), clock)
            await keyring.prepare()
            audit = Audit(database, keyring, clock)
            await fill(database, audit, 9)
            return runner, database, audit, Chains(database, keyring, clock)

        made = runner.run(prepare())
        yield made
        runner.run(made[1].close())


async def test_a_chain_that_was_shortened_at_its_end_is_found_by_who_noted_the_end(
    database: Database, audit: Audit, chains: Chains
) -> None:
    await fill(database, audit, 9)
    (noted,) = await chains.verify()
    await fill(database, audit, 2)
    assert all(v.whole for v in await chains.verify({"org_a": noted.end}))

    def shorten(tx: Transaction) -> None:
        tx.execute(delete(audit_entries).where(audit_entries.c.seq > 8))
        digest = tx.execute(select(audit_entries.c.hash).where(of(8))).scalar()
        tx.execute(update(audit_chains).values(seq=8, hash=digest))

    await database.write(shorten)
    (verdict,) = await chains.verify({"org_a": noted.end})
    assert [fault.seq for fault in verdict.faults] == [9]
    (verdict,) = await chains.verify({"org_a": (8, "0" * 64)})
    assert [fault.seq for fault in verdict.faults] == [8]


async def test_an_organisation_that_vanished_is_found_by_who_noted_its_end(
    chains: Chains,
) -> None:
    (verdict,) = await chains.verify({"org_a": (3, "0" * 64)})
    assert not verdict.whole


# --- retention --------------------------------------------------------------------------------


async def test_retention_deletes_the_old_and_leaves_a_whole_chain(
    database: Database, audit: Audit, chains: Chains, clock: ManualClock
) -> None:
    for _ in range(3):
        await fill(database, audit, 4)
        clock.advance(40 * DAY)
    cutoff = clock.now() - round(90 * DAY * 1000)
    assert await chains.prune(cutoff) == 4
    assert await chains.prune(cutoff) == 0
    (verdict,) = await chains.verify()
    assert (verdict.whole, verdict.entries, verdict.deleted) == (True, 8, 4)
    clock.advance(200 * DAY)
    assert await chains.prune(clock.now()) == 8
    await fill(database, audit, 1)
    (verdict,) = await chains.verify()
    assert (verdict.whole, verdict.entries, verdict.deleted) == (True, 1, 12)
    page = await audit.list(ADMIN, Sought(), limit=10, after=None)
    assert [entry.seq for entry in page.items] == [13]


async def test_retention_of_very_many_goes_in_bounded_steps(
    database: Database, audit: Audit, chains: Chains, clock: ManualClock
) -> None:
    await fill(database, audit, PRUNED_AT_ONCE + 3)
    clock.advance(1)
    assert await chains.prune(clock.now()) == PRUNED_AT_ONCE + 3
    rows = await database.read(lambda tx: tx.execute(select(audit_checkpoints)).all())
    assert [(row.from_seq, row.seq) for row in rows] == [
        (1, PRUNED_AT_ONCE),
        (PRUNED_AT_ONCE + 1, PRUNED_AT_ONCE + 3),
    ]
    assert all(verdict.whole for verdict in await chains.verify())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_checkpoints WHERE seq = 2",
        "DELETE FROM audit_checkpoints WHERE seq = 4",
        "UPDATE audit_checkpoints SET seq = 3 WHERE seq = 2",
        "UPDATE audit_checkpoints SET from_seq = 2 WHERE seq = 2",
        "UPDATE audit_checkpoints SET at = 5 WHERE seq = 2",
        "UPDATE audit_checkpoints SET entry_hash = 'x' WHERE seq = 4",
        "UPDATE audit_checkpoints SET hash = 'x' WHERE seq = 4",
        "UPDATE audit_checkpoints SET key_id = 'x' WHERE seq = 2",
    ],
)
async def test_a_checkpoint_cannot_be_forged(
    database: Database, audit: Audit, chains: Chains, clock: ManualClock, statement: str
) -> None:
    for _ in range(2):
        await fill(database, audit, 2)
        clock.advance(1)
        await chains.prune(clock.now())
    await fill(database, audit, 2)
    assert await faults(chains) == []
    await database.write(lambda tx: tx.execute(text(statement)))
    assert await faults(chains) != []


async def test_what_was_tampered_with_is_not_deleted(
    database: Database, audit: Audit, chains: Chains, clock: ManualClock
) -> None:
    await fill(database, audit, 5)
    clock.advance(1)
    await database.write(
        lambda tx: tx.execute(update(audit_entries).where(of(2)).values(action="other.thing"))
    )
    assert await chains.prune(clock.now()) == 0
    assert await faults(chains) == [2]


async def test_a_clock_that_stepped_back_costs_no_entry_that_is_young(
    database: Database, audit: Audit, chains: Chains, clock: ManualClock
) -> None:
    await fill(database, audit, 1)
    clock.advance(100)
    await fill(database, audit, 1)
    cutoff = clock.now()
    clock.advance(-100)
    await fill(database, audit, 1)
    assert await chains.prune(cutoff) == 1
    (verdict,) = await chains.verify()
    assert (verdict.whole, verdict.entries) == (True, 2)


# --- the keys of the hashes -------------------------------------------------------------------


async def test_with_another_secret_the_server_goes_on_and_verification_says_so(
    database: Database, audit: Audit, clock: ManualClock
) -> None:
    await fill(database, audit, 3)
    other = Keyring(database, Sealer([b"quite another secret"]), clock)
    await other.prepare()
    await fill(database, Audit(database, other, clock), 1)
    (verdict,) = await Chains(database, other, clock).verify()
    assert [fault.seq for fault in verdict.faults] == [1, 2, 3]


async def test_a_new_secret_beside_the_old_one_changes_nothing_and_takes_over(
    database: Database, audit: Audit, clock: ManualClock
) -> None:
    await fill(database, audit, 3)
    both = Keyring(database, Sealer([b"the new secret", b"a secret of the operator's"]), clock)
    await both.prepare()
    assert await both.reseal() == 1
    assert await both.reseal() == 0
    alone = Keyring(database, Sealer([b"the new secret"]), clock)
    await alone.prepare()
    await fill(database, Audit(database, alone, clock), 1)
    (verdict,) = await Chains(database, alone, clock).verify()
    assert verdict.whole
    assert verdict.entries == 4
