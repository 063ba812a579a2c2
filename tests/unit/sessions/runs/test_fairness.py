"""Whose turn it is: against a plain reading of the rule, over many states, and in the long run."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.sessions.runs import fairness
from stationmaster.sessions.runs.fairness import WINDOW, Line
from stationmaster.sessions.runs.options import RunOptions
from stationmaster.sessions.runs.priority import LEVELS, SCOPE, priority_of
from stationmaster.sessions.runs.settlement import Ending
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Database, Transaction
from tests.support.core import AGEING, ALICE, Core, principal
from tests.unit.sessions.runs.queued import AT, Row, put

DONE = Ending("completed", result="done")
STATES = 80


def expected(rows: Sequence[Row], now: int) -> str:
    """The rule, read plainly: the run whose turn it is."""
    waiting = [row for row in rows if row.state == "queued"]

    def at_work(name: str, who: str) -> int:
        return sum(
            getattr(row, name) == who and row.state == "running" and not row.asks for row in rows
        )

    def served(name: str, who: str) -> int | None:
        times = [row.started_at for row in rows if getattr(row, name) == who]
        return max((at for at in times if at is not None), default=None)

    organization = min(
        {row.organization for row in waiting},
        key=lambda who: (at_work("organization", who), served("organization", who) or 0, who),
    )
    heads: dict[tuple[str, int], Row] = {}
    for row in sorted(waiting, key=lambda row: row.id):
        if row.organization == organization:
            heads.setdefault((row.key, row.priority), row)

    def place(row: Row) -> tuple[int, int, int, bool, str]:
        last = served("key", row.key)
        aged = min(1, row.priority + max(0, now - row.queued_at) // round(AGEING * 1000))
        turn = row.queued_at if last is None else last
        return -aged, at_work("key", row.key), turn, last is not None, row.id

    return min(heads.values(), key=place).id


async def order(database: Database, now: int = AT) -> list[str]:
    line = Line(ageing=AGEING)
    found = await database.write(lambda tx: list(line.runs(tx, now)))
    return [run_id for run_id, _ in found]


def any_state(chance: random.Random, name: str) -> list[Row]:
    rows = []
    organizations, keys = chance.randint(1, 4), chance.randint(1, 4)
    for number in range(chance.randint(1, 30)):
        organization = f"org_{name}_{chance.randrange(organizations)}"
        state = chance.choice(["queued", "queued", "running", "completed"])
        rows.append(
            Row(
                id=f"run_{name}_{number:03}",
                organization=organization,
                key=f"key_{organization}_{chance.randrange(keys)}",
                priority=chance.choice([-1, 0, 0, 1]),
                state=state,
                queued_at=AT + 10_000 * number,
                # One that was given back has been served, and waits again.
                started_at=(
                    None
                    if state == "queued" and chance.random() < 0.8
                    else AT + chance.randrange(300_000)
                ),
                asks=chance.random() < 0.3,
            )
        )
    return rows


async def test_the_choice_is_the_rule_s(database: Database) -> None:
    chance = random.Random(6)
    compared = 0
    for number in range(STATES):
        rows = any_state(chance, str(number))
        now = AT + 300_000 + chance.randrange(600_000)
        if not any(row.state == "queued" for row in rows):
            continue
        await put(database, rows)
        found = await order(database, now)
        assert found[0] == expected(rows, now), (number, rows)
        waiting = {row.id for row in rows if row.state == "queued"}
        assert len(set(found)) == len(found)
        assert set(found) <= waiting
        compared += 1
        gone = update(runs).values(state="completed", started_at=None)
        await database.write(lambda tx, gone=gone: tx.execute(gone))  # type: ignore[misc]
    assert compared > STATES / 2


async def test_nothing_waits(database: Database) -> None:
    assert await order(database) == []


async def begin(database: Database, run_id: str, at: int) -> tuple[str, str]:
    """As a claim does; return whose it was."""

    def verb(tx: Transaction) -> tuple[str, str]:
        row = tx.execute(select(runs).where(runs.c.id == run_id)).one()
        tx.execute(update(runs).where(runs.c.id == run_id).values(state="running", started_at=at))
        tx.execute(update(sessions).where(sessions.c.id == row.session_id).values(status="running"))
        return row.organization_id, row.key_id

    return await database.write(verb)


async def finish(database: Database, run_id: str) -> None:
    await database.write(
        lambda tx: tx.execute(update(runs).where(runs.c.id == run_id).values(state="completed"))
    )


async def test_many_keys_get_an_organisation_no_more(database: Database) -> None:
    crowd = [Row(f"run_a{each:03}", "org_crowd", f"key_{each % 50}") for each in range(100)]
    await put(database, [*crowd, Row("run_b", "org_one", "key_one")])
    first, _ = await begin(database, (await order(database))[0], AT)
    second, _ = await begin(database, (await order(database))[0], AT + 1)
    assert {first, second} == {"org_crowd", "org_one"}


@pytest.mark.parametrize("ends", ["in order", "at random"])
async def test_places_are_shared_evenly_by_organisations_and_then_by_their_keys(
    database: Database, ends: str
) -> None:
    """Three organisations with 40, 8 and 1 keys, always more waiting than there are places."""
    chance = random.Random(7)
    keys = {"org_a": 40, "org_b": 8, "org_c": 1}
    number = 0
    at_work: list[tuple[str, str]] = []
    had, by_key = Counter[str](), Counter[str]()

    def another(organization: str, key: str) -> Row:
        nonlocal number
        number += 1
        return Row(f"run_{number:05}", organization, key, queued_at=AT - 1000 + number)

    for organization, many in keys.items():
        names = [f"key_{organization}_{each}" for each in range(many)]
        await put(database, [another(organization, each) for each in names])
    for step in range(150):
        [run_id, *_] = await order(database, AT + step)
        organization, key = await begin(database, run_id, AT + step)
        await put(database, [another(organization, key)])
        at_work.append((run_id, organization))
        had[organization] += 1
        by_key[key] += 1
        if len(at_work) == 9:  # the places
            now = Counter(each for _, each in at_work)
            assert {now[each] for each in keys} == {3}
            ended, _ = at_work.pop(0 if ends == "in order" else chance.randrange(len(at_work)))
            await finish(database, ended)
    assert sum(had.values()) == 150
    assert max(had.values()) - min(had.values()) <= 15, had  # of 50 each
    of_b = [by_key[f"key_org_b_{each}"] for each in range(8)]
    # Of 6 or so each. One whose run is long misses turns meanwhile.
    assert max(of_b) - min(of_b) <= (1 if ends == "in order" else 6), of_b


@pytest.mark.parametrize("whose", ["organisations", "keys"])
async def test_more_than_are_looked_at_are_all_served_in_their_turn(
    database: Database, whose: str
) -> None:
    many = 2 * WINDOW
    if whose == "keys":
        rows = [Row(f"run_{each:03}", "org", f"key_{each:03}") for each in range(many)]
    else:
        rows = [Row(f"run_{each:03}", f"org_{each:03}", f"key_{each:03}") for each in range(many)]
    again = [Row(f"{row.id}_again", row.organization, row.key) for row in rows]
    await put(database, [*rows, *again])
    line, served = Line(ageing=AGEING), []
    for step in range(2 * many):
        now = AT + step
        found = await database.write(lambda tx, now=now: list(line.runs(tx, now)))  # type: ignore[misc]
        served.append(found[0][0])
        await begin(database, found[0][0], now)
        await finish(database, found[0][0])
    assert len(set(served)) == 2 * many
    # Nobody has a second turn long before everybody has had one.
    firsts = [place for place, run_id in enumerate(served) if not run_id.endswith("again")]
    assert firsts[-1] < many + WINDOW


async def test_who_comes_at_the_same_moment_takes_the_next_key_then_the_next_run(
    database: Database,
) -> None:
    rows = [Row(f"run_{each}", "org", "key_a" if each < 4 else "key_b") for each in range(6)]
    await put(database, rows)
    assert await order(database) == ["run_0", "run_4", "run_1", "run_2", "run_3", "run_5"]


# --- priorities -------------------------------------------------------------------------------


async def test_high_before_normal_before_low(core: Core) -> None:
    boss = principal("boss")
    boss = Principal(boss.kind, boss.id, boss.owner, boss.key_id, frozenset({*boss.scopes, SCOPE}))
    for name in ("low", "normal", "high"):
        await core.runs.start(boss, RunOptions(prompt=name, priority=name))
        core.clock.advance(1)
    served = []
    while (claim := await core.claims.next()) is not None:
        served.append(claim.run.plan.priority)
    assert served == ["high", "normal", "low"]


async def test_a_high_priority_takes_nothing_from_another_organisation(database: Database) -> None:
    rows = [Row(f"run_a{each}", "org_a", "key_a", priority=1) for each in range(9)]
    await put(database, [*rows, Row("run_b", "org_b", "key_b", priority=-1)])
    served = []
    for step in range(2):
        [run_id, *_] = await order(database, AT + step)
        served.append((await begin(database, run_id, AT + step))[0])
    assert sorted(served) == ["org_a", "org_b"]


@pytest.mark.parametrize(("keys", "soon"), [(7, 20 + 9), (10_000, 120)])
async def test_a_low_one_is_served_however_many_high_ones_come(
    database: Database, keys: int, soon: int
) -> None:
    """Two high ones come for each that is served, of the same key and of others or ever new ones.

    With new ones as many keys wait as there are turns: each of them has one before a second.
    """
    await put(database, [Row("run_00000", "org", "key_low", priority=-1)])
    number, second = 0, round(AGEING * 1000) // 10
    for step in range(soon + 1):
        for _ in range(2):
            number += 1
            key = "key_low" if number % 3 == 0 else f"key_{number % keys}"
            at = AT + step * second
            await put(database, [Row(f"run_{number:05}", "org", key, 1, queued_at=at)])
        [run_id, *_] = await order(database, AT + step * second)
        if run_id == "run_00000":
            assert step >= 20, "it has not waited for two ageings"
            return
        await begin(database, run_id, AT + step * second)
        await finish(database, run_id)
    raise AssertionError("it starves")


async def test_who_may_ask_for_which(core: Core) -> None:
    plain = ALICE
    allowed = Principal("key", "k", plain.owner, "k", frozenset({"write:tasks", SCOPE}))
    assert priority_of(None, None, plain) == "normal"
    assert priority_of("low", None, plain) == "low"
    assert priority_of("high", None, allowed) == "high"
    with pytest.raises(Denied) as denied:
        await core.runs.start(plain, RunOptions(prompt="x", priority="high"))
    assert (denied.value.error_code, denied.value.param) == ("priority_not_allowed", "priority")
    with pytest.raises(Invalid):
        await core.runs.start(plain, RunOptions(prompt="x", priority="urgent"))
    assert await core.claims.next() is None


@pytest.mark.parametrize(
    ("most", "usual"), [("low", "low"), ("normal", "normal"), ("high", "normal")]
)
def test_a_profile_bounds_it(most: str, usual: str) -> None:
    from stationmaster.access import profiles

    profile = profiles.profile("enterprise", {"priority": most})
    assert priority_of(None, profile) == usual
    for name, level in LEVELS.items():
        if level <= LEVELS[most]:
            assert priority_of(name, profile) == name
        else:
            with pytest.raises(Denied):
                priority_of(name, profile)


# --- the cost ---------------------------------------------------------------------------------


async def test_no_claim_reads_the_whole_queue(database: Database) -> None:
    """By the plans on a long queue and a long history: each table is reached by an index."""
    chance = random.Random(8)
    await put(
        database,
        [
            Row(
                f"run_{each:05}",
                f"org_{chance.randrange(40)}",
                f"key_{chance.randrange(400)}",
                state=chance.choice(["queued", "completed"]),
                started_at=None if each % 3 else AT + each,
            )
            for each in range(4000)
        ],
    )
    served = database.dialect == "postgresql"
    explain = "EXPLAIN" if served else "EXPLAIN QUERY PLAN"
    dialect = (postgresql if served else sqlite).dialect()
    given = {"after": "org_1", "organization_id": "org_1"}
    given |= {"priority": 0, "key_id": "key_1", "id": "run_00001"}  # type: ignore[dict-item]

    def verb(tx: Transaction) -> list[str]:
        lines = []
        if dialect.name == "postgresql":
            tx.execute(text("ANALYZE runs"))
            tx.execute(text("ANALYZE sessions"))
        for query in (fairness._ORGANIZATIONS, fairness._HEADS, fairness._BEHIND):
            bound = query.params(**{k: v for k, v in given.items() if k in query.compile().params})
            compiled = bound.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
            explained = text(f"{explain} {compiled}")
            lines += [" ".join(map(str, row)) for row in tx.execute(explained)]
        return lines

    lines = await database.write(verb)
    # By what both say of a table that is read from one end to the other.
    read_whole = [
        line
        for line in lines
        if "Seq Scan on " in line or ("SCAN " in line and "runs" in line.split("SCAN ")[1][:8])
    ]
    assert read_whole == [], "\n".join(lines)
    assert any("ix_runs_waiting" in line for line in lines)


async def test_an_owner_s_turn_is_by_organisation(core: Core) -> None:
    here = principal("a", Owner("org_here", "proj_here"))
    there = principal("b", Owner("org_there", "proj_there"))
    for by in (here, here, here, there):
        await core.start(by=by)
        core.clock.advance(1)
    served = []
    while (claim := await core.claims.next()) is not None:
        served.append(claim.run.owner.organization_id)
        core.clock.advance(1)
        await core.claims.give_up(claim, DONE)
    assert served == ["org_here", "org_there", "org_here", "org_here"]
