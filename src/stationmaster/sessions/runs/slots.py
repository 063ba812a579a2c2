"""Which of a worker's runs are at work, and which wait for somebody meanwhile.

    take ──▶ at work ──lent──▶ waiting ──answered──▶ coming back ──▶ at work …
                └─────────────────┴────────end────────────┘

One that waits takes memory for its agent's process, and nothing else from the others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Slots:
    """`most` runs at work at once, and up to `most_waiting` more that wait for somebody.

    A run beyond those keeps its slot while it waits. Whoever comes back is served before a new run.
    """

    def __init__(
        self, most: int, *, most_waiting: int = 0, freed: Callable[[], None] = lambda: None
    ) -> None:
        """`freed` is called when a new run may be taken."""
        self.most = most
        self._most_waiting = most_waiting
        self._freed = freed
        self._working: set[Slot] = set()
        self._waiting: set[Slot] = set()
        self._coming: list[Slot] = []  # those of the waiting that want to go on

    @property
    def working(self) -> int:
        """How many runs are at work."""
        return len(self._working)

    @property
    def waiting(self) -> int:
        """How many have lent their slot."""
        return len(self._waiting)

    @property
    def free(self) -> bool:
        """Whether a new run may be taken. Whoever comes back has had the slot before that."""
        return self.working < self.most

    def take(self) -> "Slot":
        """For a new run. Look at `free` before."""
        slot = Slot(self)
        self._working.add(slot)
        slot.at_work.set()
        return slot

    def end(self, slot: "Slot") -> None:
        """Its run is over. Idempotent."""
        self._leave(slot)
        slot.at_work.set()  # nobody waits for good
        self._pass_on()

    def lend(self, slot: "Slot") -> None:
        """Its run waits from now on, if so many may."""
        if slot in self._working and self.waiting < self._most_waiting:
            self._leave(slot)
            self._waiting.add(slot)
            slot.at_work.clear()
            self._pass_on()

    def come_back(self, slot: "Slot", *, at_once: bool = False) -> None:
        """Its run wants to go on: in its turn, or `at_once` with more at work than may be."""
        if slot not in self._waiting:
            return
        if at_once:
            self._admit(slot)
        elif slot not in self._coming:
            self._coming.append(slot)
            self._pass_on()

    def _admit(self, slot: "Slot") -> None:
        self._leave(slot)
        self._working.add(slot)
        slot.at_work.set()

    def _leave(self, slot: "Slot") -> None:
        self._working.discard(slot)
        self._waiting.discard(slot)
        if slot in self._coming:
            self._coming.remove(slot)

    def _pass_on(self) -> None:
        while self._coming and self.working < self.most:
            self._admit(self._coming[0])
        if self.free:
            self._freed()


class Slot:
    """One run's. A run waits as long as somebody is waited for, whatever else goes on in it."""

    def __init__(self, slots: Slots) -> None:
        self.at_work = asyncio.Event()
        self._slots = slots
        self._waiters = 0

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Somebody is waited for within; at its end the run's turn to go on has come.

        Where the block is left by an exception, nobody waits: the turn may be over, or go on.
        """
        self._waiters += 1
        self._slots.lend(self)
        waits = True
        try:
            yield
            self._waiters -= 1
            waits = False
            if not self._waiters:
                self._slots.come_back(self)
                await self.at_work.wait()
        except BaseException:
            self._waiters -= waits
            if not self._waiters:
                self._slots.come_back(self, at_once=True)
            raise

    def end(self) -> None:
        """The run is over. Idempotent."""
        self._slots.end(self)
