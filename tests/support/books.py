"""Reading a server's SQLite database from outside, and checking that its books agree."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from stationmaster.budgets.entry import Usage as Tokens
from stationmaster.gateway import Catalogue, Pricing
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.money import MicroDollars, to_micros
from tests.support.wire_upstream import Call


def query(data_dir: Path, statement: str, *values: Any) -> list[Any]:
    """Rows of the server's database, read beside it."""
    with closing(sqlite3.connect(data_dir / "stationmaster.db", timeout=10)) as connection:
        return connection.execute(statement, values).fetchall()


def served_cost(calls: list[Call]) -> MicroDollars:
    """What the upstream's own count of tokens costs, each call rounded up once."""
    pricing = Pricing(clock=SystemClock())
    total = 0
    for call in calls:
        usage = Tokens(
            call.usage.input_tokens,
            call.usage.output_tokens,
            call.usage.cache_creation_input_tokens,
            call.usage.cache_read_input_tokens,
        )
        if usage != Tokens():
            model = Catalogue().resolve(call.body["model"])
            total += to_micros(pricing.rates(model).cost(usage))
    return total


def ledger_cost(data_dir: Path) -> tuple[MicroDollars, MicroDollars]:
    """What the ledger bills in all, and the part of it billed as whole holds after a crash."""
    [[total, lost]] = query(
        data_dir,
        "SELECT coalesce(sum(cost), 0),"
        " coalesce(sum(CASE WHEN outcome = 'unknown' THEN cost END), 0) FROM ledger",
    )
    return total, lost


def assert_nothing_open(data_dir: Path) -> None:
    """No hold is left, and no budget has anything held."""
    assert query(data_dir, "SELECT * FROM holds") == []
    assert query(data_dir, "SELECT * FROM budgets WHERE held != 0") == []


def assert_ended_once(data_dir: Path) -> None:
    """Every run has exactly one end in the book, the one in its row, and its stream has no gap."""
    ends = query(
        data_dir,
        "SELECT r.id, r.state, count(e.seq) FROM runs r LEFT JOIN events e"
        " ON e.stream_id = r.session_id AND e.type = 'run.ended'"
        " AND json_extract(e.data, '$.run_id') = r.id GROUP BY r.id, r.state",
    )
    assert ends
    assert [row for row in ends if row[2] != 1] == []
    gaps = query(
        data_dir,
        "SELECT s.id FROM streams s JOIN events e ON e.stream_id = s.id"
        " GROUP BY s.id, s.head"
        " HAVING count(*) != s.head OR min(e.seq) != 1 OR max(e.seq) != s.head",
    )
    assert gaps == []
