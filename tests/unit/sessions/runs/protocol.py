"""A model of who works on which run, small enough to be explored whole.

Two servers share a database and perhaps a broker. Runs are started, heard of, claimed, written to
and ended. At any point a server may die, or sleep past its lease and go on; an answer of the
database may be lost after its commit; a message may come twice or not at all. `explore` walks
through every order in which all this can happen, and returns the first broken promise.

Two designs hold: ours, in which a message is a doorbell and workers look for themselves as well,
and one in which they rely on messages alone. A fault is a way to build one of them wrongly. Each
must be found, or the model proves nothing.

Each step names the code that it mirrors.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

Design = Literal["doorbell", "messages"]

Fault = Literal[
    "none",
    "appends look at no epoch",
    "a run is taken over without a new epoch",
    "a claim does not look at the state again",
    "an end does not look whether the run has ended",
    "a run is taken over without looking at its state",
    "a claim does not say whose it is",
    "the runs of servers that nobody lists are left",
    "claims whose answer was lost are left",
    "a job is published before the commit",
    "a job is forgotten before it is published",
    "a message is acknowledged before the claim",
]
OF_MESSAGES: tuple[Fault, ...] = (
    "a job is published before the commit",
    "a job is forgotten before it is published",
    "a message is acknowledged before the claim",
)

MAX_LOST = 2  # workers lost with a run until it fails
MAX_MESSAGES = 2  # of one run
SERVERS = (0, 1)
NOBODY = -1

State = Literal["new", "publishing", "queued", "running", "ended", "refused"]


class Run(NamedTuple):
    """A run's row and stream, its job in the outbox and its messages at the broker.

    `late` tells that something was written by who does not work on it any more, and `twice` that
    it was claimed while somebody worked on it.
    """

    state: State = "new"
    holder: int = NOBODY
    epoch: int = 0
    lost: int = 0
    ends: int = 0
    late: bool = False
    twice: bool = False
    job: Literal["none", "waiting", "leaving"] = "none"
    messages: int = 0


class Server(NamedTuple):
    """`listed` is its entry among the living; `epochs` what it works on, 0 for nothing.

    `unacknowledged` are messages of a run that it has; `heard` is that it will look for work;
    `saw` is a run that it found queued and will claim.
    """

    alive: bool = True
    listed: bool = True
    epochs: tuple[int, ...] = ()
    unacknowledged: tuple[int, ...] = ()
    heard: bool = False
    saw: int = NOBODY


class World(NamedTuple):
    """`troubles` is how many more there may be. `taking` is a run that is being taken over."""

    runs: tuple[Run, ...]
    servers: tuple[Server, ...]
    troubles: int
    taking: int = NOBODY

    def run(self, at: int, **changes: Any) -> "World":
        changed = self.runs[at]._replace(**changes)
        return self._replace(runs=(*self.runs[:at], changed, *self.runs[at + 1 :]))

    def server(self, at: int, **changes: Any) -> "World":
        changed = self.servers[at]._replace(**changes)
        return self._replace(servers=(*self.servers[:at], changed, *self.servers[at + 1 :]))

    def works_on(self, server: int, run: int, epoch: int) -> "World":
        epochs = self.servers[server].epochs
        return self.server(server, epochs=(*epochs[:run], epoch, *epochs[run + 1 :]))

    def trouble(self) -> "World":
        return self._replace(troubles=self.troubles - 1)


def broken(world: World) -> str | None:
    """The promise that does not hold in this world."""
    for run in world.runs:
        if run.ends > 1:
            return "a run ends once"
        if run.late:
            return "who was given up writes nothing"
        if run.twice:
            return "a run is claimed by one"
        if run.state == "refused" and run.epoch:
            return "what was not accepted is not begun"
    return None


def fine(world: World) -> bool:
    """Whether all that was accepted has ended, and nothing is left of it."""
    return all(run.state in {"ended", "refused"} and run.job == "none" for run in world.runs)


class Model:
    """A protocol: a design, built with a fault or without."""

    def __init__(self, design: Design, fault: Fault = "none", *, runs: int, troubles: int) -> None:
        self.design = design
        self.fault = fault
        servers = (Server(epochs=(0,) * runs, unacknowledged=(0,) * runs),) * len(SERVERS)
        self.first = World((Run(),) * runs, servers, troubles)

    def explore(self) -> tuple[str | None, int]:
        """The first broken promise on any way through, and how many worlds were seen."""
        before: dict[World, list[World]] = {self.first: []}
        waiting = deque([self.first])
        while waiting:
            world = waiting.popleft()
            if (found := broken(world)) is not None:
                return found, len(before)
            for after in self.steps(world):
                if after not in before:
                    before[after] = []
                    waiting.append(after)
                before[after].append(world)
            for after in self.troubles(world):
                if after not in before:
                    before[after] = []
                    waiting.append(after)
        # From every world all comes to a good end if nothing more goes wrong.
        good = {world for world in before if fine(world)}
        waiting = deque(good)
        while waiting:
            for world in before[waiting.popleft()]:
                if world not in good:
                    good.add(world)
                    waiting.append(world)
        stuck = len(before) - len(good)
        return (f"all that is accepted ends ({stuck} do not)" if stuck else None), len(before)

    # --- what the servers do ------------------------------------------------------------------

    def steps(self, world: World) -> Iterator[World]:
        """What comes next where nothing goes wrong."""
        for at, run in enumerate(world.runs):
            yield from self._start(world, at, run)
            yield from self._publish(world, at, run)
        for server in SERVERS:
            if world.servers[server].alive:
                yield from self._listen(world, server)
                yield from self._claim(world, server)
                yield from self._work(world, server)
                yield from self._watch(world, server)

    def _start(self, world: World, at: int, run: Run) -> Iterator[World]:
        """`Runs.start`: the run and its job in one transaction, or neither."""
        if run.state == "new" and self.fault == "a job is published before the commit":
            yield world.run(at, state="publishing", messages=1)
        elif run.state in {"new", "publishing"}:
            job = "waiting" if run.state == "new" else "none"
            yield world.run(at, state="queued", job=job)
            yield world.run(at, state="refused")

    def _publish(self, world: World, at: int, run: Run) -> Iterator[World]:
        """The job is read from the outbox and told to the workers, then deleted."""
        early = self.fault == "a job is forgotten before it is published"
        if run.job == "waiting" and run.messages < MAX_MESSAGES:
            yield world.run(at, job="leaving", messages=run.messages + (not early))
        elif run.job == "leaving":
            yield world.run(at, job="none", messages=run.messages + early)

    def _listen(self, world: World, server: int) -> Iterator[World]:
        """`Worker.ring`: the doorbell. Where messages are all there is, they are kept till then."""
        for at, run in enumerate(world.runs):
            if not run.messages:
                continue
            heard = world.run(at, messages=run.messages - 1).server(server, heard=True)
            if self.design == "messages" and self.fault != OF_MESSAGES[2]:
                kept = world.servers[server].unacknowledged
                heard = heard.server(server, unacknowledged=_plus(kept, at, 1))
            yield heard

    def _claim(self, world: World, server: int) -> Iterator[World]:
        """`Claims.next`: one transaction that locks the session, looks at the state, and fences."""
        me = world.servers[server]
        if me.saw != NOBODY:
            yield self._claimed(world.server(server, saw=NOBODY), server, me.saw)
            return
        if self.design == "messages" and not me.heard:
            return
        queued = [at for at, run in enumerate(world.runs) if run.state == "queued"]
        for at in queued:
            if self.fault == "a claim does not look at the state again":
                yield world.server(server, saw=at)
            else:
                yield self._claimed(world, server, at)
        if me.heard and not queued:
            yield world.server(server, heard=False, unacknowledged=(0,) * len(world.runs))

    def _claimed(self, world: World, server: int, at: int) -> World:
        run = world.runs[at]
        holder = NOBODY if self.fault == "a claim does not say whose it is" else server
        claimed = world.run(
            at,
            state="running",
            holder=holder,
            epoch=run.epoch + 1,
            twice=run.twice or run.state != "queued",
        )
        return claimed.works_on(server, at, run.epoch + 1)

    def _work(self, world: World, server: int) -> Iterator[World]:
        """`Journal`, and `Settlement.end` by the executor: under the epoch of the claim."""
        for at, epoch in enumerate(world.servers[server].epochs):
            if epoch:
                yield self._written(world, server, at, ends=False)
                yield self._written(world, server, at, ends=True).works_on(server, at, 0)

    def _written(self, world: World, server: int, at: int, *, ends: bool) -> World:
        run = world.runs[at]
        looks = self.fault != "an end does not look whether the run has ended"
        if run.state == "ended" and looks:
            return world.works_on(server, at, 0)
        if world.servers[server].epochs[at] != run.epoch and self.fault != (
            "appends look at no epoch"
        ):
            return world.works_on(server, at, 0)  # `Fenced`
        unnamed = self.fault == "a claim does not say whose it is"
        mine = run.holder == server or unnamed
        changed = world.run(at, late=run.late or not mine)
        return changed.run(at, state="ended", ends=run.ends + 1) if ends else changed

    def _watch(self, world: World, server: int) -> Iterator[World]:
        """`Worker._beat`: renew, take over from the dead and from strays, end what is forgotten."""
        me = world.servers[server]
        if not me.listed:
            # `Instances.renew` was False: its runs are abandoned, and it enters the list again.
            yield world.server(server, listed=True, epochs=(0,) * len(world.runs))
            return
        for other in SERVERS:
            if other != server and not world.servers[other].alive:
                yield from self._take_over(world, server, other)
        for at, run in enumerate(world.runs):
            if run.state != "running" or run.holder == NOBODY:
                continue
            if run.holder == server:
                # `Claims.end_forgotten`
                if not me.epochs[at] and self.fault != "claims whose answer was lost are left":
                    yield self._lose(world, at, server)
            elif (
                # `Claims.take_over_strays`
                not world.servers[run.holder].listed
                and self.fault != "the runs of servers that nobody lists are left"
            ):
                yield self._lose(world, at, server)
        if world.taking != NOBODY:
            yield self._lose(world._replace(taking=NOBODY), world.taking, server)

    def _take_over(self, world: World, server: int, other: int) -> Iterator[World]:
        """`Claims.take_over`: strike it off and give back its runs, in one transaction."""
        if not world.servers[other].listed:
            return
        taken = world.server(other, listed=False)
        for at, run in enumerate(world.runs):
            if run.state == "running" and run.holder == other:
                if self.fault == "a run is taken over without looking at its state":
                    taken = taken._replace(taking=at)
                else:
                    taken = self._lose(taken, at, server)
        yield taken

    def _lose(self, world: World, at: int, server: int) -> World:
        """`Claims._lose` and `Settlement.requeue`."""
        run = world.runs[at]
        keeps = self.fault == "a run is taken over without a new epoch"
        fenced = world.run(at, epoch=run.epoch + (not keeps), holder=NOBODY, lost=run.lost + 1)
        if run.lost + 1 >= MAX_LOST:
            return fenced.run(at, state="ended", ends=run.ends + 1)
        if self.design == "messages":
            return fenced.run(at, state="queued", job="waiting")
        return fenced.run(at, state="queued").server(server, heard=True)

    # --- what goes wrong ----------------------------------------------------------------------

    def troubles(self, world: World) -> Iterator[World]:
        """What may go wrong next."""
        if not world.troubles:
            return
        world = world.trouble()
        for at, run in enumerate(world.runs):
            if run.job == "leaving":  # who published dies, and another does it again
                forgotten = self.fault == "a job is forgotten before it is published"
                yield world.run(at, job="none" if forgotten else "waiting")
            if self.design == "doorbell" and run.messages:
                yield world.run(at, messages=run.messages - 1)
            if 0 < run.messages < MAX_MESSAGES:
                yield world.run(at, messages=run.messages + 1)
        for server in SERVERS:
            me, [other] = world.servers[server], [each for each in SERVERS if each != server]
            if me.alive:
                yield from self._answer_lost(world, server)
            if me.alive and world.servers[other].alive:
                yield self._die(world, server)
                yield from self._stop(world, server)
                if world.servers[other].listed:
                    # It sleeps past its lease, and wakes at any time after.
                    yield from self._take_over(world, other, server)

    def _answer_lost(self, world: World, server: int) -> Iterator[World]:
        """A commit whose answer never came: the claim is not known, the end is written again."""
        for after in self._claim(world, server):
            for at, run in enumerate(after.runs):
                if run.epoch > world.runs[at].epoch:
                    yield after.works_on(server, at, 0)
        for at, epoch in enumerate(world.servers[server].epochs):
            if epoch:
                yield self._written(world, server, at, ends=True)

    def _die(self, world: World, server: int) -> World:
        for at, kept in enumerate(world.servers[server].unacknowledged):
            run = world.runs[at]  # the broker gives them to another
            world = world.run(at, messages=min(MAX_MESSAGES, run.messages + kept))
        nothing = (0,) * len(world.runs)
        return world.server(
            server, alive=False, epochs=nothing, unacknowledged=nothing, heard=False, saw=NOBODY
        )

    def _stop(self, world: World, server: int) -> Iterator[World]:
        """`Worker.drain`: hand on under the epoch, then leave the list, in good order."""
        me = world.servers[server]
        for at, epoch in enumerate(me.epochs):
            run = world.runs[at]
            if epoch and epoch == run.epoch and run.state == "running":
                job = "waiting" if self.design == "messages" else run.job
                world = world.run(at, state="queued", holder=NOBODY, job=job)
        mine = any(run.state == "running" and run.holder == server for run in world.runs)
        yield self._die(world, server).server(server, listed=mine and me.listed)


def _plus(counts: tuple[int, ...], at: int, more: int) -> tuple[int, ...]:
    return (*counts[:at], min(MAX_MESSAGES, counts[at] + more), *counts[at + 1 :])
