"""From a credential to a principal. There is one resolver for every header, route and socket."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from stationmaster.access import standing
from stationmaster.access.jwt_tokens import Claims, looks_like_one
from stationmaster.access.last_use import LastUse
from stationmaster.access.secret import KEY_PREFIX, TOKEN_PREFIX, Hasher, well_formed
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Unauthenticated, Unavailable
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

CACHE_SIZE = 10_000
# How long another server's revocation may go unseen by what only looks. What spends is asked about
# again in the transaction of its hold: see `entitlement`.
CACHE_S = 1.0
CACHE_WHILE_AWAY_S = 300.0  # how long a known key is believed while the database is away
MAX_SECRET_LENGTH = 512


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    expires_at: Millis | None
    read_at: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A credential that was shown before, without its secret. `claims` are an access token's."""

    digest: str
    claims: Claims | None = None


_Find = Callable[[Transaction], standing.Standing | None]


class SignedIn(Protocol):
    """Knows the access tokens of people who signed in."""

    async def verify(self, token: str) -> Claims:
        """What a token says. Raises `Unauthenticated`."""
        ...

    def find(self, tx: Transaction, claims: Claims) -> standing.Standing | None:
        """Who it speaks for now; None where the sign-in has ended."""
        ...


def _invalid() -> Unauthenticated:
    return Unauthenticated("The API key is not valid.", code="invalid_api_key")


def _no_tags(_run_id: str) -> tuple[str, ...]:
    return ()


class Resolver:
    """Looks credentials up by their keyed hash, and remembers the valid ones for a short time."""

    def __init__(
        self,
        database: Database,
        hasher: Hasher,
        clock: Clock,
        *,
        last_use: LastUse | None = None,
    ) -> None:
        """`last_use` is told of each use of a key."""
        self._database = database
        self._last_use = last_use
        self._hasher = hasher
        self._clock = clock
        self._cache: OrderedDict[str, _Known] = OrderedDict()
        self._forgotten = 0
        self._asked: dict[str, asyncio.Task[_Known]] = {}
        self._signed_in: SignedIn | None = None
        self._tags_of: Callable[[str], tuple[str, ...]] = _no_tags

    def admit(self, signed_in: SignedIn) -> None:
        """Take the access tokens that `signed_in` knows, from now on."""
        self._signed_in = signed_in

    def tag_runs(self, tags_of: Callable[[str], tuple[str, ...]]) -> None:
        """Give runs the tags that `tags_of` knows by a run's id, from now on."""
        self._tags_of = tags_of

    async def resolve(self, secret: str | None) -> Principal:
        """Return whose credential this is. Raises `Unauthenticated`, or `Unavailable`."""
        if not secret:
            raise Unauthenticated(
                "An API key is required, as `Authorization: Bearer` or `x-api-key`."
            )
        digest = self._digest(secret)
        known = self._fresh(digest)
        if known is None:
            return await self.recall(await self._reference(secret, digest))
        return self._good(known)

    async def refer(self, secret: str) -> Reference:
        """What to keep of a credential for recalling it later. Raises `Unauthenticated`."""
        return await self._reference(secret, self._digest(secret))

    async def _reference(self, secret: str, digest: str) -> Reference:
        if self._signed_in is not None and looks_like_one(secret):
            return Reference(digest, await self._signed_in.verify(secret))
        if secret.startswith((KEY_PREFIX, TOKEN_PREFIX)) and not well_formed(secret):
            raise _invalid()
        return Reference(digest)

    def _digest(self, secret: str) -> str:
        if len(secret) > MAX_SECRET_LENGTH and not (
            self._signed_in is not None and looks_like_one(secret)
        ):
            raise _invalid()
        return self._hasher.digest(secret)

    async def recall(self, reference: Reference) -> Principal:
        """Whose credential it is, if it still is good. Raises as `resolve`."""
        digest, claims = reference.digest, reference.claims
        known = self._fresh(digest)
        if known is None:
            if claims is None:
                find = partial(standing.of_digest, digest=digest)
            elif self._signed_in is not None:
                find = partial(self._signed_in.find, claims=claims)
            else:
                raise Unauthenticated("The access token is not valid.", code="invalid_token")
            known = await self._ask(digest, find)
        return self._good(known)

    async def _ask(self, digest: str, find: _Find) -> _Known:
        """Look a credential up, once for all who want to know it now: a busy key has many calls."""
        task = self._asked.get(digest)
        if task is None:
            looking = self._look_up(digest, self._cache.get(digest), find)
            task = self._asked[digest] = asyncio.create_task(looking, name="credential")
            task.add_done_callback(partial(self._asked_for, digest))
        return await asyncio.shield(task)

    def _asked_for(self, digest: str, task: "asyncio.Task[_Known]") -> None:
        if self._asked.get(digest) is task:
            del self._asked[digest]
        if not task.cancelled():
            task.exception()  # seen, should all who wanted to know it have gone

    def _fresh(self, digest: str) -> _Known | None:
        known = self._cache.get(digest)
        if known is None or asyncio.get_running_loop().time() - known.read_at > CACHE_S:
            return None
        return known

    def _good(self, known: _Known) -> Principal:
        principal = known.principal
        if known.expires_at is not None and known.expires_at <= self._clock.now():
            if principal.kind == "user":
                raise Unauthenticated("The access token has expired.", code="expired_token")
            raise Unauthenticated("The API key has expired.", code="expired_api_key")
        if self._last_use is not None and principal.kind == "key":
            self._last_use.note(principal.id)
        return principal

    async def _look_up(
        self,
        digest: str,
        known: _Known | None,
        find: _Find,
    ) -> _Known:
        now = asyncio.get_running_loop().time()
        forgotten = self._forgotten
        try:
            found = await self._database.read(find)
        except Unavailable:
            if known is not None and now - known.read_at < CACHE_WHILE_AWAY_S:
                return known
            raise
        if found is None:
            self._cache.pop(digest, None)
            raise _invalid()
        principal, expires_at = found
        if principal.run_id is not None:
            principal = replace(principal, tags=self._tags_of(principal.run_id))
        fresh = _Known(principal, expires_at, now)
        if forgotten != self._forgotten:  # something was revoked meanwhile: this, perhaps
            return fresh
        self._cache[digest] = fresh
        self._cache.move_to_end(digest)
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return fresh

    def forget(self, digests: list[str]) -> None:
        """Drop what is remembered of these hashes: they were revoked here."""
        self._forgotten += 1
        self._asked.clear()  # who asks from now on must not hear what was so before
        for digest in digests:
            self._cache.pop(digest, None)

    def forget_key(self, key_id: str) -> None:
        """Drop what is remembered of a key and its runs."""
        gone = [d for d, known in self._cache.items() if known.principal.key_id == key_id]
        self.forget(gone)

    def forget_all(self) -> None:
        """Drop everything: who may do what has changed for more than one key."""
        self.forget(list(self._cache))
