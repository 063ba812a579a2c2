"""Settling holds: a batch of calls becomes lines of the ledger, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, select, update

from stationmaster.budgets import alert
from stationmaster.budgets.entry import Charge, LedgerEntry
from stationmaster.budgets.tables import budget_periods, budgets, holds, ledger, ledger_news
from stationmaster.events import EventLog
from stationmaster.kernel.clock import Millis
from stationmaster.storage import Prepared, Transaction, among, given, spread, spread_out
from stationmaster.storage.prepared import Row

_TAKE = Prepared(
    delete(holds)
    .where(among(holds.c.call_id, "calls"))
    .returning(holds.c.call_id, holds.c.amount, holds.c.tokens, holds.c.charges)
)
_given = given("shifts", {"of": str, "since": int, "less_held": int, "more_spent": int})
# In the order of the ids, as everybody locks them: an UPDATE alone would have an order of its own.
_locked = (
    select(budgets.c.id)
    .join_from(budgets, _given, budgets.c.id == _given.c.of)
    .order_by(budgets.c.id)
    .with_for_update(of=budgets)
    .cte("locked")
)
_shift = (
    update(budgets)
    .where(
        budgets.c.id == _locked.c.id,
        budgets.c.id == _given.c.of,
        budgets.c.period_start == _given.c.since,
    )
    .values(
        held=budgets.c.held - _given.c.less_held,
        spent=budgets.c.spent + _given.c.more_spent,
    )
    .returning(budgets.c.id, budgets.c.period_start, budgets.c.spent, budgets.c.alert_at)
)
_SHIFT = Prepared(_shift)
_SHIFT_PAST = Prepared(
    update(budget_periods)
    .where(
        budget_periods.c.budget_id == bindparam("of"),
        budget_periods.c.period_start == bindparam("since"),
    )
    .values(
        held=budget_periods.c.held - bindparam("less_held"),
        spent=budget_periods.c.spent + bindparam("more_spent"),
    )
)
_INSERT = Prepared(insert(ledger))
_INSERT_NEWS = Prepared(insert(ledger_news))
# All three in one, where each costs a trip.
_shifted = _shift.cte("shifted")
_lines = spread(ledger.columns)
_INSERT_AND_SHIFT = Prepared(
    select(_shifted).add_cte(
        insert(ledger).from_select(ledger.columns.keys(), select(_lines)).cte("lines"),
        insert(ledger_news).from_select(["call_id"], select(_lines.c.call_id)).cte("news"),
    )
)


def settle(tx: Transaction, entries: Sequence[LedgerEntry], events: EventLog | None) -> list[bool]:
    """Turn each entry's hold into its line; False where there is no hold (any more)."""
    if not entries:
        return []
    taken = {row[0]: row for row in tx.run(_TAKE, {"calls": [e.context.call_id for e in entries]})}
    settled: list[bool] = []
    lines: list[Row] = []
    shifts: dict[tuple[str, Millis], tuple[int, int]] = {}
    for entry in entries:
        row = taken.pop(entry.context.call_id, None)
        settled.append(row is not None)
        if row is None:
            continue
        _, amount, tokens, charges = row
        for budget_id, start, unit in charges:
            held, spent = (amount, entry.cost) if unit == "usd" else (tokens, entry.tokens)
            less, more = shifts.get((budget_id, start), (0, 0))
            shifts[budget_id, start] = (less + held, more + spent)
        lines.append(_line(entry, charges))
    if lines:
        _write(tx, lines, shifts, events)
    return settled


def _write(
    tx: Transaction,
    lines: Sequence[Row],
    shifts: dict[tuple[str, Millis], tuple[int, int]],
    events: EventLog | None,
) -> None:
    due: list[str] = []
    for budget_id, start, spent, alert_at in _insert_and_shift(tx, lines, shifts):
        del shifts[budget_id, start]
        if alert_at is not None and spent >= alert_at:
            due.append(budget_id)
    if shifts:  # what is left was held in a period that is over, or its budget is gone
        tx.run_many(
            _SHIFT_PAST,
            [
                {"of": budget_id, "since": start, "less_held": less, "more_spent": more}
                for (budget_id, start), (less, more) in sorted(shifts.items())
            ],
        )
    if due:
        alert.tell(tx, events, due)


def _insert_and_shift(
    tx: Transaction,
    lines: Sequence[Row],
    shifts: dict[tuple[str, Millis], tuple[int, int]],
) -> list[Row]:
    """Write the lines; return the budgets that were shifted in their present period."""
    rows = [(*where, *by) for where, by in sorted(shifts.items())]
    if tx.dialect == "postgresql":
        return tx.run(_INSERT_AND_SHIFT, {"shifts": rows, **spread_out(ledger.columns, lines)})
    tx.insert(_INSERT, lines)
    tx.insert(_INSERT_NEWS, [line[:1] for line in lines])  # the call's id
    return tx.run(_SHIFT, {"shifts": rows}) if rows else []


def _line(entry: LedgerEntry, charges: list[Charge]) -> Row:
    """In the order of the table's columns."""
    context, usage = entry.context, entry.usage
    return (
        context.call_id,
        entry.at,
        *context.columns(),
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.cache_read_tokens,
        entry.tokens,
        entry.cost,
        entry.outcome,
        entry.duration_ms,
        charges or None,
    )
