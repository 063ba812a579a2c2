"""The one job of a server that its supervisor starts anew after it."""

import asyncio
from typing import Protocol

from stationmaster.sessions.runs.claims import Claim


class _Claims(Protocol):
    async def own(self) -> Claim | None: ...

    async def next(self) -> Claim | None: ...


class OneJob:
    """Whether it is taken, and how it went.

        free ──enter──▶ a request is inside ──claim──▶ taken ──the run ends──▶ ended
          ▲ │                │ leave, where it began no run that is still to be had
          │ └────claim───────┼────────────────────────▶
          └──────────────────┘

    A request that is let in reserves the runs that it begins for this server: see `reserving`. So
    two servers do not do each other's jobs, and one that is lost takes one job with it.
    """

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        """The run has ended, or was given up."""
        self.answered = asyncio.Event()
        """No request is inside."""
        self.answered.set()
        self.failed = False
        self._claimed = False
        self._begun = False  # by a request that is answered; its run is not claimed yet
        self._deciding = asyncio.Lock()  # who takes it: a request, or a run that waits already

    @property
    def taken(self) -> bool:
        """Whether no other may begin a job here."""
        return self._claimed or self._begun or not self.answered.is_set()

    @property
    def reserving(self) -> bool:
        """Whether a run that begins now is this server's to carry out."""
        return not (self._claimed or self.answered.is_set())

    async def enter(self) -> bool:
        """Let a request in that may begin a job. False where it is taken; else `leave` after it."""
        async with self._deciding:
            if self.taken:
                return False
            self.answered.clear()
            return True

    def leave(self, *, begun: bool) -> None:
        """The request is answered. `begun`: not with a refusal."""
        self._begun = begun
        self.answered.set()

    async def claim(self, claims: _Claims) -> Claim | None:
        """Claim what is reserved for this server, else, where nothing is inside, what waits."""
        begun = self._begun  # as of now: what it has begun is in the database
        claim = await claims.own()
        if claim is None:
            if begun:  # it was cancelled meanwhile, or another server has it
                self._begun = False
            async with self._deciding:
                claim = None if self.taken else await claims.next()
                self._claimed = claim is not None
        else:
            self._claimed = True
        return claim

    def end(self, *, completed: bool) -> None:
        """The run has ended."""
        self.failed = not completed
        self.ended.set()
