"""Secrets of pieces of work: what a worker of a self-hosted environment serves one session with.

They are run tokens of another kind: revoked with the key that took the work, and by themselves once
nobody shows for a while that the work goes on.
"""

from collections.abc import Callable

from sqlalchemy import insert, select, update

from stationmaster.access.secret import TOKEN_PREFIX, Hasher, generate
from stationmaster.access.tables import run_tokens
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Transaction


class WorkTokens:
    """The verbs on secrets of work, each inside its caller's transaction."""

    def __init__(
        self, hasher: Hasher, clock: Clock, *, forget: Callable[[list[str]], None]
    ) -> None:
        """`forget` is the resolver's, and takes hashes."""
        self._hasher = hasher
        self._clock = clock
        self._forget = forget

    def issue(
        self,
        tx: Transaction,
        behind: Principal,
        *,
        environment_id: str,
        work_id: str,
        session_id: str,
        expires_at: Millis,
    ) -> str:
        """Make a secret for one piece of work, in place of those it had; return it.

        It is good as long as what is `behind` it, which took the work.
        """
        self.revoke(tx, work_id)
        token_id, secret = new_id("tok"), generate(TOKEN_PREFIX)
        tx.execute(
            insert(run_tokens),
            {
                "id": token_id,
                "hash": self._hasher.digest(secret),
                "created_at": self._clock.now(),
                "session_id": session_id,
                "organization_id": behind.owner.organization_id,
                "project_id": behind.owner.project_id,
                "key_id": behind.key_id,
                "environment_id": environment_id,
                "work_id": work_id,
                "expires_at": expires_at,
            },
        )
        return secret

    def extend(self, tx: Transaction, work_id: str, expires_at: Millis) -> None:
        """Let the secret of a piece of work last until then. One that was revoked stays so."""
        tx.execute(
            update(run_tokens)
            .where(run_tokens.c.work_id == work_id, run_tokens.c.revoked_at.is_(None))
            .values(expires_at=expires_at)
        )

    def revoke(self, tx: Transaction, work_id: str) -> None:
        """End the secrets of a piece of work. Idempotent. Here they are dead with the commit."""
        alive = (run_tokens.c.work_id == work_id, run_tokens.c.revoked_at.is_(None))
        hashes = list(tx.execute(select(run_tokens.c.hash).where(*alive)).scalars())
        if hashes:
            tx.execute(update(run_tokens).where(*alive).values(revoked_at=self._clock.now()))
            tx.on_commit(lambda: self._forget(hashes))
