"""Tables of access."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    false,
    text,
)

from stationmaster.storage.schema import Json, metadata

organizations = Table(
    "organizations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("description", Text),
    Column("limits", Json),  # see `Limits`
    Column("archived_at", BigInteger),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("is_default", Boolean, nullable=False, server_default=false()),
    Column("color", String(16)),
    Column("tags", Json),
    Column("limits", Json),
    Column("archived_at", BigInteger),
    Index("ix_projects_organization_id_id", "organization_id", "id"),
    Index(
        "uq_projects_organization_id_default",
        "organization_id",
        unique=True,
        sqlite_where=text("is_default"),
        postgresql_where=text("is_default"),
    ),
)

users = Table(
    "users",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False),
    Column("email", String(320)),  # in lower case
    Column("external_id", String(255)),  # what a client of ours calls its own user
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),  # owner | admin | member | viewer
    Column("status", String(16), nullable=False),  # active | disabled
    Column("created_at", BigInteger, nullable=False),
    Column("removed_at", BigInteger),
    Index("ix_users_organization_id_id", "organization_id", "id"),
    Index(
        "uq_users_organization_id_email",
        "organization_id",
        "email",
        unique=True,
        sqlite_where=text("removed_at IS NULL"),
        postgresql_where=text("removed_at IS NULL"),
    ),
    Index(
        "uq_users_organization_id_external_id",
        "organization_id",
        "external_id",
        unique=True,
        sqlite_where=text("removed_at IS NULL"),
        postgresql_where=text("removed_at IS NULL"),
    ),
)

service_accounts = Table(
    "service_accounts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("role", String(16), nullable=False),  # admin | member
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(64)),
    Column("updated_at", BigInteger, nullable=False),
    Column("updated_by", String(64)),
    Column("archived_at", BigInteger),
    Column("archived_by", String(64)),
    Index("uq_service_accounts_organization_id_name", "organization_id", "name", unique=True),
)

project_members = Table(
    "project_members",
    metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("member_id", String(64), primary_key=True),  # a user or a service account
    Column("organization_id", String(64), nullable=False),
    Column("role", String(16), nullable=False),  # admin | member | viewer
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(64)),
    Index("ix_project_members_member_id", "member_id"),
)

invites = Table(
    "invites",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False),
    Column("email", String(320), nullable=False),
    Column("role", String(16), nullable=False),
    Column("invited_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("invited_by", String(64)),
    Column("accepted_at", BigInteger),
    Column("deleted_at", BigInteger),
    Index("ix_invites_organization_id_id", "organization_id", "id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    # HMAC-SHA256 of the key under the server's secret: a stolen table opens nothing.
    Column("hash", String(64), nullable=False, unique=True),
    Column("hint", String(32), nullable=False),  # its last four characters
    Column("source", String(16), nullable=False),  # created | environment
    Column("scopes", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    # Whose it is. Its rights are then never more than theirs.
    Column("user_id", String(64)),
    Column("service_account_id", String(64)),
    Column("created_by", String(64)),  # the key, user or run that asked for it
    Column("profile", Json),  # see `profiles.py`
    Column("limits", Json),
    Column("models", Json),
    Column("addresses", Json),
    Column("disabled_at", BigInteger),  # like revoked, but may be enabled again
    Column("last_used_at", BigInteger),  # to the minute or so
    # When a successor is made by itself; None is never.
    Column("rotates_at", BigInteger),
    Column("successor_id", String(64)),
    # Nobody has been given the secret yet: `hash` is of one that is thrown away.
    Column("uncollected", Boolean, nullable=False, server_default=false()),
    # The self-hosted environment whose workers it is for; it is then good for nothing else.
    Column("environment_id", String(64)),
    Index("ix_api_keys_organization_id_id", "organization_id", "id"),
    Index("ix_api_keys_project_id_id", "project_id", "id"),
    Index("ix_api_keys_user_id", "user_id"),
    Index("ix_api_keys_service_account_id", "service_account_id"),
    Index("ix_api_keys_rotates_at", "rotates_at"),
)

run_tokens = Table(
    "run_tokens",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    # Empty until a run claims the token; emptied of rights again by `revoked_at`.
    Column("run_id", String(64)),
    Column("session_id", String(64)),
    Column("organization_id", String(64)),
    Column("project_id", String(64)),
    Column("key_id", String(64)),
    # The server that issued it, which alone uses it. Empty: of a version that did not say.
    Column("instance_id", String(64)),
    Column("revoked_at", BigInteger),
    # Of a piece of work's secret, which has these in place of a run.
    Column("environment_id", String(64)),
    Column("work_id", String(64)),
    Column("expires_at", BigInteger),
    Index("ix_run_tokens_run_id", "run_id"),
    Index("ix_run_tokens_revoked_at", "revoked_at"),
    Index("ix_run_tokens_work_id", "work_id"),
)

# Good once, for opening one socket as whoever asked for it.
socket_tickets = Table(
    "socket_tickets",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("credential", String(64), nullable=False),  # the hash of the key or access token
    Column("claims", Json),  # of an access token: whose, and until when
    Column("address", String(64)),  # where the socket must come from; None is anywhere
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_socket_tickets_expires_at", "expires_at"),
)

# --- how users sign in ------------------------------------------------------------------------

user_passwords = Table(
    "user_passwords",
    metadata,
    Column("user_id", String(64), primary_key=True),
    Column("hash", Text, nullable=False),  # argon2id, with its parameters and salt
    Column("changed_at", BigInteger, nullable=False),
)

# By a keyed hash of the name that was tried: names that nobody has are counted too.
sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    Column("subject", String(64), primary_key=True),
    Column("failures", BigInteger, nullable=False),
    Column("failed_at", BigInteger, nullable=False),
    Column("locked_until", BigInteger, nullable=False),
    Index("ix_sign_in_failures_failed_at", "failed_at"),
)

# One row for each time that somebody signed in: the family of its refresh tokens.
sign_ins = Table(
    "sign_ins",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user_id", String(64), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("method", String(16), nullable=False),  # password | oidc
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("ended_because", String(32)),  # signed_out | reuse | password_changed
    Index("ix_sign_ins_user_id", "user_id"),
    Index("ix_sign_ins_expires_at", "expires_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("sign_in_id", ForeignKey("sign_ins.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Index("ix_refresh_tokens_sign_in_id", "sign_in_id"),
    Index("ix_refresh_tokens_expires_at", "expires_at"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", String(64), primary_key=True),  # the `kid`
    Column("public", Text, nullable=False),  # PEM
    Column("sealed", Text, nullable=False),  # the private key
    Column("created_at", BigInteger, nullable=False),
)

# Sign-ins at an identity provider that have been begun. Each is taken once.
oidc_attempts = Table(
    "oidc_attempts",
    metadata,
    Column("state", String(64), primary_key=True),  # hashed
    Column("browser", String(64), nullable=False),  # hashed: the cookie of who began it
    Column("sealed", Text, nullable=False),  # the nonce and the PKCE verifier
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_oidc_attempts_expires_at", "expires_at"),
)

oidc_identities = Table(
    "oidc_identities",
    metadata,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_oidc_identities_user_id", "user_id"),
)
