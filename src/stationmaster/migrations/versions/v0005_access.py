"""Tables of access."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ADDED: dict[str, list[tuple[str, Any]]] = {
    "organizations": [
        ("description", sa.Text()),
        ("limits", sa.Text()),
        ("archived_at", sa.BigInteger()),
    ],
    "projects": [
        ("color", sa.String(length=16)),
        ("tags", sa.Text()),
        ("limits", sa.Text()),
        ("archived_at", sa.BigInteger()),
    ],
    "api_keys": [
        ("user_id", sa.String(length=64)),
        ("service_account_id", sa.String(length=64)),
        ("created_by", sa.String(length=64)),
        ("profile", sa.Text()),
        ("limits", sa.Text()),
        ("models", sa.Text()),
        ("addresses", sa.Text()),
        ("disabled_at", sa.BigInteger()),
        ("last_used_at", sa.BigInteger()),
        ("rotates_at", sa.BigInteger()),
        ("successor_id", sa.String(length=64)),
    ],
}
INDEXES = (
    ("projects", "ix_projects_organization_id_id", ["organization_id", "id"]),
    ("api_keys", "ix_api_keys_project_id_id", ["project_id", "id"]),
    ("api_keys", "ix_api_keys_user_id", ["user_id"]),
    ("api_keys", "ix_api_keys_service_account_id", ["service_account_id"]),
    ("api_keys", "ix_api_keys_rotates_at", ["rotates_at"]),
)
MADE = ("invites", "project_members", "service_accounts", "users")


def upgrade() -> None:
    """Make them."""
    for table, columns in ADDED.items():
        for name, kind in columns:
            op.add_column(table, sa.Column(name, kind, nullable=True))
    _flag("projects", "is_default")
    _flag("api_keys", "uncollected")
    op.execute("UPDATE projects SET is_default = true WHERE id = 'proj_default'")
    for table, name, indexed in INDEXES:
        op.create_index(name, table, indexed)
    op.create_index(
        "uq_projects_organization_id_default",
        "projects",
        ["organization_id"],
        unique=True,
        sqlite_where=sa.text("is_default"),
        postgresql_where=sa.text("is_default"),
    )
    _people()
    _invites()


def _flag(table: str, name: str) -> None:
    op.add_column(table, sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))


def _people() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("external_id", sa.String(length=255), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        _of_organization("users"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index("ix_users_organization_id_id", "users", ["organization_id", "id"])
    for name in ("email", "external_id"):
        op.create_index(
            f"uq_users_organization_id_{name}",
            "users",
            ["organization_id", name],
            unique=True,
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        )
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.String(length=64), nullable=True),
        sa.Column("archived_at", sa.BigInteger(), nullable=True),
        sa.Column("archived_by", sa.String(length=64), nullable=True),
        _of_organization("service_accounts"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_accounts")),
    )
    op.create_index(
        "uq_service_accounts_organization_id_name",
        "service_accounts",
        ["organization_id", "name"],
        unique=True,
    )
    op.create_table(
        "project_members",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("member_id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_members_project_id")
        ),
        sa.PrimaryKeyConstraint("project_id", "member_id", name=op.f("pk_project_members")),
    )
    op.create_index("ix_project_members_member_id", "project_members", ["member_id"])


def _invites() -> None:
    op.create_table(
        "invites",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("invited_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("invited_by", sa.String(length=64), nullable=True),
        sa.Column("accepted_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        _of_organization("invites"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invites")),
    )
    op.create_index("ix_invites_organization_id_id", "invites", ["organization_id", "id"])


def _of_organization(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["organization_id"], ["organizations.id"], name=op.f(f"fk_{table}_organization_id")
    )


def downgrade() -> None:
    """Drop them."""
    for table in MADE:
        op.drop_table(table)
    op.drop_index("uq_projects_organization_id_default", "projects")
    for table, name, _ in INDEXES:
        op.drop_index(name, table)
    op.drop_column("api_keys", "uncollected")
    op.drop_column("projects", "is_default")
    for table, columns in ADDED.items():
        for name, _ in columns:
            op.drop_column(table, name)
