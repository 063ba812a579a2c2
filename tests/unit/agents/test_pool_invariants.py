"""In any order of events no process serves two sessions, and no token outlives its run's rights."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stationmaster.access import Keys, Resolver, RunTokens
from stationmaster.access.secret import Hasher
from stationmaster.agents.base import AgentUnavailable, LaunchSpec
from stationmaster.agents.slots import Seat
from stationmaster.bootstrap.pooling import DatabaseTokens
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Unauthenticated
from stationmaster.kernel.ids import new_id
from stationmaster.storage import Database
from tests.unit.agents.pool_parts import KIND, OTHER, Station, life_of

SESSIONS = [f"sesn_{number}" for number in range(4)]
OWNER_KEY = "a-key-of-the-test-0123456789abcdef"


@dataclass
class Turn:
    """A session's use of a process; `run_id` once the token is bound."""

    seat: Seat
    run_id: str | None = None


class Yard:
    """What each session and each run should have is kept here; the rest is looked at."""

    def __init__(self, database: Database) -> None:
        clock, hasher = ManualClock(), Hasher(b"pepper-of-the-test")
        self.database = database
        self.resolver = Resolver(database, hasher, clock)
        self.clock, self.hasher = clock, hasher
        self.keys = Keys(database, hasher, clock, self.resolver)
        self.tokens = RunTokens(hasher, clock, forget=self.resolver.forget)
        slots = DatabaseTokens(database, self.tokens)
        self.station = Station(size=2, kinds=2, idle=30, unused=60, tokens=slots)
        self.turns: dict[str, Turn] = {}
        self.secrets: dict[str, str] = {}

    # --- what may happen ----------------------------------------------------------------------

    async def begin_one(self, number: int) -> None:
        """A session's turn, first or later; its run may begin a little after."""
        free = [session for session in SESSIONS if session not in self.turns]
        if free:
            session = free[number % len(free)]
            kind = OTHER if number % 5 == 0 else KIND
            await self._take(session, kind, fresh=number % 4 != 0)
            if number % 6:
                await self._bind(session)

    async def bind_one(self, number: int) -> None:
        """A run that begins after its process was taken."""
        unbound = [name for name, turn in self.turns.items() if turn.run_id is None]
        if unbound:
            await self._bind(unbound[number % len(unbound)])

    async def end_one(self, number: int) -> None:
        """A run ends; its process is kept, mostly."""
        if self.turns:
            session = sorted(self.turns)[number % len(self.turns)]
            turn = self.turns.pop(session)
            if (run_id := turn.run_id) is not None:
                await self.database.write(lambda tx: self.tokens.unbind_run(tx, run_id))
            if number % 5:
                await self.station.pool.keep(session, turn.seat)
            else:
                await self.station.pool.drop(session)

    async def cut_one(self, number: int) -> None:
        """A process is ended before its run has."""
        if self.turns:
            session = sorted(self.turns)[number % len(self.turns)]
            del self.turns[session]
            await self.station.pool.drop(session)

    async def kill_one(self, number: int) -> None:
        """A process dies by itself."""
        living = [life for life in self.station.agent.launched if not life.ended]
        if number < len(living):
            living[number].dead = True

    async def fail_one(self, number: int) -> None:
        """Nothing can be launched, for once."""
        self.station.agent.failure = AgentUnavailable("Not now.")
        with suppress(AgentUnavailable):
            await self.begin_one(number)
        await self.station.tend()
        self.station.agent.failure = None

    async def wait(self, number: int) -> None:
        """Time passes, sometimes much of it."""
        await self.station.tend({0: 70.0, 1: 20.0}.get(number, 1.0))

    async def expect(self, number: int) -> None:
        """Somebody announces a session."""
        self.station.pool.expect(OTHER if number % 3 == 0 else KIND)
        await self.station.tend()

    async def _take(self, session: str, kind: LaunchSpec, *, fresh: bool) -> None:
        seat = await self.station.pool.take(session, kind, fresh=fresh)
        life_of(seat).served.add(session)
        self.secrets[seat.token_id] = seat.token
        self.turns[session] = Turn(seat)

    async def _bind(self, session: str) -> None:
        turn = self.turns[session]
        owner = await self.resolver.resolve(OWNER_KEY)
        run_id = new_id("run")
        await self.database.write(
            lambda tx: self.tokens.bind(
                tx,
                turn.seat.token_id,
                owner=owner.owner,
                key_id=owner.key_id,
                run_id=run_id,
                session_id=session,
            )
        )
        turn.run_id = run_id

    # --- what must hold -----------------------------------------------------------------------

    async def check(self) -> None:
        """No sharing, exact rights, nothing alive that nobody knows."""
        assert all(len(life.served) <= 1 for life in self.station.agent.launched)
        wanted = {turn.seat.token_id: turn.run_id for turn in self.turns.values()}
        for token_id, secret in self.secrets.items():
            # Another server's, which is always new: it sees what is committed.
            elsewhere = Resolver(self.database, self.hasher, self.clock)
            for resolver in (self.resolver, elsewhere):
                assert await _run_of(resolver, secret) == wanted.get(token_id)
        stats = self.station.pool.stats()
        assert self.station.agent.alive() <= stats.warm + stats.idle + stats.busy
        assert stats.busy == len(self.turns)
        assert stats.warm <= 2 * 2

    async def close(self) -> None:
        """At the end nothing lives, and no token is worth anything."""
        await self.station.pool.aclose()
        self.turns.clear()
        await self.check()
        assert self.station.agent.alive() == 0
        assert self.station.places.made == set()


async def _run_of(resolver: Resolver, secret: str) -> str | None:
    try:
        return (await resolver.resolve(secret)).run_id
    except Unauthenticated:
        return None


Step = Callable[[Yard, int], Awaitable[None]]
STEPS: tuple[Step, ...] = (
    *(Yard.begin_one,) * 3,
    *(Yard.end_one,) * 3,
    Yard.bind_one,
    Yard.cut_one,
    Yard.kill_one,
    Yard.fail_one,
    Yard.wait,
    Yard.expect,
)


@settings(
    max_examples=8,  # of up to 60 steps each; every run plays others
    phases=[Phase.generate],  # to shrink would play for minutes
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), min_size=20, max_size=60)
)
async def test_nothing_is_shared_and_nothing_outlives_its_run(
    database: Database, steps: list[tuple[Step, int]]
) -> None:
    # One database for all examples: each looks at its own tokens alone.
    yard = Yard(database)
    await yard.keys.bootstrap(admin=OWNER_KEY, given=[])
    for step, number in steps:
        await step(yard, number)
        await yard.check()
    await yard.close()
