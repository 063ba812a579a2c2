"""The tables of identity go away without a trace, and come back."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, make_url

import stationmaster.migrations
from stationmaster.migrations.connection import run as _run
from stationmaster.migrations.tables import metadata

OURS = {
    "audit_chains",
    "audit_checkpoints",
    "audit_entries",
    "audit_keys",
    "oidc_attempts",
    "oidc_identities",
    "refresh_tokens",
    "sign_in_failures",
    "sign_ins",
    "signing_keys",
    "user_passwords",
}


async def test_down_and_up_again(migrated_url: str) -> None:
    def there_and_back(connection: Connection) -> None:
        config = Config()
        place = str(Path(stationmaster.migrations.__file__).parent).replace("%", "%%")
        config.set_main_option("script_location", place)
        config.attributes["connection"] = connection
        assert set(inspect(connection).get_table_names()) >= OURS
        connection.rollback()
        command.downgrade(config, "0005")
        connection.commit()
        assert set(inspect(connection).get_table_names()) & OURS == set()
        connection.rollback()
        command.upgrade(config, "head")
        connection.commit()
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []

    await _run(make_url(migrated_url), there_and_back)
