"""Sign-ins, and the family of refresh tokens that each one has.

    issued ──used──▶ used ──used again──▶ the whole family ends

A refresh token is good once, and brings the next one. One that comes twice has been stolen, before
or after its owner used it: nobody can tell which of the two is here, so both are out.
"""

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from stationmaster.access.secret import Hasher, generate, well_formed
from stationmaster.access.tables import refresh_tokens, sign_ins
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Transaction

PREFIX = "sm_refresh_"
MAX_LENGTH = 128


@dataclass(frozen=True, slots=True)
class SignIn:
    """Somebody who signed in, in a project."""

    id: str
    user_id: str
    owner: Owner
    method: str


@dataclass(frozen=True, slots=True)
class Used:
    """What became of a refresh token that was shown: `next` where it was good.

    `reused` where it had been used before; then the family has ended with this.
    """

    sign_in: SignIn
    next: str | None
    reused: bool = False


class Families:
    """Each verb inside its caller's transaction."""

    def __init__(self, hasher: Hasher, clock: Clock, *, lifetime: float) -> None:
        """`lifetime` of a refresh token is in seconds; each use begins it anew."""
        self._hasher = hasher
        self._clock = clock
        self.lifetime = lifetime

    def begin(
        self, tx: Transaction, *, user_id: str, owner: Owner, method: str
    ) -> tuple[SignIn, str]:
        """Somebody has signed in; return the first refresh token with it."""
        sign_in = SignIn(new_id("sgn"), user_id, owner, method)
        now = self._clock.now()
        tx.execute(
            insert(sign_ins),
            {
                "id": sign_in.id,
                "user_id": user_id,
                "organization_id": owner.organization_id,
                "project_id": owner.project_id,
                "method": method,
                "created_at": now,
                "expires_at": now + round(self.lifetime * 1000),
            },
        )
        return sign_in, self._issue(tx, sign_in.id)

    def use(self, tx: Transaction, token: str) -> Used | None:
        """Take a refresh token; None where it is none, has expired or its family has ended.

        To be committed whatever it returns.
        """
        if not token.startswith(PREFIX) or len(token) > MAX_LENGTH or not well_formed(token):
            return None
        digest, now = self._hasher.digest(token), self._clock.now()
        # Whoever comes second waits here for the first, and then finds the token used.
        row = tx.execute(
            select(sign_ins, refresh_tokens.c.used_at, refresh_tokens.c.expires_at.label("ends_at"))
            .join(refresh_tokens, refresh_tokens.c.sign_in_id == sign_ins.c.id)
            .where(refresh_tokens.c.hash == digest)
            .with_for_update()
        ).first()
        if row is None or row.ended_at is not None:
            return None
        owner = Owner(row.organization_id, row.project_id)
        sign_in = SignIn(row.id, row.user_id, owner, row.method)
        if row.used_at is not None:
            self.end(tx, sign_in.id, "reuse")
            return Used(sign_in, None, reused=True)
        if row.ends_at <= now:
            return None
        tx.execute(
            update(refresh_tokens).where(refresh_tokens.c.hash == digest).values(used_at=now)
        )
        tx.execute(
            update(sign_ins)
            .where(sign_ins.c.id == sign_in.id)
            .values(expires_at=now + round(self.lifetime * 1000))
        )
        return Used(sign_in, self._issue(tx, sign_in.id))

    def _issue(self, tx: Transaction, sign_in_id: str) -> str:
        token, now = generate(PREFIX), self._clock.now()
        tx.execute(
            insert(refresh_tokens),
            {
                "hash": self._hasher.digest(token),
                "sign_in_id": sign_in_id,
                "created_at": now,
                "expires_at": now + round(self.lifetime * 1000),
            },
        )
        return token

    def live(self, tx: Transaction, sign_in_id: str) -> SignIn | None:
        """A sign-in that has neither ended nor expired."""
        row = tx.execute(
            select(sign_ins).where(
                sign_ins.c.id == sign_in_id,
                sign_ins.c.ended_at.is_(None),
                sign_ins.c.expires_at > self._clock.now(),
            )
        ).first()
        if row is None:
            return None
        owner = Owner(row.organization_id, row.project_id)
        return SignIn(row.id, row.user_id, owner, row.method)

    def end(self, tx: Transaction, sign_in_id: str, because: str) -> bool:
        """End a family; False where it has ended already."""
        ended = tx.execute(
            update(sign_ins)
            .where(sign_ins.c.id == sign_in_id, sign_ins.c.ended_at.is_(None))
            .values(ended_at=self._clock.now(), ended_because=because)
        )
        return ended.rowcount == 1

    def end_all(self, tx: Transaction, user_id: str, because: str) -> int:
        """End every family of a user; return how many."""
        ended = tx.execute(
            update(sign_ins)
            .where(sign_ins.c.user_id == user_id, sign_ins.c.ended_at.is_(None))
            .values(ended_at=self._clock.now(), ended_because=because)
        )
        return ended.rowcount
