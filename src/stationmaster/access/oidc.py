"""Signing in at an OpenID Connect provider: authorization code, with PKCE, state and nonce.

    begin ──▶ the provider ──▶ finish

What `begin` makes up is kept here, sealed, until somebody comes back with its state, once, within
minutes, in the same browser.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, insert, select

from stationmaster.access.people import Users
from stationmaster.access.secret import Hasher
from stationmaster.access.signin import Grant, SignIns
from stationmaster.access.tables import oidc_attempts, oidc_identities, users
from stationmaster.audit import Actor, Recorder
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unauthenticated
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, Transaction
from stationmaster.storage.sealing import Sealer

if TYPE_CHECKING:
    from stationmaster.access.oidc_provider import Identity, Provider

ATTEMPT_S = 600.0
METHOD = "oidc"


@dataclass(frozen=True, slots=True)
class Begun:
    """Where to send the browser, and what it must bring back, in a cookie."""

    url: str
    browser: str


@dataclass(frozen=True, slots=True)
class _Kept:
    nonce: str
    verifier: str


class OidcSignIns:
    """The verbs. People who sign in so are users of `owner`'s organisation."""

    def __init__(
        self,
        *,
        provider: "Provider",
        database: Database,
        hasher: Hasher,
        sealer: Sealer,
        clock: Clock,
        sign_ins: SignIns,
        people: Users,
        recorder: Recorder,
        owner: Owner,
        new_users: str | None,
    ) -> None:
        """`new_users` is the role of people whom we do not know yet; None refuses them."""
        self._provider = provider
        self._database = database
        self._hasher = hasher
        self._sealer = sealer
        self._clock = clock
        self._sign_ins = sign_ins
        self._people = people
        self._recorder = recorder
        self._owner = owner
        self._new_users = new_users

    async def begin(self) -> Begun:
        """Begin a sign-in. Raises `Unavailable` where the provider is away."""
        state, browser, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(4))
        url = await self._provider.authorization_url(
            state=state, nonce=nonce, challenge=_challenge(verifier)
        )
        digest = self._hasher.digest(state)
        kept = msgspec.json.encode([nonce, verifier])
        row = {
            "state": digest,
            "browser": self._hasher.digest(browser),
            "sealed": self._sealer.seal(kept, purpose=f"oidc_attempts:{digest}"),
            "expires_at": self._clock.now() + round(ATTEMPT_S * 1000),
        }
        await self._database.write(lambda tx: tx.execute(insert(oidc_attempts), row))
        return Begun(url, browser)

    async def finish(self, *, state: str, code: str, browser: str) -> Grant:
        """Sign in whom the provider has sent back.

        Raises `Unauthenticated`, for somebody whom we do not know too, and `Unavailable`.
        """
        kept = await self._take(state, browser)
        identity = await self._provider.identify(code, verifier=kept.verifier, nonce=kept.nonce)
        user_id = await self._user(identity)
        return await self._sign_ins.by_identity(user_id, METHOD)

    async def _take(self, state: str, browser: str) -> _Kept:
        digest = self._hasher.digest(state)
        # Gone whatever follows: a state is shown once.
        taken = (
            delete(oidc_attempts)
            .where(oidc_attempts.c.state == digest)
            .returning(oidc_attempts.c.browser, oidc_attempts.c.sealed, oidc_attempts.c.expires_at)
        )
        row = await self._database.write(lambda tx: tx.execute(taken).first())
        right = row is not None and secrets.compare_digest(
            row.browser, self._hasher.digest(browser)
        )
        if row is None or not right or row.expires_at <= self._clock.now():
            raise Unauthenticated(
                "This sign-in was not begun here, or too long ago.", code="oidc_state"
            )
        opened = self._sealer.open(row.sealed, purpose=f"oidc_attempts:{digest}")
        return _Kept(*msgspec.json.decode(opened, type=tuple[str, str]))

    async def _user(self, identity: "Identity") -> str:
        actor = Actor.named("user", "", self._owner)

        def verb(tx: Transaction) -> str | None:
            known = tx.execute(
                select(oidc_identities.c.user_id, users.c.status, users.c.removed_at)
                .join(users, users.c.id == oidc_identities.c.user_id)
                .where(
                    oidc_identities.c.issuer == identity.issuer,
                    oidc_identities.c.subject == identity.subject,
                )
            ).first()
            if known is not None:
                good = known.status == "active" and known.removed_at is None
                return known.user_id if good else None
            found = self._by_email(tx, identity)
            if found is None:
                return None
            user_id, details = found
            tx.execute(
                insert(oidc_identities),
                {
                    "issuer": identity.issuer,
                    "subject": identity.subject,
                    "organization_id": self._owner.organization_id,
                    "user_id": user_id,
                    "created_at": self._clock.now(),
                },
            )
            self._recorder.record(tx, actor, "user.link_identity", target=user_id, details=details)
            return user_id

        user_id = await self._database.write(verb)
        if user_id is None:
            await self._database.write(
                lambda tx: self._recorder.record(
                    tx, actor, "user.sign_in", outcome="refused", details={"method": METHOD}
                )
            )
            raise Unauthenticated("You are not a user of this server.", code="unknown_user")
        return user_id

    def _by_email(
        self, tx: Transaction, identity: "Identity"
    ) -> tuple[str, dict[str, object]] | None:
        if identity.email is None:
            return None  # an address that anybody may claim says nothing
        email = identity.email.lower()
        row = tx.execute(
            select(users.c.id, users.c.status).where(
                users.c.organization_id == self._owner.organization_id,
                users.c.email == email,
                users.c.removed_at.is_(None),
            )
        ).first()
        if row is not None:
            return (row.id, {"new": False}) if row.status == "active" else None
        if self._new_users is None:
            return None
        made = self._people.add(
            tx,
            self._owner.organization_id,
            email=email,
            name=identity.name,
            role=self._new_users,
        )
        return made.id, {"new": True, "role": self._new_users}


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
