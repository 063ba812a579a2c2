"""What a submission is, what is in it, and its row."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, select

from stationmaster.batches.batch import BatchState, Operation, Outcome, SubmissionState
from stationmaster.batches.tables import batch_submissions, batches
from stationmaster.budgets.entry import LedgerEntry
from stationmaster.gateway.deferred import Destination
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.principal import Owner


@dataclass(frozen=True, slots=True)
class Of:
    """The batch that a submission is of, as it stands now."""

    owner: Owner
    key_id: str
    operation: Operation
    headers: tuple[tuple[str, str], ...]
    state: BatchState
    expires_at: Millis


@dataclass(frozen=True, slots=True)
class Submission:
    """See `tables.batch_submissions`. `of` is None where the batch has been deleted since."""

    id: str
    batch_id: str
    of: Of | None
    to: Destination
    state: SubmissionState
    size: int
    instance_id: str
    upstream_id: str | None
    sent_at: Millis | None
    created_at: Millis
    failures: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request of a submission that has not ended."""

    number: int
    custom_id: str
    body: str
    attempt: int

    def call_id(self, submission: Submission) -> str:
        """Under which it is held for, as `Taken.call_id`."""
        return f"{submission.batch_id}:{self.number}:{self.attempt}"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended. `entry` settles its hold; None where it has none."""

    number: int
    outcome: Outcome
    status: int | None = None
    reply: str | None = None
    entry: LedgerEntry | None = None


def joined() -> Any:
    """The query for submissions with the batches that they are of."""
    mine, batch = batch_submissions, batches
    return select(
        mine,
        batch.c.organization_id,
        batch.c.project_id,
        batch.c.key_id,
        batch.c.operation,
        batch.c.headers,
        batch.c.state.label("batch_state"),
        batch.c.expires_at,
    ).join_from(mine, batch, batch.c.id == mine.c.batch_id, isouter=True)


def submission_of(row: Row[Any]) -> Submission:
    """A submission from its row in that."""
    of = None
    if row.batch_state is not None:
        of = Of(
            owner=Owner(row.organization_id, row.project_id),
            key_id=row.key_id,
            operation=row.operation,
            headers=tuple((name, value) for name, value in row.headers),
            state=row.batch_state,
            expires_at=row.expires_at,
        )
    return Submission(
        id=row.id,
        batch_id=row.batch_id,
        of=of,
        to=Destination(row.provider, row.model, row.prices, Decimal(row.share)),
        state=row.state,
        size=row.size,
        instance_id=row.instance_id,
        upstream_id=row.upstream_id,
        sent_at=row.sent_at,
        created_at=row.created_at,
        failures=row.failures,
    )
