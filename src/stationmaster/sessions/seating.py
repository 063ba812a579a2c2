"""What the verbs on sessions want of who seats their agents."""

from typing import Protocol

from stationmaster.sessions.session import Session


class Seating(Protocol):
    """Where the agents of sessions sit, on this server: see `Seats`."""

    def expect(self, session: Session) -> None:
        """The session will soon have its first turn. Never blocks."""
        ...

    async def let_go(self, session_id: str) -> None:
        """The session has no more turns."""
        ...
