"""Any sequence of holds, settlements, losses and days keeps the books of every level straight."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Table

from stationmaster.budgets import Budgets, CallContext, Definitions, Refused, Reserved
from stationmaster.budgets.calendar import Period
from stationmaster.budgets.definition import SubjectKind
from stationmaster.budgets.entry import Mode, Unit
from stationmaster.budgets.tables import budget_periods, holds, ledger
from stationmaster.budgets.tables import budgets as budgets_table
from stationmaster.events import EventLog
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database, open_database
from tests.support.databases import Databases
from tests.unit.budgets.support import call, entry, of, rows, set_budget

DAY_S = 86_400
USED = 15  # tokens of every call that is settled; see `entry`
AMOUNTS = st.integers(0, 60)
TOKENS = st.integers(USED, 40)
RUNS = 2


@dataclass(frozen=True)
class Limit:
    """A budget of the model's."""

    id: str
    kind: SubjectKind
    subject_id: str
    unit: Unit
    limit: int
    period: Period
    mode: Mode


@dataclass(frozen=True)
class Held:
    """A call that asked, and what for; `day` is when."""

    context: CallContext
    amount: int
    tokens: int
    day: int


@dataclass(frozen=True)
class Billed:
    """A call that is settled."""

    held: Held
    cost: int
    tokens: int


