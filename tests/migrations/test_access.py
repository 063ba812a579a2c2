"""The revision that brings people and bounds keeps the keys that are there, both ways."""

from sqlalchemy import Connection, inspect, make_url, text

from stationmaster.access import Resolver
from stationmaster.access.secret import Hasher
from stationmaster.kernel.clock import ManualClock
from stationmaster.migrations import migrate
from stationmaster.migrations.connection import run
from stationmaster.storage import open_database
from tests.support.schema import move

SECRET = "an-operators-key-0123456789"
HASHER = Hasher(b"a pepper for the tests")


def _fill(connection: Connection) -> None:
    for statement in (
        "INSERT INTO organizations (id, name, created_at) VALUES ('org_default', 'Default', 1)",
        "INSERT INTO projects (id, organization_id, name, created_at)"
        " VALUES ('proj_default', 'org_default', 'default', 1)",
        "INSERT INTO api_keys (id, organization_id, project_id, name, hash, hint, source, scopes,"
        " created_at) VALUES ('key_1', 'org_default', 'proj_default', 'old',"
        f" '{HASHER.digest(SECRET)}', '', 'created', '[\"read:tasks\"]', 1)",
    ):
        connection.execute(text(statement))
    connection.commit()


def _schema(connection: Connection) -> dict[str, set[str]]:
    found = inspect(connection)
    return {
        table: {column["name"] for column in found.get_columns(table)}
        | {str(index["name"]) for index in found.get_indexes(table)}
        for table in found.get_table_names()
    }


async def test_keys_of_before_work_after_and_again_before(database_url: str) -> None:
    url = make_url(database_url)
    await move(database_url, "0004")
    before = await run(url, _schema)
    await run(url, _fill)
    await migrate(database_url)
    database = open_database(database_url)
    try:
        principal = await Resolver(database, HASHER, ManualClock()).resolve(SECRET)
    finally:
        await database.close()
    assert principal.id == "key_1"
    assert principal.scopes == {"read:tasks"}
    assert (principal.limits, principal.models, principal.profile) == (None, None, None)
    await move(database_url, "0004", down=True)
    assert await run(url, _schema) == before

    def kept(connection: Connection) -> object:
        return connection.execute(text("SELECT name FROM api_keys")).scalar()

    assert await run(url, kept) == "old"
