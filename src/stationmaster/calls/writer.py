"""From calls that have ended to rows: off their path, in order, within bounds.

A call is put into a queue and no more is done for it while its client waits. The queue has a bound
in calls and in bytes: what does not fit is dropped and counted. Here a thread takes out what must
not be kept and seals the rest; some rows at a time are written together.

A call that cannot be redacted is not kept. While the database is away they wait, and the queue
fills. When the server stops, what waits is written if the database lets it.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import structlog

from stationmaster.calls.call import Said
from stationmaster.calls.calls import Calls, purpose
from stationmaster.calls.policy import Policy
from stationmaster.kernel.errors import StationmasterError, Unavailable
from stationmaster.kernel.principal import Owner
from stationmaster.storage.sealing import Sealer

log = structlog.get_logger(__name__)

MAX_WAITING = 1_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
AT_ONCE = 32  # calls in one transaction: others wait for it on SQLite
MAX_PARSED = 4 * 1024 * 1024
"""Bytes. A request or answer that is longer is not looked at, and not kept."""
MAX_KEPT = 1024 * 1024
"""Bytes of one request or answer, redacted."""
AGAIN_S = 1.0
READ_S = 5.0
"""How old a project's choice may be that was made on another server."""

Result = Literal["kept", "dropped", "failed"]
Rows = Sequence[dict[str, Any] | None]
Assemble = Callable[[str, bytes], Any]
"""The whole answer that an event stream of an operation told. Raises `ValueError`."""


class Writer:
    """A `CallKeeper`. `run` writes; without it the queue only fills.

    What projects choose is read now and then: who makes one reads it first.
    """

    def __init__(
        self,
        calls: Calls,
        sealer: Sealer,
        *,
        scrub: Callable[[str], str],
        assemble: Assemble,
        counted: Callable[[Result], None],
    ) -> None:
        """`scrub` takes secrets out of a text; `counted` is told what became of each call."""
        self._calls = calls
        self._sealer = sealer
        self._scrub = scrub
        self._assemble = assemble
        self._counted = counted
        self._waiting: deque[Said] = deque()
        self._bytes = 0
        self._came = asyncio.Event()

    def wants(self, owner: Owner, *, of_run: bool) -> bool:
        """See `CallKeeper`."""
        policy = self._calls.enabled.get(owner.project_id)
        return policy is not None and (policy.agent_calls or not of_run)

    def keep(self, said: Said) -> None:
        """See `CallKeeper`. What finds the queue full is dropped."""
        full = len(self._waiting) >= MAX_WAITING
        if full or self._bytes + said.size > MAX_WAITING_BYTES:
            self._counted("dropped")
            return
        self._waiting.append(said)
        self._bytes += said.size
        self._came.set()

    async def run(self) -> None:
        """Write what comes, and read what projects choose. Runs until cancelled."""
        reading = asyncio.create_task(self._keep_reading(), name="call policies")
        try:
            while True:
                await self._came.wait()
                self._came.clear()
                await self._write_all()
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            with contextlib.suppress(Unavailable):
                await self.flush()

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(READ_S)
            with contextlib.suppress(Unavailable):  # what is known stays
                await self._calls.read_policies()

    async def _write_all(self) -> None:
        while self._waiting:
            try:
                await self.flush()
            except Unavailable:
                log.warning("Calls that are to be kept wait for the database.")
                await asyncio.sleep(AGAIN_S)

    async def flush(self) -> int:
        """Write all that waits; return how many were kept. Raises `Unavailable`."""
        kept = 0
        while self._waiting:
            some = [self._waiting[at] for at in range(min(AT_ONCE, len(self._waiting)))]
            rows = await asyncio.to_thread(self._rows, some, dict(self._calls.enabled))
            rows = await self._inserted(rows)
            for said, row in zip(some, rows, strict=True):
                self._waiting.popleft()
                self._bytes -= said.size
                kept += row is not None
                self._counted("failed" if row is None else "kept")
        return kept

    async def _inserted(self, rows: Rows) -> Rows:
        try:
            await self._calls.insert([row for row in rows if row is not None])
        except Unavailable:
            raise
        except StationmasterError as error:  # one that no database takes must not stop the rest
            log.error("Calls cannot be kept.", calls=len(rows), code=error.error_code)
            return [None] * len(rows)
        return rows

    def _rows(self, some: Sequence[Said], enabled: dict[str, Policy]) -> Rows:
        return [self._row(said, enabled.get(said.owner.project_id)) for said in some]

    def _row(self, said: Said, policy: Policy | None) -> dict[str, Any] | None:
        if policy is None:  # switched off since
            return None
        try:
            plain = self._plain(said, policy)
        except Exception:
            # Whatever it is: what could not be looked through whole must not be kept.
            log.exception("A call cannot be kept.", call_id=said.id)
            return None
        return {
            "id": said.id,
            "organization_id": said.owner.organization_id,
            "project_id": said.owner.project_id,
            "key_id": said.key_id,
            "user_id": said.user_id,
            "session_id": said.session_id,
            "run_id": said.run_id,
            "operation": said.operation,
            "provider": said.provider,
            "model": said.model,
            "outcome": said.outcome,
            "created_at": said.at,
            "sealed": self._sealer.seal(plain, purpose=purpose(said.id)),
        }

    def _plain(self, said: Said, policy: Policy) -> bytes:
        # Late: a server that keeps no calls does not load it.
        from stationmaster.calls.redaction import Redaction
        from stationmaster.calls.rules import rules_of

        redaction = Redaction(rules_of(policy), self._scrub)
        kept: dict[str, Any] = {"left_out": {}}
        for name, wanted, raw in (
            ("request", policy.requests, said.request),
            ("answer", policy.answers, said.answer),
        ):
            if not wanted:
                kept["left_out"][name] = "not_wanted"
            elif len(raw) > MAX_PARSED or (name == "answer" and not said.whole):
                kept["left_out"][name] = "too_large"
            else:
                value = self._value(said, name, raw)
                encoded = json.dumps(redaction.value(value), ensure_ascii=False)
                if len(encoded) > MAX_KEPT:
                    kept["left_out"][name] = "too_large"
                else:
                    kept[name] = json.loads(encoded)
        return json.dumps(kept).encode()

    def _value(self, said: Said, name: str, raw: bytes) -> Any:
        if name == "answer" and said.stream:
            return self._assemble(said.operation, raw)
        try:
            value = json.loads(raw) if raw else None
        except ValueError:  # a provider's error page, or an answer that broke off
            return raw.decode(errors="replace")
        if name == "answer" and said.operation == "embeddings":
            return _without_vectors(value)
        return value


def _without_vectors(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        return value
    return {**value, "data": f"[{len(value['data'])} vectors]"}