class Books(RuleBasedStateMachine):
    """Every call has the model's own record; every invariant is read from the tables."""

    database: Database
    loop: asyncio.Runner
    calls: Bundle[Held] = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(1_800_000_000_000 // 86_400_000 * 86_400_000)
        log = EventLog(self.database, MemoryBus(), self.clock)
        self.here, self.there = (
            Budgets(self.database, self.clock, instance_id=new_id("ins"), events=log)
            for _ in range(2)
        )
        self.owner = Owner(new_id("org"), new_id("proj"))
        self.runs = [new_id("run") for _ in range(RUNS)]
        self.key_id = new_id("key")

        async def mine(principal: Any, _: str) -> Owner:
            return self.owner

        kinds: tuple[SubjectKind, ...] = ("key", "run")
        finders = dict.fromkeys(kinds, mine)
        self.definitions = Definitions(self.database, self.clock, finders, events=log)
        self.limits: list[Limit] = []
        self.open: dict[str, Held] = {}
        self.billed: dict[str, Billed] = {}
        self.day = 0
        self.dearer: set[int] = set()

    @initialize(
        run=st.lists(st.integers(0, 120), min_size=RUNS, max_size=RUNS),
        project=st.integers(0, 300),
        tokens=st.integers(0, 120),
        soft=st.integers(0, 60),
    )
    def make(self, run: list[int], project: int, tokens: int, soft: int) -> None:
        for run_id, limit in zip(self.runs, run, strict=True):
            self._limit("run", run_id, limit)
        self._limit("project", self.owner.project_id, project)
        self._limit("key", self.key_id, tokens, unit="tokens", period="day")
        self._limit("tag", "red", soft, mode="soft", period="day")

    def _limit(
        self,
        kind: SubjectKind,
        subject_id: str,
        limit: int,
        *,
        unit: Unit = "usd",
        period: Period = "total",
        mode: Mode = "hard",
    ) -> None:
        made = self.loop.run(
            set_budget(
                self.definitions,
                kind,
                subject_id,
                limit,
                unit=unit,
                period=period,
                mode=mode,
                principal=of(self.owner),
            )
        )
        self.limits.append(Limit(made.id, kind, subject_id, unit, limit, period, mode))

    @rule(
        target=calls,
        run=st.integers(0, RUNS - 1),
        amount=AMOUNTS,
        tokens=TOKENS,
        final=st.booleans(),
        elsewhere=st.booleans(),
    )
    def reserve(self, *, run: int, amount: int, tokens: int, final: bool, elsewhere: bool) -> Held:
        context = call(self.runs[run], owner=self.owner, key_id=self.key_id, tags=("red",))
        held = Held(context, amount, tokens, self.day)
        store = self.there if elsewhere else self.here
        answer = self.loop.run(store.reserve(context, amount, tokens=tokens, final=final))
        short = [
            limit
            for limit in self._of(held)
            if limit.mode == "hard" and _in(limit, amount, tokens) > self._free(limit)
        ]
        assert isinstance(answer, Reserved) == (not short)
        if isinstance(answer, Reserved):
            self.open[context.call_id] = held
        else:
            assert isinstance(answer, Refused)
            named = {(limit.kind, limit.subject_id): limit for limit in short}
            told = named[answer.subject_kind, answer.subject_id]  # type: ignore[index]
            assert answer.remaining == max(0, self._free(told))
        return held

    @rule(held=consumes(calls), share=st.integers(0, 100))
    def settle(self, held: Held, share: int) -> None:
        self._settle(held, held.amount * share // 100)

    @rule(held=calls, share=st.integers(0, 100))
    def settle_perhaps_again(self, held: Held, share: int) -> None:
        self._settle(held, held.amount * share // 100)

    @rule(held=consumes(calls), more=st.integers(1, 5))
    def settle_for_more_than_was_held(self, held: Held, more: int) -> None:
        if held.context.call_id in self.open:
            self.dearer.add(held.day)
        self._settle(held, held.amount + more)

    @rule()
    def a_day_goes_by(self) -> None:
        self.clock.advance(DAY_S)
        self.day += 1

    @precondition(lambda self: self.open)
    @rule()
    def lose_the_other_instance(self) -> None:
        lost = self.loop.run(
            self.database.write(lambda tx: self.here.settle_lost(tx, self.there._instance_id))
        )
        left = {row.call_id for row in self._rows(holds)}
        gone = [call_id for call_id in self.open if call_id not in left]
        assert lost == len(gone)
        for call_id in gone:
            held = self.open.pop(call_id)
            self.billed[call_id] = Billed(held, held.amount, held.tokens)

    def _settle(self, held: Held, cost: int) -> None:
        settled = self.loop.run(self.here.settle(entry(held.context, cost)))
        assert settled == (held.context.call_id in self.open)
        if settled:
            del self.open[held.context.call_id]
            self.billed[held.context.call_id] = Billed(held, cost, USED)

    def _of(self, held: Held) -> list[Limit]:
        names = {held.context.run_id, held.context.key_id, self.owner.project_id, "red"}
        return [limit for limit in self.limits if limit.subject_id in names]

    def _account(self, limit: Limit, day: int) -> tuple[int, int]:
        """Spent and held, as the model has it."""

        def counts(held: Held) -> bool:
            return limit in self._of(held) and (limit.period == "total" or held.day == day)

        spent = sum(_in(limit, b.cost, b.tokens) for b in self.billed.values() if counts(b.held))
        held = sum(_in(limit, h.amount, h.tokens) for h in self.open.values() if counts(h))
        return spent, held

    def _free(self, limit: Limit) -> int:
        return limit.limit - sum(self._account(limit, self.day))

    @invariant()
    def the_books_are_straight(self) -> None:
        lines = {row.call_id: (row.cost, row.tokens) for row in self._rows(ledger)}
        assert lines == {call_id: (b.cost, b.tokens) for call_id, b in self.billed.items()}
        assert {row.call_id for row in self._rows(holds)} == self.open.keys()
        for limit in self.limits:
            shown = self.loop.run(self.definitions.get(of(self.owner), limit.id)).balance
            assert (shown.spent, shown.held) == self._account(limit, self.day)
        found = {row.id: row for row in self._rows(budgets_table)}
        for limit in self.limits:
            row = found[limit.id]
            past = [each for each in self._all(budget_periods) if each.budget_id == limit.id]
            for each in (row, *past):
                day = (each.period_start - 1_800_000_000_000 // 86_400_000 * 86_400_000) // (
                    DAY_S * 1000
                )
                assert (each.spent, each.held) == self._account(limit, day)
                if limit.mode == "hard" and (limit.unit == "tokens" or not self.dearer):
                    assert each.spent + each.held <= limit.limit

    def _rows(self, table: Table) -> list[Any]:
        return [
            row for row in self._all(table) if row.organization_id == self.owner.organization_id
        ]

    def _all(self, table: Table) -> list[Any]:
        return self.loop.run(rows(self.database, table))


def _in(limit: Limit, amount: int, tokens: int) -> int:
    return amount if limit.unit == "usd" else tokens


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def test_the_books_stay_straight(databases: Databases, runner: asyncio.Runner) -> None:
    # One database for all examples: each looks only at its own organisation.
    opened = open_database(databases.url(), synchronous="OFF", pool_size=2)
    machine = type("Books", (Books,), {"database": opened, "loop": runner})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=10 if databases.dialect == "postgresql" else 25,
                stateful_step_count=25,
                phases=[Phase.generate],  # to shrink would play for minutes
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        runner.run(opened.close())
