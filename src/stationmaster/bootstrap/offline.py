"""Parts without a server, for commands that work on the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stationmaster.access.jwt_keys import SigningKeys
from stationmaster.audit import Chains, Keyring
from stationmaster.bootstrap.identity import MINUTE_S, sealer_of
from stationmaster.calls import Calls
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.errors import Conflict
from stationmaster.migrations import HEAD, current
from stationmaster.responses import Responses
from stationmaster.settings import Settings, load_secret_key
from stationmaster.storage import open_database


@dataclass(frozen=True, slots=True)
class Vault:
    """What is sealed, and what is chained."""

    chains: Chains
    keyring: Keyring
    signing_keys: SigningKeys
    responses: Responses
    calls: Calls

    async def reseal(self) -> int:
        """Seal with the present key what an older one sealed; return how many values."""
        return (
            await self.keyring.reseal()
            + await self.signing_keys.reseal()
            + await self.responses.reseal()
            + await self.calls.reseal()
        )


@asynccontextmanager
async def vault(settings: Settings) -> AsyncIterator[Vault]:
    """Open the database as it is. Servers may be at work on it.

    Raises `Unavailable`, and `Conflict` where its schema is not this version's.
    """
    url = settings.database_url.get_secret_value()
    found = await current(url)
    if found != HEAD:
        raise Conflict(
            f"The database has schema {found or 'none'}; this version needs {HEAD}."
            " Run `stationmaster migrate` first.",
            code="schema_error",
        )
    secret = (settings.secret_key or load_secret_key(settings.data_dir)).get_secret_value()
    sealer, clock = sealer_of(settings, secret), SystemClock()
    database = open_database(url)
    try:
        keyring = Keyring(database, sealer, clock)
        lifetime = settings.access_token_expire_minutes * MINUTE_S
        keys = SigningKeys(database, sealer, clock, token_lifetime=lifetime)
        kept = Responses(database, clock, sealer, lifetime=settings.responses_retention)
        calls = Calls(database, clock, sealer)
        yield Vault(Chains(database, keyring, clock), keyring, keys, kept, calls)
    finally:
        await database.close()
