"""PostgreSQL over TLS, by libpq's own words in the URL, and what is said where that fails."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sqlalchemy import make_url, text

from stationmaster.kernel.errors import StationmasterError
from stationmaster.migrations import migrate
from stationmaster.storage import open_database, survey
from stationmaster.storage.database import Transaction
from tests.support.certificates import authority, server_context
from tests.support.postgres import PostgresServer


class Speaking:
    """A server that speaks TLS as a test has it."""

    def __init__(self, server: PostgresServer, url: str, directory: Path) -> None:
        self.server = server
        self._url = make_url(url)
        self._directory = directory

    def url(self, host: str = "localhost", /, **options: object) -> str:
        base = self._url.set(host=host).render_as_string(hide_password=False)
        return f"{base}?{urlencode(options)}"

    def certified(self, name: str, *, called: str = "localhost", days: int = 1) -> Path:
        """A certificate of its own, in files."""
        place = self._directory / name
        place.mkdir()
        server_context(place, called, days=days)
        return place

    async def told(self, url: str) -> str:
        """What an operator is told of this URL; nothing where it will do."""
        try:
            await survey(url)
        except StationmasterError as error:
            said = error.message
        else:
            said = ""
        assert str(self._url.password) not in said
        return said


@pytest.fixture
def speaking(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> Iterator[Speaking]:
    yield Speaking(postgres_server, postgres_url, tmp_path)
    postgres_server.speak_tls(None)


async def test_a_server_that_is_who_it_says(speaking: Speaking) -> None:
    ours = speaking.certified("ours")
    speaking.server.speak_tls(ours)
    url = speaking.url(sslmode="verify-full", sslrootcert=authority(ours))
    assert await speaking.told(url) == ""
    await migrate(url)
    database = open_database(url)

    def encrypted(tx: Transaction) -> bool:
        found = tx.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        return bool(found.scalar_one())

    assert await database.read(encrypted)
    await database.close()
    # The name is not looked at, and the address is as good.
    named = speaking.url("127.0.0.1", sslmode="verify-ca", sslrootcert=authority(ours))
    assert await speaking.told(named) == ""
    assert await speaking.told(speaking.url(sslmode="require")) == ""


async def test_one_that_is_not_or_cannot_show_it(speaking: Speaking) -> None:
    ours, theirs = speaking.certified("ours"), speaking.certified("theirs")
    missing, secret = ours / "none.pem", ours / "key.pem"
    known = {"sslmode": "verify-full", "sslrootcert": authority(ours)}
    speaking.server.speak_tls(ours)
    for url, words in (
        (speaking.url(sslmode="verify-full", sslrootcert=authority(theirs)),
         "is not trusted. Name its authority .*sslrootcert="),
        (speaking.url(sslmode="verify-full"), "must be known.*sslrootcert=/path"),
        (speaking.url("127.0.0.1", **known), "is for another name. Name the host"),
        (speaking.url(sslmode="verify-full", sslrootcert=missing), "sslrootcert names .*be read"),
        (speaking.url(**known, sslcert=missing), "sslcert names .* cannot be read"),
        (speaking.url(sslmode="verify-full", sslrootcert=secret), "the files that DATABASE_URL"),
    ):  # fmt: skip
        told = await speaking.told(url)
        assert re.search(words, told), (url, told)


async def test_a_certificate_that_has_expired(speaking: Speaking) -> None:
    old = speaking.certified("old", days=-1)
    speaking.server.speak_tls(old)
    told = await speaking.told(speaking.url(sslmode="verify-full", sslrootcert=authority(old)))
    assert "has expired. Replace it." in told


async def test_a_server_that_speaks_none(speaking: Speaking) -> None:
    ours = speaking.certified("ours")
    told = await speaking.told(speaking.url(sslmode="verify-full", sslrootcert=authority(ours)))
    assert "does it speak TLS if sslmode asks for it?" in told


async def test_a_client_may_show_a_certificate_too(speaking: Speaking) -> None:
    ours = speaking.certified("ours", called="localhost")
    speaking.server.speak_tls(ours)
    rules = speaking.server.rules
    kept = rules.read_text()
    rules.write_text("hostssl all all all password clientcert=verify-ca\n")
    try:
        speaking.server.speak_tls(ours)  # which has it read its rules
        known = {"sslmode": "verify-full", "sslrootcert": authority(ours)}
        assert "pg_hba.conf" in await speaking.told(speaking.url(**known))
        shown = {"sslcert": authority(ours), "sslkey": ours / "key.pem"}
        assert await speaking.told(speaking.url(**known, **shown)) == ""
    finally:
        rules.write_text(kept)
