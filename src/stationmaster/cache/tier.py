"""What keeps sealed answers beyond the process: the disk, or Redis."""

from dataclasses import dataclass
from typing import Protocol

from stationmaster.cache.answer import Place
from stationmaster.kernel.clock import Millis


@dataclass(frozen=True, slots=True)
class Size:
    """How much is kept."""

    entries: int = 0
    bytes: int = 0


class Tier(Protocol):
    """Keeps texts, within its bound: what is too much pushes out what was kept the longest.

    No method but `clear` raises because the tier is away: it then has nothing and takes nothing.
    """

    async def get(self, place: Place) -> str | None:
        """What was put there, unless it has expired, was pushed out or is away."""
        ...

    async def put(self, place: Place, text: str, expires_at: Millis) -> None:
        """Keep it, whole or not at all. What was there before is replaced."""
        ...

    async def discard(self, place: Place) -> None:
        """Keep it no longer. Idempotent."""
        ...

    async def clear(self, tenant: str) -> int:
        """Forget all that is a tenant's; how many that were. Raises `Unavailable`."""
        ...

    async def size(self, tenant: str | None = None) -> Size:
        """What is kept of a tenant, or of all."""
        ...
