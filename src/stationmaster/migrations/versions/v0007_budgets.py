"""Budgets of every level, their periods, and roll-ups of usage."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TOTALS = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "tokens",
    "cost",
)


def _text(name: str, length: int, default: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default=default)


def _totals() -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in TOTALS]


def upgrade() -> None:
    """Widen budgets, holds and the ledger; make what stands beside them."""
    _widen_budgets()
    op.create_table(
        "budget_periods",
        sa.Column("budget_id", sa.String(64), nullable=False),
        sa.Column("period_start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("held >= 0", name=op.f("ck_budget_periods_held_not_negative")),
        sa.PrimaryKeyConstraint("budget_id", "period_start", name=op.f("pk_budget_periods")),
    )
    _widen_holds()
    _widen_ledger()
    op.create_table(
        "ledger_news",
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("call_id", name=op.f("pk_ledger_news")),
    )
    op.execute("INSERT INTO ledger_news (call_id) SELECT call_id FROM ledger")
    _make_roll_ups()


def _widen_budgets() -> None:
    with op.batch_alter_table("budgets") as table:
        table.drop_constraint("uq_budgets_subject_kind_subject_id", type_="unique")
        table.add_column(_text("subject", 192, ""))
        table.add_column(_text("source", 16, "server"))
        table.add_column(_text("unit", 8, "usd"))
        table.add_column(_text("mode", 8, "hard"))
        table.add_column(_text("period", 8, "total"))
        table.add_column(_text("time_zone", 64, "UTC"))
        table.add_column(
            sa.Column("period_start", sa.BigInteger(), nullable=False, server_default="0")
        )
        table.add_column(sa.Column("period_end", sa.BigInteger()))
        table.add_column(sa.Column("alerts", sa.Text()))
        table.add_column(sa.Column("alert_at", sa.BigInteger()))
    op.execute("UPDATE budgets SET subject = subject_kind || ':' || subject_id")
    with op.batch_alter_table("budgets") as table:
        table.alter_column("subject", existing_type=sa.String(192), server_default=None)
    op.create_index("ix_budgets_subject", "budgets", ["subject"])
    op.create_index(
        "ix_budgets_organization_id_source_id", "budgets", ["organization_id", "source", "id"]
    )


def _widen_holds() -> None:
    op.add_column("holds", sa.Column("user_id", sa.String(64)))
    op.add_column("holds", sa.Column("tags", sa.Text()))
    op.add_column("holds", sa.Column("tokens", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("holds", sa.Column("charges", sa.Text()))
    connection = op.get_bind()
    for call_id, budget_ids in connection.execute(
        sa.text("SELECT call_id, budget_ids FROM holds")
    ).all():
        charges = [[budget_id, 0, "usd"] for budget_id in json.loads(budget_ids)]
        connection.execute(
            sa.text("UPDATE holds SET charges = :charges WHERE call_id = :call_id"),
            {"charges": json.dumps(charges), "call_id": call_id},
        )
    with op.batch_alter_table("holds") as table:
        table.drop_column("budget_ids")
        table.alter_column("charges", existing_type=sa.Text(), nullable=False)


def _widen_ledger() -> None:
    op.add_column("ledger", sa.Column("user_id", sa.String(64)))
    op.add_column("ledger", sa.Column("tags", sa.Text()))
    op.add_column(
        "ledger", sa.Column("tokens", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("ledger", sa.Column("charges", sa.Text()))
    # Until now only runs had a budget, one each, from before their first call.
    op.execute(
        "UPDATE ledger SET tokens ="
        " input_tokens + output_tokens + cache_write_tokens + cache_read_tokens,"
        " charges = (SELECT '[[\"' || b.id || '\",0,\"usd\"]]' FROM budgets b"
        " WHERE b.subject = 'run:' || ledger.run_id)"
    )
    op.create_index("ix_ledger_organization_id_at", "ledger", ["organization_id", "at"])
    op.create_index("ix_ledger_session_id", "ledger", ["session_id"])


def _make_roll_ups() -> None:
    op.create_table(
        "usage_hours",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("organization_id", sa.String(64), nullable=False),
        *_totals(),
        sa.PrimaryKeyConstraint(
            "project_id",
            "hour",
            "key_id",
            "user_id",
            "provider",
            "model",
            name=op.f("pk_usage_hours"),
        ),
    )
    op.create_index(
        "ix_usage_hours_organization_id_hour", "usage_hours", ["organization_id", "hour"]
    )
    op.create_table(
        "usage_tags",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("tag", sa.String(64), nullable=False),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("organization_id", sa.String(64), nullable=False),
        *_totals(),
        sa.PrimaryKeyConstraint("project_id", "tag", "hour", name=op.f("pk_usage_tags")),
    )


def downgrade() -> None:
    """Back to one budget for each run; the others are dropped, and so are the roll-ups."""
    op.drop_table("usage_tags")
    op.drop_index("ix_usage_hours_organization_id_hour", table_name="usage_hours")
    op.drop_table("usage_hours")
    op.drop_table("ledger_news")
    op.drop_index("ix_ledger_session_id", table_name="ledger")
    op.drop_index("ix_ledger_organization_id_at", table_name="ledger")
    with op.batch_alter_table("ledger") as table:
        for name in ("charges", "tokens", "tags", "user_id"):
            table.drop_column(name)
    # What the older version can hold is one budget of dollars in total for each subject.
    op.execute("DELETE FROM budgets WHERE source <> 'server' OR unit <> 'usd' OR period <> 'total'")
    _narrow_holds()
    op.drop_table("budget_periods")
    op.drop_index("ix_budgets_organization_id_source_id", table_name="budgets")
    op.drop_index("ix_budgets_subject", table_name="budgets")
    with op.batch_alter_table("budgets") as table:
        for name in (
            "alert_at",
            "alerts",
            "period_end",
            "period_start",
            "time_zone",
            "period",
            "mode",
            "unit",
            "source",
            "subject",
        ):
            table.drop_column(name)
        table.create_unique_constraint(
            "uq_budgets_subject_kind_subject_id", ["subject_kind", "subject_id"]
        )


def _narrow_holds() -> None:
    op.add_column("holds", sa.Column("budget_ids", sa.Text()))
    connection = op.get_bind()
    kept = set(connection.execute(sa.text("SELECT id FROM budgets")).scalars())
    for call_id, charges in connection.execute(sa.text("SELECT call_id, charges FROM holds")).all():
        ids = [charge[0] for charge in json.loads(charges) if charge[0] in kept]
        connection.execute(
            sa.text("UPDATE holds SET budget_ids = :ids WHERE call_id = :call_id"),
            {"ids": json.dumps(ids), "call_id": call_id},
        )
    with op.batch_alter_table("holds") as table:
        for name in ("charges", "tokens", "tags", "user_id"):
            table.drop_column(name)
        table.alter_column("budget_ids", existing_type=sa.Text(), nullable=False)
