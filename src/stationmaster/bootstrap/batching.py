"""Batches, wired to the gateway that makes their calls."""

from collections.abc import Sequence
from dataclasses import dataclass

from stationmaster.access import standing
from stationmaster.batches import Answer, Batches, Executor, Traffic
from stationmaster.batches.batch import Operation
from stationmaster.batches.courier import GRACE_S, Courier, Pace
from stationmaster.batches.desk import Desk
from stationmaster.batches.executor import LOST
from stationmaster.batches.output import Outputs
from stationmaster.batches.ports import Principals
from stationmaster.batches.submissions import Submissions
from stationmaster.bootstrap.parts import Core
from stationmaster.gateway import Gateway, GatewayCall
from stationmaster.gateway.deferred import Deferred
from stationmaster.http.services import Services
from stationmaster.http.wire import anthropic_errors, openai_errors
from stationmaster.jobs import Lease
from stationmaster.kernel.errors import StationmasterError, Upstream
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.settings import Settings


@dataclass(frozen=True, slots=True)
class GatewayCaller:
    """Makes the calls of batches. Their `Caller`."""

    gateway: Gateway

    async def call(
        self,
        principal: Principal,
        operation: Operation,
        raw: bytes,
        headers: Sequence[tuple[str, str]],
        *,
        call_id: str,
    ) -> Answer:
        """See `Caller`."""
        call = await self.gateway.admit(
            principal, raw, headers, operation=operation, call_id=call_id
        )
        try:
            await call.start()
        except StationmasterError as error:
            if _billed(call):
                raise Upstream(
                    "The model provider's answer was lost on its way; what it used is billed.",
                    code=LOST,
                ) from error
            raise
        finally:
            await call.aclose()
        return Answer(call.status, call.body or b"")

    def error(self, operation: Operation, error: Exception) -> Answer:
        """See `Caller`."""
        if operation != "messages":
            return Answer(openai_errors.meaning(error).status, openai_errors.body(error))
        known = anthropic_errors.meaning(error)
        message = anthropic_errors.message_of(error)
        return Answer(known.status, anthropic_errors.body(known.type, message, None))


def _billed(call: GatewayCall) -> bool:
    return call.entry is not None and call.entry.outcome != "error"


def batches(core: Core, settings: Settings, deferred: Deferred) -> Batches:
    """The verbs on batches."""
    return Batches(
        core.database,
        core.clock,
        core.dispatching.outbox,
        retention=settings.batch_retention,
        sorting=deferred,
    )


def courier(core: Core, settings: Settings, services: Services, deferred: Deferred) -> Courier:
    """What carries batches to providers that take them."""
    poll = settings.batch_poll_interval
    return Courier(
        Submissions(core.database, core.clock, core.instances, core.budgets),
        deferred,
        GatewayCaller(services.gateway),
        principals=_principals(core),
        clock=core.clock,
        lease=Lease(
            core.database,
            core.clock,
            "batches",
            holder=core.instances.id,
            length=settings.lease_time,
        ),
        pace=Pace(poll, min(GRACE_S, 2 * poll)),
    )


def executor(core: Core, settings: Settings, services: Services, traffic: Traffic) -> Executor:
    """What makes the calls of batches. `traffic` observes the gateway."""
    return Executor(
        Desk(core.database, core.clock, core.instances),
        GatewayCaller(services.gateway),
        _principals(core),
        slots=settings.batch_concurrency,
        finish=Outputs(core.database, core.clock, services.batches, core.stored_files).write_due,
        busy=lambda own: traffic.calls - own >= settings.batch_yield_at,
    )


def _principals(core: Core) -> Principals:
    async def principal_of(key_id: str, owner: Owner) -> Principal | None:
        found = await core.database.read(lambda tx: standing.of_id(tx, key_id, owner.project_id))
        if found is None:
            return None
        principal, expires_at = found
        late = expires_at is not None and expires_at <= core.clock.now()
        return None if late or principal.owner != owner else principal

    return principal_of
