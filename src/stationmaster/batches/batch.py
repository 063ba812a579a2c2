"""What a batch is, and what is in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.principal import Owner

Operation = Literal["messages", "chat", "embeddings", "responses"]
"""The wire format of a batch's requests, as providers name them."""

BatchState = Literal["entering", "in_progress", "canceling", "ended"]
Outcome = Literal["succeeded", "errored", "canceled", "expired"]

SubmissionState = Literal["preparing", "submitting", "in_progress", "ended"]
"""
preparing ──▶ submitting ──▶ in_progress ──▶ ended
    │              │  it did not arrive          ▲
    └──────────────┴─────────────────────────────┘  its requests wait again

`submitting` is committed before anything is sent: from then on the provider may have it.
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How a batch's requests stand. Together they are all of it."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch. Its results are there from `ended_at` until `archived_at`.

    `details` are what its vendor's API says of it besides, `output` its files once they are made.
    """

    id: str
    owner: Owner
    key_id: str
    operation: Operation
    state: BatchState
    counts: Counts
    created_at: Millis
    expires_at: Millis
    cancel_at: Millis | None
    ended_at: Millis | None
    archived_at: Millis | None
    details: Mapping[str, Any]
    output: "Output | None"


@dataclass(frozen=True, slots=True)
class Output:
    """The files with what came of a batch: of answers, and of errors. None where there are none."""

    file_id: str | None
    error_file_id: str | None


@dataclass(frozen=True, slots=True)
class NewRequest:
    """One of the requests of a batch to be. `body` is JSON, as the gateway takes it."""

    custom_id: str
    body: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a submission is: some of a batch's requests in a batch of their provider's own.

    `counts` are its requests by state, as the provider last said; None before it said anything.
    `note` says what is wrong, where something is; `next_at` is when it is looked at again.
    """

    id: str
    provider: str
    model: str
    state: SubmissionState
    requests: int
    counts: Mapping[str, int] | None
    upstream_id: str | None
    sent_at: Millis | None
    next_at: Millis | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """How one request ended. `reply` is JSON: an answer, or an error of the wire format.

    A request that was never made has neither `status` nor `reply`.
    """

    number: int
    custom_id: str
    outcome: Outcome
    status: int | None
    reply: str | None


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that this server makes now. `attempt` counts from 1."""

    batch_id: str
    number: int
    owner: Owner
    key_id: str
    operation: Operation
    headers: tuple[tuple[str, str], ...]
    body: str
    attempt: int

    @property
    def call_id(self) -> str:
        """Under which the ledger has this attempt: `BATCH:NUMBER:ATTEMPT`."""
        return f"{self.batch_id}:{self.number}:{self.attempt}"
