"""What came of a batch, as files: for the API that has them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from tempfile import TemporaryFile
from typing import BinaryIO

import msgspec
import structlog
from sqlalchemy import select, update

from stationmaster.batches.batch import Batch, Item
from stationmaster.batches.batches import Batches, batch_of
from stationmaster.batches.tables import batches as table
from stationmaster.files import Files
from stationmaster.files.files import NewFile
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import StationmasterError
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

AGAIN_S = 60.0  # where the files found no room
PURPOSE = "batch_output"
_NEVER = {
    "canceled": {"code": "batch_cancelled", "message": "The batch was cancelled before."},
    "expired": {"code": "batch_expired", "message": "The batch expired before."},
}


class Outputs:
    """Writes the files of batches that have ended."""

    def __init__(self, database: Database, clock: Clock, batches: Batches, files: Files) -> None:
        self._database = database
        self._clock = clock
        self._batches = batches
        self._files = files
        self._not_before: dict[str, float] = {}

    async def write_due(self) -> None:
        """Write what is missing. Idempotent; one that finds no room is tried again later."""
        missing = select(table).where(
            table.c.state == "ended",
            table.c.operation != "messages",
            table.c.output_at.is_(None),
            table.c.archived_at.is_(None),
        )
        rows = await self._database.read(lambda tx: tx.execute(missing).all())
        now = asyncio.get_running_loop().time()
        self._not_before = {of: at for of, at in self._not_before.items() if at > now}
        for row in rows:
            if row.id in self._not_before:
                continue
            try:
                await self._write(batch_of(row))
            except StationmasterError as error:
                self._not_before[row.id] = now + AGAIN_S
                log.warning(
                    "The files of a batch could not be written.",
                    batch_id=row.id,
                    code=error.error_code,
                )

    async def _write(self, batch: Batch) -> None:
        # On behalf of whoever made the batch, and also once his key has ended.
        writer = Principal(
            "key", batch.key_id, batch.owner, batch.key_id, frozenset({"write:files"})
        )
        with TemporaryFile() as good, TemporaryFile() as bad:
            await _sort(self._batches.items(batch.id), good, bad)
            made = [
                await self._upload(writer, file, f"{batch.id}_{name}.jsonl")
                for name, file in (("output", good), ("error", bad))
            ]

        def verb(tx: Transaction) -> int:
            return int(
                tx.execute(
                    update(table)
                    .where(table.c.id == batch.id, table.c.output_at.is_(None))
                    .values(
                        output_file_id=made[0],
                        error_file_id=made[1],
                        output_at=self._clock.now(),
                    )
                ).rowcount
            )

        if not await self._database.write(verb):  # another server was faster
            for file_id in made:
                if file_id is not None:
                    await self._files.delete(writer, file_id)

    async def _upload(self, writer: Principal, content: BinaryIO, name: str) -> str | None:
        if not content.tell():
            return None
        content.seek(0)
        file = NewFile(name, "application/jsonl", content, purpose=PURPOSE)
        return (await self._files.upload(writer, file)).id


async def _sort(pages: AsyncIterator[Sequence[Item]], good: BinaryIO, bad: BinaryIO) -> None:
    async for page in pages:
        for item in page:
            (good if item.outcome == "succeeded" else bad).write(_line(item))


def _line(item: Item) -> bytes:
    response = None
    if item.reply is not None:
        response = {
            "status_code": item.status,
            "request_id": f"batch_req_{item.number}",
            "body": msgspec.Raw(item.reply.encode()),
        }
    return (
        msgspec.json.encode(
            {
                "id": f"batch_req_{item.number}",
                "custom_id": item.custom_id,
                "response": response,
                "error": _NEVER.get(item.outcome),
            }
        )
        + b"\n"
    )
