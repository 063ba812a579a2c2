"""Any sequence of verbs: the row is the fold of the events, and a run ends once."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from stationmaster.budgets import CallContext, LedgerEntry, Reserved, Usage
from stationmaster.budgets.tables import holds, ledger
from stationmaster.events import Fenced, NewEvent
from stationmaster.kernel.errors import Unauthenticated, Unavailable
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.record import Run
from stationmaster.sessions.runs.settlement import Ending
from stationmaster.sessions.runs.state import State
from stationmaster.storage import Transaction, open_database
from tests.support.core import LEASE, QUEUE_TIMEOUT, Core, limited
from tests.support.databases import Databases

ENDS: list[State] = ["completed", "failed", "cancelled", "timed_out", "cost_exceeded"]
MAX_QUEUE = 4
PICK = st.integers(0, 10**6)


class Lives(RuleBasedStateMachine):
    """Two servers on one database; the model knows what state each run must be in."""

    databases: ClassVar[Databases]
    directory: ClassVar[Path]
    loop: ClassVar[asyncio.Runner]

    def __init__(self) -> None:
        super().__init__()
        database = open_database(self.databases.url(), synchronous="OFF", pool_size=2)
        shutil.rmtree(self.directory, ignore_errors=True)
        first = Core(database, self.directory, limits=limited(max_queue=MAX_QUEUE))
        self.cores = [first, first.beside()]
        self.runs: list[Run] = []
        self.expected: dict[str, State] = {}
        self.asked: set[str] = set()
        self.claims: list[tuple[int, Claim]] = []
        self.tokens: dict[str, str] = {}
        self.calls: list[tuple[int, CallContext, int]] = []
        self.costs: dict[str, int] = {}
        self.keys = self.do(self._keys())
        for core in self.cores:
            self.do(core.instances.register())

    def do(self, work: Any) -> Any:
        return self.loop.run(work)

    async def _keys(self) -> list[Principal]:
        core = self.cores[0]
        given = ["first-operators-key", "second-operators-key"]
        await core.keys.bootstrap(admin=None, given=given)
        return [await core.resolver.resolve(secret) for secret in given]

    def teardown(self) -> None:
        self.do(self.cores[0].database.close())

    def _waiting(self) -> list[str]:
        return [run_id for run_id, state in self.expected.items() if state == "queued"]

    def _one(self, pick: int) -> Run:
        return self.runs[pick % len(self.runs)]

    def _held(self, pick: int) -> tuple[Core, Claim]:
        server, claim = self.claims[pick % len(self.claims)]
        return self.cores[server], claim

    # --- verbs --------------------------------------------------------------------------------

    @rule(key=st.integers(0, 1), cost=st.integers(50, 100))
    def start(self, key: int, cost: int) -> None:
        work = self.cores[0].start(by=self.keys[key], max_cost=cost)
        if len(self._waiting()) >= MAX_QUEUE:
            with pytest.raises(Unavailable):
                self.do(work)
            return
        run = self.do(work)
        self.runs.append(run)
        self.expected[run.id] = "queued"
        self.costs[run.id] = 0

    @rule(server=st.integers(0, 1))
    def claim(self, server: int) -> None:
        claim = self.do(self.cores[server].claims.next())
        assert (claim is None) == (not self._waiting())
        if claim is not None:
            assert self.expected[claim.run.id] == "queued"
            self.expected[claim.run.id] = "running"
            self.claims.append((server, claim))
            self.tokens[claim.run.id] = self.do(self.cores[server].seat(claim))

    @precondition(lambda self: self.runs)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        run = self._one(pick)
        owner = next(key for key in self.keys if key.id == run.key_id)
        self.do(self.cores[1].runs.cancel(owner, run.id))
        if self.expected[run.id] in {"queued", "running"}:
            self.asked.add(run.id)
        if self.expected[run.id] == "queued":
            self.expected[run.id] = "cancelled"

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, turns=st.integers(0, 3))
    def write(self, pick: int, turns: int) -> None:
        core, claim = self._held(pick)
        agent = {"name": "scripted", "turns": turns}
        new = [
            NewEvent(states.AGENT_READY, {"run_id": claim.run.id, "agent": agent}),
            *[NewEvent("agent.message", {"run_id": claim.run.id})] * turns,
        ]

        def verb(tx: Transaction) -> None:
            core.records.apply(tx, core.records.lock(tx, claim.run.id), new, epoch=claim.epoch)

        if self.expected[claim.run.id] == "running":
            self.do(core.database.write(verb))
        else:  # too late, because it was taken over or has ended
            with pytest.raises((Fenced, states.ImpossibleTransition)):
                self.do(core.database.write(verb))

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, end=st.sampled_from(ENDS), text=st.text())
    def end(self, pick: int, end: State, text: str) -> None:
        core, claim = self._held(pick)
        self._settle_all(claim.run.id)
        self.do(core.claims.give_up(claim, Ending(end, result=text, turns=2)))
        if self.expected[claim.run.id] == "running":
            self.expected[claim.run.id] = end

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, amount=st.integers(1, 60))
    def call(self, pick: int, amount: int) -> None:
        server, claim = self.claims[pick % len(self.claims)]
        if self.expected[claim.run.id] != "running":  # its token opens nothing any more
            return
        context = self.cores[server].context(claim.run)
        answer = self.do(self.cores[server].budgets.reserve(context, amount))
        if isinstance(answer, Reserved):
            self.calls.append((server, context, amount))

    def _settle_all(self, run_id: str) -> None:
        for entry in [entry for entry in self.calls if entry[1].run_id == run_id]:
            server, context, amount = entry
            line = LedgerEntry(context, 0, Usage(1, 1), amount // 2, "complete", 1)
            assert self.do(self.cores[server].budgets.settle(line))
            self.calls.remove(entry)
            self.costs[run_id] += amount // 2

    @rule(server=st.integers(0, 1))
    def die(self, server: int) -> None:
        other = self.cores[1 - server]
        dead = self.cores[server].instances.id
        other.clock.advance(LEASE + 1)
        self.do(other.instances.renew())
        self.do(other.claims.take_over(dead))
        for owner, claim in self.claims:
            if owner == server and self.expected[claim.run.id] == "running":
                self.expected[claim.run.id] = "interrupted"
        for entry in [entry for entry in self.calls if entry[0] == server]:
            self.calls.remove(entry)
            self.costs[str(entry[1].run_id)] += entry[2]
        self.cores[server] = other.beside()  # and starts again
        self.do(self.cores[server].instances.register())
        # The claims of the dead stay in the model: they are tried again, too late.

    @rule()
    def wait_too_long(self) -> None:
        core = self.cores[0]
        core.clock.advance(QUEUE_TIMEOUT + 1)
        for each in self.cores:
            self.do(each.instances.renew())
        assert self.do(core.claims.expire_queued()) == len(self._waiting())
        for run_id in self._waiting():
            self.expected[run_id] = "timed_out"

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def every_row_is_the_fold_of_its_events(self) -> None:
        for run in self.runs:
            now = self.do(self.cores[0].checked(run))
            assert now.state.state == self.expected[run.id]
            assert now.state.cancel_requested == (run.id in self.asked)
            if now.state.finished:
                assert now.state.cost == self.costs[run.id]

    @invariant()
    def an_ended_run_holds_nothing_and_its_token_is_dead(self) -> None:
        core = self.cores[0]
        held = select(holds.c.run_id, func.count()).group_by(holds.c.run_id)
        for run_id, _ in self.do(core.database.read(lambda tx: tx.execute(held).all())):
            assert self.expected[run_id] == "running"
        for _, claim in self.claims:
            if self.expected[claim.run.id] == "running":
                assert (
                    self.do(core.resolver.resolve(self.tokens[claim.run.id])).run_id == claim.run.id
                )
            else:
                with pytest.raises(Unauthenticated):
                    self.do(core.beside().resolver.resolve(self.tokens[claim.run.id]))

    @invariant()
    def the_ledger_is_what_was_billed(self) -> None:
        sums = select(ledger.c.run_id, func.sum(ledger.c.cost)).group_by(ledger.c.run_id)
        rows = self.do(self.cores[0].database.read(lambda tx: tx.execute(sums).all()))
        assert {row[0]: int(row[1]) for row in rows if row[1]} == {
            run_id: cost for run_id, cost in self.costs.items() if cost
        }


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.mark.slow
def test_runs_live_and_end_as_they_should(
    databases: Databases, runner: asyncio.Runner, tmp_path: Path
) -> None:
    given = {"databases": databases, "directory": tmp_path / "files", "loop": runner}
    run_state_machine_as_test(
        type("Lives", (Lives,), given),
        settings=settings(
            max_examples=10 if databases.dialect == "postgresql" else 30,
            stateful_step_count=30,
            phases=[Phase.generate],  # to shrink would play for minutes
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
