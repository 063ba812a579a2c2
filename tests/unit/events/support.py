"""Short ways to a stream."""

from stationmaster.events import Event, EventLog, NewEvent
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database

OWNER = Owner("org_default", "proj_default")


async def make_stream(log: EventLog, database: Database) -> str:
    stream_id = new_id("sesn")
    await database.write(lambda tx: log.create(tx, stream_id, "session", OWNER))
    return stream_id


async def append(
    log: EventLog, database: Database, stream_id: str, *types: str, epoch: int | None = None
) -> list[Event]:
    new = [NewEvent(kind, {"name": kind}) for kind in types]
    return await database.write(lambda tx: log.append(tx, stream_id, new, epoch=epoch))
