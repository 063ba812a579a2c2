"""A database that goes away when told to."""

from collections.abc import Callable
from typing import TypeVar

from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Database, Transaction

T = TypeVar("T")


class FaultyDatabase(Database):
    """Passes everything on to `inner`, except while it is `away`.

    `lose_answers` is how many of the next writes are committed, but their caller hears that the
    outcome is unknown. `failure`, where set, is raised by every write instead.
    """

    def __init__(self, inner: Database) -> None:
        self.dialect = inner.dialect
        self.away = False
        self.lose_answers = 0
        self.failure: Exception | None = None
        self.refused = 0
        self._inner = inner

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """See `Database.read`."""
        self._check()
        return await self._inner.read(query)

    async def write(self, verb: Callable[[Transaction], T]) -> T:
        """See `Database.write`."""
        self._check()
        if self.failure is not None:
            raise self.failure
        result = await self._inner.write(verb)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("The connection was lost.", code="commit_unknown")
        return result

    async def close(self) -> None:
        """The inner one is closed by whoever opened it."""

    def _check(self) -> None:
        if self.away:
            self.refused += 1
            raise Unavailable("The database does not answer.", code="database_unavailable")
