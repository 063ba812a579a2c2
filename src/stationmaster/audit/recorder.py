"""What a verb needs to put itself on record."""

from collections.abc import Mapping
from typing import Any, Protocol

from stationmaster.audit.entry import Actor, Outcome
from stationmaster.storage import Transaction


class Recorder(Protocol):
    """Writes audit entries inside the transaction of what they are about."""

    def record(
        self,
        tx: Transaction,
        actor: Actor,
        action: str,
        *,
        target: str | None = None,
        outcome: Outcome = "success",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an entry to the chain of the actor's organisation. It is there if `tx` commits.

        Call it last: it locks the end of the chain until the commit. `action` is `object.verb`.
        """
        ...


class _Silent:
    def record(
        self,
        tx: Transaction,
        actor: Actor,
        action: str,
        *,
        target: str | None = None,
        outcome: Outcome = "success",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        pass


SILENT: Recorder = _Silent()
"""For a test that looks at something else."""
