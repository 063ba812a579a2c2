"""Any sequence of verbs on sessions: the row is the fold, and each message has one turn."""

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

from stationmaster.budgets.tables import holds
from stationmaster.kernel.errors import Conflict
from stationmaster.sessions.calls import Asked, open_calls, requires_action, waiting
from stationmaster.sessions.inputs import Interrupt, ToolConfirmation
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.settlement import MAX_LOST, Ending
from stationmaster.sessions.session import Session, SessionPatch
from stationmaster.storage import Transaction, open_database
from tests.support.core import ALICE, LEASE, Core, limited
from tests.support.databases import Databases
from tests.unit.sessions.talking import Talk, checked, say

PICK = st.integers(0, 10**6)


class Lives(RuleBasedStateMachine):
    """Two servers on one database. The model knows each session's messages and how they ended."""

    databases: ClassVar[Databases]
    directory: ClassVar[Path]
    loop: ClassVar[asyncio.Runner]

    def __init__(self) -> None:
        super().__init__()
        database = open_database(self.databases.url(), synchronous="OFF", pool_size=2)
        shutil.rmtree(self.directory, ignore_errors=True)
        first = Core(database, self.directory, limits=limited(max_queue=1000))
        self.cores = [first, first.beside()]
        self.sessions: list[Session] = []
        self.sent: dict[str, list[str]] = {}  # message ids, in order
        self.at_work: dict[str, str] = {}  # the message whose turn it is, by session
        self.done: dict[str, list[str]] = {}
        self.lost: dict[str, int] = {}  # by message
        self.archived: set[str] = set()
        self.claims: list[tuple[int, Claim]] = []
        self.asked: list[tuple[Session, str, int]] = []  # with the epoch of who asked
        self.number = 0
        for core in self.cores:
            self.do(core.instances.register())

    def do(self, work: Any) -> Any:
        return self.loop.run(work)

    def teardown(self) -> None:
        self.do(self.cores[0].database.close())

    def _begin_next(self, session_id: str) -> None:
        if session_id in self.at_work:
            return
        done = set(self.done[session_id])
        rest = [each for each in self.sent[session_id] if each not in done]
        if rest:
            self.at_work[session_id] = rest[0]

    def _over(self, session_id: str) -> None:
        self.done[session_id].append(self.at_work.pop(session_id))
        self.claims = [each for each in self.claims if each[1].session.id != session_id]
        self.asked = [each for each in self.asked if each[0].id != session_id]
        self._begin_next(session_id)

    # --- verbs --------------------------------------------------------------------------------

    @rule(policy=st.sampled_from(["resume", "interrupt"]))
    def create(self, policy: str) -> None:
        session = self.do(Talk(self.cores[0]).create(on_crash=policy))
        self.sessions.append(session)
        self.sent[session.id], self.done[session.id] = [], []

    @precondition(lambda self: self.sessions)
    @rule(pick=PICK, server=st.integers(0, 1), messages=st.integers(1, 3))
    def send(self, pick: int, server: int, messages: int) -> None:
        session = self.sessions[pick % len(self.sessions)]
        talk = Talk(self.cores[server])
        said = [say(f"message {self.number + each}") for each in range(messages)]
        self.number += messages
        if session.id in self.archived:
            with pytest.raises(Conflict):
                self.do(talk.send(session, *said))
            return
        self.sent[session.id] += [each.id for each in self.do(talk.send(session, *said))]
        self._begin_next(session.id)

    @rule(server=st.integers(0, 1))
    def claim(self, server: int) -> None:
        claim = self.do(self.cores[server].claims.next())
        held = {each[1].session.id for each in self.claims}
        assert (claim is None) == (set(self.at_work) <= held)
        if claim is not None:
            assert claim.run.state.message_id == self.at_work[claim.session.id]
            self.claims.append((server, claim))
            self.do(self.cores[server].seat(claim))

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, end=st.sampled_from(["completed", "failed", "timed_out"]))
    def end(self, pick: int, end: Any) -> None:
        server, claim = self.claims[pick % len(self.claims)]
        self.do(self.cores[server].claims.give_up(claim, Ending(end, position=f"p{self.number}")))
        self._over(claim.session.id)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def ask(self, pick: int) -> None:
        server, claim = self.claims[pick % len(self.claims)]
        core, event_id = self.cores[server], f"sevt_ask{self.number}"
        self.number += 1
        call = Asked(event_id, "toolu", "confirmation", "bash", {"command": "ls"}, 10**6)

        def verb(tx: Transaction) -> None:
            run = core.records.lock(tx, claim.run.id)
            session = core.records.sessions.get(tx, run.session_id)
            open_calls(tx, session, run.id, [call], epoch=claim.epoch, now=core.clock.now())
            new = [requires_action(run.id, waiting(tx, run.id, claim.epoch))]
            core.records.apply(tx, run, new, epoch=claim.epoch)

        self.do(core.database.write(verb))
        self.asked.append((claim.session, event_id, claim.epoch))

    @precondition(lambda self: self.asked)
    @rule(pick=PICK, server=st.integers(0, 1), allow=st.booleans())
    def answer(self, pick: int, server: int, allow: bool) -> None:
        session, event_id, _ = self.asked.pop(pick % len(self.asked))
        talk = Talk(self.cores[server])
        self.do(talk.send(session, ToolConfirmation(event_id, allow)))
        with pytest.raises(Conflict):
            self.do(talk.send(session, ToolConfirmation(event_id, not allow)))

    @precondition(lambda self: self.sessions)
    @rule(pick=PICK, server=st.integers(0, 1))
    def interrupt(self, pick: int, server: int) -> None:
        session = self.sessions[pick % len(self.sessions)]
        if session.id in self.archived:
            return
        running = session.id in {each[1].session.id for each in self.claims}
        self.do(Talk(self.cores[server]).send(session, Interrupt()))
        if session.id in self.at_work and not running:
            self._over(session.id)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def give_back(self, pick: int) -> None:
        """An orderly stop."""
        server, claim = self.claims.pop(pick % len(self.claims))
        core = self.cores[server]

        def verb(tx: Transaction) -> None:
            run = core.records.lock(tx, claim.run.id)
            core.settlement.requeue(tx, run, reason="shutting_down", lost=False, epoch=claim.epoch)

        self.do(core.database.write(verb))

    @rule(server=st.integers(0, 1))
    def die(self, server: int) -> None:
        other = self.cores[1 - server]
        dead = self.cores[server].instances.id
        other.clock.advance(LEASE + 1)
        self.do(other.instances.renew())
        self.do(other.claims.take_over(dead))
        for claim in [claim for owner, claim in self.claims if owner == server]:
            message = self.at_work[claim.session.id]
            self.lost[message] = self.lost.get(message, 0) + 1
            if not claim.session.resumes or self.lost[message] == MAX_LOST:
                self._over(claim.session.id)
        self.claims = [each for each in self.claims if each[0] != server]
        self.cores[server] = other.beside()
        self.do(self.cores[server].instances.register())

    @precondition(lambda self: self.sessions)
    @rule(pick=PICK, title=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
    def rename(self, pick: int, title: str) -> None:
        session = self.sessions[pick % len(self.sessions)]
        work = self.cores[0].sessions.update(ALICE, session.id, SessionPatch({"title": title}))
        if session.id in self.archived:
            with pytest.raises(Conflict):
                self.do(work)
            return
        assert self.do(work).state.title == title

    @precondition(lambda self: self.sessions)
    @rule(pick=PICK)
    def archive(self, pick: int) -> None:
        session = self.sessions[pick % len(self.sessions)]
        work = self.cores[1].sessions.archive(ALICE, session.id)
        if session.id in self.at_work:
            with pytest.raises(Conflict):
                self.do(work)
            return
        self.do(work)
        self.archived.add(session.id)

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def the_books_agree(self) -> None:
        for session in self.sessions:
            now, book = self.do(checked(self.cores[0], session.id))
            begun = [e.data["message_id"] for e in book if e.type == states.QUEUED]
            ended = [e for e in book if e.type == states.ENDED]
            expected = self.done[session.id] + (
                [self.at_work[session.id]] if session.id in self.at_work else []
            )
            assert begun == expected, "each message has its turn once, in order"
            assert len(ended) == len(self.done[session.id])
            waiting_ids = [each["id"] for each in now.state.queue]
            assert waiting_ids == self.sent[session.id][len(expected) :]
            # What an attempt asked that was cut can be answered, but nobody waits for it yet.
            epochs = {claim.session.id: claim.epoch for _, claim in self.claims}
            waits = [
                event_id
                for of, event_id, epoch in self.asked
                if of.id == session.id and epoch == epochs.get(of.id)
            ]
            if session.id in epochs:
                assert sorted(now.state.waiting_for) == sorted(waits)
            if session.id not in self.at_work:
                assert now.state.status == "idle"

    @invariant()
    def nothing_is_held(self) -> None:
        count = select(func.count()).select_from(holds)
        database = self.cores[0].database
        assert self.do(database.read(lambda tx: tx.execute(count).scalar())) == 0


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.mark.slow
def test_sessions_live_as_they_should(
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
