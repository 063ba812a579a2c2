"""Signing in and out, and passwords."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import select

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.access import standing
from stationmaster.access.jwt_tokens import AccessTokens, Claims
from stationmaster.access.lockout import Attempt, Locked, Lockout
from stationmaster.access.passwords import Passwords, check_password
from stationmaster.access.people import User, find_user
from stationmaster.access.refresh import Families, SignIn
from stationmaster.access.roles import require_rank
from stationmaster.access.tables import user_passwords, users
from stationmaster.audit import Actor, Recorder
from stationmaster.kernel import origin
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Denied, Exhausted, Invalid, NotFound, Unauthenticated
from stationmaster.kernel.ids import check_id
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction

MAX_EMAIL = 320
MAX_SAME_EMAIL = 8  # organisations that one address may be in, for finding the right one


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody who signed in is given. Lifetimes are in seconds."""

    user_id: str
    owner: Owner
    access_token: str
    expires_in: float
    refresh_token: str
    refresh_expires_in: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    user_id: str
    owner: Owner
    password: str | None


@dataclass(frozen=True, slots=True)
class _Tried:
    attempt: Attempt
    candidates: tuple[_Candidate, ...]


class SignIns:
    """The verbs on sign-ins."""

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        tokens: AccessTokens,
        families: Families,
        lockout: Lockout,
        recorder: Recorder,
        clock: Clock,
        operator: Owner,
        forget: Callable[[str], None],
    ) -> None:
        """`forget` makes the resolver forget a user. Names that nobody has are `operator`'s."""
        self._database = database
        self._passwords = passwords
        self._tokens = tokens
        self._families = families
        self._lockout = lockout
        self._recorder = recorder
        self._clock = clock
        self._operator = operator
        self._forget = forget

    # --- in ---------------------------------------------------------------------------------

    async def by_password(
        self,
        email: str,
        password: str,
        *,
        organization_id: str | None = None,
        project_id: str | None = None,
    ) -> Grant:
        """Sign in. Without a project it is the organisation's default one.

        Raises `Unauthenticated`, the same for a wrong password, for a name that nobody has and for
        one that is in several organisations; `Exhausted` where there were too many attempts.
        """
        name, here = email.strip().lower()[:MAX_EMAIL], origin.current()

        def begin(tx: Transaction) -> _Tried | Locked:
            attempt = self._lockout.begin(tx, name, here.address)
            if isinstance(attempt, Locked):
                return attempt
            return _Tried(attempt, _candidates(tx, name, organization_id))

        tried = await self._database.write(begin)
        if isinstance(tried, Locked):
            raise Exhausted(
                "There were too many attempts to sign in.",
                code="locked_out",
                retry_after=tried.seconds,
            )
        found = tried.candidates[0] if len(tried.candidates) == 1 else None
        right, newer = await self._passwords.verify(
            password, None if found is None else found.password
        )
        if found is None or not right:
            await self._failed(tried)
            raise _wrong()
        return await self._begin(found.user_id, project_id, "password", tried.attempt, newer)

    async def by_identity(self, user_id: str, method: str) -> Grant:
        """Sign in a user whom somebody else has authenticated."""
        return await self._begin(user_id, None, method)

    async def _begin(
        self,
        user_id: str,
        project_id: str | None,
        method: str,
        attempt: Attempt | None = None,
        newer: str | None = None,
    ) -> Grant:
        def verb(tx: Transaction) -> tuple[SignIn, str]:
            principal = standing.of_user(tx, user_id, project_id)
            if principal is None or not principal.scopes:
                raise NotFound("There is no project with this id.")
            if attempt is not None:
                self._lockout.succeeded(tx, attempt)
            if newer is not None:
                self._store(tx, user_id, newer)
            begun = self._families.begin(tx, user_id=user_id, owner=principal.owner, method=method)
            self._recorder.record(
                tx,
                replace(actor, project_id=principal.owner.project_id),
                "user.sign_in",
                target=begun[0].id,
                details={"method": method},
            )
            return begun

        actor = Actor.named("user", user_id, await self._owner_of(user_id))
        sign_in, refresh = await self._database.write(verb)
        return await self._grant(sign_in, refresh)

    async def _owner_of(self, user_id: str) -> Owner:
        query = select(users.c.organization_id).where(users.c.id == user_id)
        found = await self._database.read(lambda tx: tx.execute(query).scalar())
        return Owner(found or self._operator.organization_id, "")

    async def _failed(self, tried: _Tried) -> None:
        known = tried.candidates
        actors = [Actor.named("user", item.user_id, item.owner) for item in known]
        unknown = Actor.named("anonymous", "", self._operator)
        details = {"failures": tried.attempt.failures}

        def verb(tx: Transaction) -> None:
            # In one order: others may lock several chains too.
            for actor in sorted(actors or [unknown], key=lambda actor: actor.organization_id):
                self._recorder.record(tx, actor, "user.sign_in", outcome="refused", details=details)
                if tried.attempt.locks:
                    self._recorder.record(tx, actor, "user.lock_out", details=details)

        await self._database.write(verb)

    async def _grant(self, sign_in: SignIn, refresh: str) -> Grant:
        access = await self._tokens.issue(
            user_id=sign_in.user_id,
            sign_in_id=sign_in.id,
            organization_id=sign_in.owner.organization_id,
        )
        return Grant(
            sign_in.user_id,
            sign_in.owner,
            access,
            self._tokens.lifetime,
            refresh,
            self._families.lifetime,
        )

    # --- on ---------------------------------------------------------------------------------

    async def refresh(self, token: str) -> Grant:
        """New tokens for a refresh token, which is used up by it. Raises `Unauthenticated`.

        A caller who loses the answer has lost the sign-in: shown again, the token ends it.
        """
        here = Actor.named("user", "", self._operator)

        def verb(tx: Transaction) -> tuple[SignIn, str] | None:
            used = self._families.use(tx, token)
            if used is None:
                return None
            sign_in, owner = used.sign_in, used.sign_in.owner
            if used.reused:
                actor = replace(
                    here,
                    id=sign_in.user_id,
                    organization_id=owner.organization_id,
                    project_id=owner.project_id,
                )
                self._recorder.record(
                    tx, actor, "user.token_reuse", target=sign_in.id, outcome="refused"
                )
                tx.on_commit(lambda: self._forget(sign_in.user_id))
            if used.next is None:
                return None
            # A user who was disabled, or put out of the project, stays out.
            if standing.of_user(tx, sign_in.user_id, owner.project_id) is None:
                self._families.end(tx, sign_in.id, "no_longer_there")
                return None
            return sign_in, used.next

        found = await self._database.write(verb)
        if found is None:
            raise Unauthenticated("The refresh token is not valid.", code="invalid_token")
        return await self._grant(*found)

    async def verify(self, token: str) -> Claims:
        """What an access token says. Raises `Unauthenticated`. The resolver asks."""
        return await self._tokens.verify(token)

    def find(self, tx: Transaction, claims: Claims) -> standing.Standing | None:
        """Who an access token speaks for now. The resolver asks."""
        sign_in = self._families.live(tx, claims.sign_in_id)
        if sign_in is None or sign_in.user_id != claims.user_id:
            return None
        principal = standing.of_user(tx, sign_in.user_id, sign_in.owner.project_id)
        return None if principal is None else (principal, claims.expires_at)

    # --- out --------------------------------------------------------------------------------

    async def sign_out(self, access_token: str) -> None:
        """End the sign-in of an access token, and its refresh tokens. Idempotent."""
        await self._sign_out((await self._tokens.verify(access_token)).sign_in_id)

    async def _sign_out(self, sign_in_id: str) -> None:
        here = origin.current()

        def verb(tx: Transaction) -> None:
            sign_in = self._families.live(tx, sign_in_id)
            if sign_in is None or not self._families.end(tx, sign_in_id, "signed_out"):
                return
            actor = Actor(
                "user",
                sign_in.user_id,
                "",
                sign_in.owner.organization_id,
                sign_in.owner.project_id,
                here.address,
                here.request_id,
            )
            self._recorder.record(tx, actor, "user.sign_out", target=sign_in_id)
            tx.on_commit(lambda: self._forget(sign_in.user_id))

        await self._database.write(verb)

    async def sign_out_user(self, principal: Principal, user_id: str) -> User:
        """End every sign-in of a user of the caller's organisation. Idempotent. Keys stay.

        Raises `NotFound`, `Invalid` for oneself, and `Denied` where it takes an owner.
        """
        principal.require("admin:members")
        if user_id == principal.user_id:
            raise Invalid("Nobody signs himself out here.", code="cannot_sign_out_self")
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> User:
            found = find_user(tx, principal, user_id)
            if found.role in {"owner", "admin"} and not principal.may("own:organization"):
                raise Denied(
                    "Only an owner signs out owners and admins.", code="cannot_sign_out_owner"
                )
            if ended := self._families.end_all(tx, user_id, "signed_out"):
                details = {"signed_out": ended}
                self._recorder.record(tx, actor, "user.sign_out", target=user_id, details=details)
            tx.on_commit(lambda: self._forget(user_id))
            return found

        return await self._database.write(verb)

    # --- passwords --------------------------------------------------------------------------

    async def change_password(self, principal: Principal, current: str, new: str) -> None:
        """A user's own password. Every sign-in of theirs ends, this one too."""
        if principal.kind != "user":
            raise Invalid("Only a signed-in user has a password.", code="not_a_user")
        check_password(new, param="new_password")
        query = select(user_passwords.c.hash).where(user_passwords.c.user_id == principal.id)
        here = origin.current()

        def begin(tx: Transaction) -> tuple[Attempt | Locked, str | None]:
            attempt = self._lockout.begin(tx, principal.id, here.address)
            return attempt, tx.execute(query).scalar()

        attempt, stored = await self._database.write(begin)
        if isinstance(attempt, Locked):
            raise Exhausted(
                "There were too many attempts.", code="locked_out", retry_after=attempt.seconds
            )
        right, _ = await self._passwords.verify(current, stored)
        if not right:
            raise Invalid(
                "current_password is not right.", code="wrong_password", param="current_password"
            )
        await self._set(principal, principal.id, await self._passwords.hash(new), attempt)

    async def set_password(self, principal: Principal, user_id: str, new: str) -> None:
        """Another user's password, by an admin of the organisation. Ends the user's sign-ins."""
        principal.require("admin:members")
        check_id(user_id, "user")
        check_password(new)
        query = select(users.c.role).where(
            users.c.id == user_id,
            users.c.organization_id == principal.owner.organization_id,
            users.c.removed_at.is_(None),
        )
        role = await self._database.read(lambda tx: tx.execute(query).scalar())
        if role is None:
            raise NotFound("There is no user with this id.")
        require_rank(principal, role)
        await self._set(principal, user_id, await self._passwords.hash(new))

    async def _set(
        self, principal: Principal, user_id: str, hashed: str, attempt: Attempt | None = None
    ) -> None:
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> None:
            if attempt is not None:
                self._lockout.succeeded(tx, attempt)
            self._store(tx, user_id, hashed)
            ended = self._families.end_all(tx, user_id, "password_changed")
            self._recorder.record(
                tx, actor, "user.set_password", target=user_id, details={"signed_out": ended}
            )
            tx.on_commit(lambda: self._forget(user_id))

        await self._database.write(verb)

    def _store(self, tx: Transaction, user_id: str, hashed: str) -> None:
        values = {"hash": hashed, "changed_at": self._clock.now()}
        put = upsert(user_passwords).values(user_id=user_id, **values)
        tx.execute(put.on_conflict_do_update(index_elements=["user_id"], set_=values))


def _candidates(tx: Transaction, email: str, organization_id: str | None) -> tuple[_Candidate, ...]:
    query = (
        select(users.c.id, users.c.organization_id, user_passwords.c.hash)
        .outerjoin(user_passwords, user_passwords.c.user_id == users.c.id)
        .where(users.c.email == email, users.c.status == "active", users.c.removed_at.is_(None))
        .order_by(users.c.id)
        .limit(MAX_SAME_EMAIL)
    )
    if organization_id is not None:
        query = query.where(users.c.organization_id == organization_id)
    return tuple(
        _Candidate(row.id, Owner(row.organization_id, ""), row.hash) for row in tx.execute(query)
    )


def _wrong() -> Unauthenticated:
    return Unauthenticated(
        "The email or the password is wrong, or the organisation must be named.",
        code="wrong_credentials",
    )
