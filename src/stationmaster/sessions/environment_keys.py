"""The keys of self-hosted environments: what their workers come with."""

from dataclasses import dataclass

from stationmaster.access import ApiKey, Keys
from stationmaster.access.keys import Sought
from stationmaster.access.paging import Slice, Window
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.environments import Environments
from stationmaster.sessions.work import SCOPE

MAX_SECONDS = 366 * 86_400


@dataclass(frozen=True, slots=True)
class NewEnvironmentKey:
    """A key, and its secret, which is told this once."""

    key: ApiKey
    secret: str


class EnvironmentKeys:
    """The verbs on environment keys: API keys that are good for the work of one environment.

    Scopes: `read:environments`, and those of keys.
    """

    def __init__(self, *, environments: Environments, keys: Keys, clock: Clock) -> None:
        self._environments = environments
        self._keys = keys
        self._clock = clock

    async def create(
        self,
        principal: Principal,
        environment_id: str,
        *,
        name: str,
        expires_in: int | None = None,
    ) -> NewEnvironmentKey:
        """Make one; `expires_in` is in seconds, None is never.

        Raises `NotFound`, `Denied`, `Invalid`.
        """
        principal.require("admin:keys")
        principal.require(SCOPE)  # nobody gives what he lacks
        environment = await self._environments.get(principal, environment_id)
        if not environment.self_hosted:
            raise Invalid("The environment is not self-hosted.", code="not_self_hosted")
        if expires_in is not None and not 1 <= expires_in <= MAX_SECONDS:
            raise Invalid(
                f"expires_in_seconds is between 1 and {MAX_SECONDS}.", param="expires_in_seconds"
            )
        key, secret = await self._keys.create(
            principal,
            name=name,
            scopes=[SCOPE],
            expires_at=None if expires_in is None else self._clock.now() + expires_in * 1000,
            rotates=False,
            environment_id=environment_id,
        )
        return NewEnvironmentKey(key, secret)

    async def list(
        self, principal: Principal, environment_id: str, *, limit: int, after: str | None = None
    ) -> Slice[ApiKey]:
        """The environment's keys, newest first, revoked ones too."""
        if not principal.may("admin:keys"):
            principal.require("list:keys")
        await self._environments.get(principal, environment_id)
        sought = Sought(environment_id=environment_id)
        return await self._keys.search(principal, sought, Window(limit=limit, after=after))

    async def revoke(self, principal: Principal, environment_id: str, key_id: str) -> ApiKey:
        """End one, and the secrets of the work that was taken by it. Idempotent."""
        principal.require("admin:keys")
        await self._environments.get(principal, environment_id)
        key = await self._keys.get(principal, key_id)
        if key.environment_id != environment_id:
            raise NotFound("There is no key with this id.")
        return await self._keys.revoke(principal, key_id)
