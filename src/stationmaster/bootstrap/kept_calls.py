"""Calls that projects keep: the verbs on them, and what takes them down."""

from dataclasses import dataclass

from stationmaster.bootstrap.parts import Core
from stationmaster.calls import Calls, Writer
from stationmaster.telemetry import Redactor


@dataclass(frozen=True, slots=True)
class KeptCalls:
    """What the rest of the server is given."""

    calls: Calls
    writer: Writer


async def kept_calls(core: Core, redactor: Redactor) -> KeptCalls:
    """Know which projects keep their calls, before the first one comes. Raises `Unavailable`."""
    calls = Calls(core.database, core.clock, core.record.sealer, recorder=core.record.audit)
    writer = Writer(
        calls,
        core.record.sealer,
        scrub=redactor.scrub,
        assemble=_assembled,
        counted=core.metrics.call_kept,
    )
    await calls.read_policies()
    return KeptCalls(calls, writer)


def _assembled(operation: str, raw: bytes) -> object:
    # Late: a server that keeps no calls does not load it.
    from stationmaster.gateway.assembly import assembled

    return assembled(operation, raw)
