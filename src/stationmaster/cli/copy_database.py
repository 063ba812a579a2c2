"""`stationmaster copy-database`."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster.cli.printing import print_table, say, warn

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from stationmaster.migrations.copying import Copied, Progress


def copy_database(
    *,
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="The SQLite database: sqlite:///path.")
    ],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TO",
            help="The empty PostgreSQL database: postgresql://user@host/name. Left out, it is"
            " DATABASE_URL, so that no password stands in the command line.",
        ),
    ] = None,
) -> None:
    """Move an installation from SQLite to PostgreSQL. No server may run on either.

    Nothing in FROM is changed. Cut off, it goes on where it was when it is called again. In the end
    every row has been read back and compared. Then set DATABASE_URL, keep SECRET_KEY and the files
    of DATA_DIR, and prove the books with `ledger verify` and `audit verify`.
    """
    copied = asyncio.run(_run(source, target or _configured()))
    print_table(
        ("TABLE", "ROWS", "CHECKSUM"),
        [(each.table, each.rows, each.checksum[:16]) for each in copied],
    )
    say(f"All {sum(each.rows for each in copied):,} rows are there, and the same.")


def _configured() -> str:
    from stationmaster.cli.settings import load

    return load({}).database_url.get_secret_value()


async def _run(source: str, target: str) -> "list[Copied]":
    from stationmaster.kernel.clock import SystemClock
    from stationmaster.migrations.copying import copy_database as copy

    if not sys.stderr.isatty():
        return await copy(source, target, SystemClock(), tell=_Lines())
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True)) as bar:
        return await copy(source, target, SystemClock(), tell=_Bars(bar))


class _Lines:
    """Tells of each table when it is done, for a log."""

    def __call__(self, now: "Progress") -> None:
        if now.rows >= now.total:
            warn(f"{now.step} {now.table}: {now.rows:,} rows")


class _Bars:
    """Shows a bar for each table and step, for a person."""

    def __init__(self, bar: "Bar") -> None:
        self._bar = bar
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __call__(self, now: "Progress") -> None:
        key = (now.step, now.table)
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(f"{now.step} {now.table}", total=now.total or 1)
        self._bar.update(self._tasks[key], completed=now.rows if now.total else 1)
