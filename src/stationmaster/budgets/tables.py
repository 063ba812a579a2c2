"""Tables of money. All amounts are integer micro-dollars, or tokens where a budget counts those."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    String,
    Table,
    text,
)

from stationmaster.storage.schema import Json, metadata

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
"""What a roll-up sums."""

# The row is the account of the present period; the periods before it are in `budget_periods`.
budgets = Table(
    "budgets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("subject", String(192), nullable=False),  # what a call looks it up by
    Column("subject_kind", String(16), nullable=False),
    Column("subject_id", String(64), nullable=False),
    Column("source", String(16), nullable=False, server_default="server"),  # server | api
    Column("unit", String(8), nullable=False, server_default="usd"),  # usd | tokens
    Column("mode", String(8), nullable=False, server_default="hard"),  # hard | soft | degrade
    Column("period", String(8), nullable=False, server_default="total"),
    Column("time_zone", String(64), nullable=False, server_default="UTC"),
    Column("limit", BigInteger, nullable=False),
    Column("period_start", BigInteger, nullable=False, server_default="0"),
    Column("period_end", BigInteger),  # null for a total
    Column("spent", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("refused_at", BigInteger),  # when a call was last refused for it
    Column("alerts", Json),  # {"percent": […], "remaining": […]}
    Column("alert_at", BigInteger),  # the spending at which the next alert is due
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("held >= 0", name="held_not_negative"),
    Index("ix_budgets_subject", "subject"),
    Index("ix_budgets_organization_id_source_id", "organization_id", "source", "id"),
)

budget_periods = Table(
    "budget_periods",
    metadata,
    Column("budget_id", String(64), primary_key=True),
    Column("period_start", BigInteger, primary_key=True, autoincrement=False),
    Column("spent", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    CheckConstraint("held >= 0", name="held_not_negative"),
)

# What users ask for whose spend limit is used up.
spend_requests = Table(
    "spend_requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("period", String(8), nullable=False),  # day | week | month
    Column("status", String(8), nullable=False),  # pending | approved | denied
    Column("created_at", BigInteger, nullable=False),
    Column("resolved_at", BigInteger),
    Column("resolved_by", String(64)),
    Index("ix_spend_requests_organization_id_id", "organization_id", "id"),
    Index("ix_spend_requests_resolved_at", "resolved_at"),
    Index(
        "uq_spend_requests_user_id_period_pending",
        "user_id",
        "period",
        unique=True,
        sqlite_where=text("status = 'pending'"),
        postgresql_where=text("status = 'pending'"),
    ),
)

holds = Table(
    "holds",
    metadata,
    Column("call_id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("user_id", String(64)),
    Column("run_id", String(64)),
    Column("session_id", String(64)),
    Column("tags", Json),
    Column("provider", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    # The accounts that were raised: one made later must not be lowered when this is settled.
    Column("charges", Json, nullable=False),
    Column("instance_id", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_holds_instance_id", "instance_id"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("call_id", String(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("user_id", String(64)),
    Column("run_id", String(64)),
    Column("session_id", String(64)),
    Column("tags", Json),
    Column("provider", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("cache_write_1h_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    # What budgets of tokens were charged: the four classes, or the hold of a call that was lost.
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    Column("cost", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("charges", Json),  # the accounts that were charged, as in the hold
    Index("ix_ledger_organization_id_at", "organization_id", "at"),
    Index("ix_ledger_project_id_at", "project_id", "at"),
    Index("ix_ledger_run_id", "run_id"),
    Index("ix_ledger_session_id", "session_id"),
)

# Lines of the ledger that no roll-up has in it yet.
ledger_news = Table(
    "ledger_news",
    metadata,
    Column("call_id", String(64), primary_key=True),
)

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),  # its start
    Column("key_id", String(64), primary_key=True),
    Column("user_id", String(64), primary_key=True),  # empty where there is none
    Column("provider", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in TOTALS),
    Index("ix_usage_hours_organization_id_hour", "organization_id", "hour"),
)

usage_tags = Table(
    "usage_tags",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("tag", String(64), primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("organization_id", String(64), nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in TOTALS),
)
