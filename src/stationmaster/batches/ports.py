"""What batches need of the rest of the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stationmaster.batches.batch import Operation
from stationmaster.kernel.principal import Owner, Principal


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered, errors of the provider included."""

    status: int
    body: bytes


class Caller(Protocol):
    """Makes calls. The gateway is behind it."""

    async def call(
        self,
        principal: Principal,
        operation: Operation,
        raw: bytes,
        headers: Sequence[tuple[str, str]],
        *,
        call_id: str,
    ) -> Answer:
        """Make one call and settle it, also where the caller is cancelled.

        The ledger has it under `call_id`, which never comes twice.

        Raises what the gateway does. Where something was billed and no answer came, that is an
        `Upstream` with the code `answer_lost`: to call again would be billed again.
        """
        ...

    def error(self, operation: Operation, error: Exception) -> Answer:
        """What an error is in the wire format."""
        ...


class Principals(Protocol):
    """Knows what a credential may do now."""

    async def __call__(self, key_id: str, owner: Owner) -> Principal | None:
        """The principal; None where the credential is no longer valid."""
        ...
