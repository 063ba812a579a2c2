"""Run tokens: the only credential an agent ever holds.

    issued ──bind──▶ bound to a run ──unbind──▶ free again ──bind──▶ …
       └──────────────────┴──────── revoke ────────┴──▶ revoked

Each process of an agent has a token of its own for as long as it lives. It has no rights but while
it is bound: then it speaks for that run alone. The run's end unbinds it in the same transaction;
the process's end revokes it for good.
"""

from collections.abc import Callable

from sqlalchemy import insert, select, update

from stationmaster.access.secret import TOKEN_PREFIX, Hasher, generate
from stationmaster.access.tables import run_tokens
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Transaction

_NO_RIGHTS = {
    "run_id": None,
    "session_id": None,
    "organization_id": None,
    "project_id": None,
    "key_id": None,
}


class RunTokens:
    """The verbs on run tokens, each inside its caller's transaction.

    Once that has committed, what this server remembers of the token is forgotten: its rights are
    the new ones from the next request on. On every server, nothing is spent by the old ones: see
    `entitlement`.
    """

    def __init__(
        self,
        hasher: Hasher,
        clock: Clock,
        *,
        forget: Callable[[list[str]], None],
        instance_id: str | None = None,
    ) -> None:
        """`forget` is the resolver's, and takes hashes.

        `instance_id` names this process: its tokens are purged once it is dead.
        """
        self._instance_id = instance_id
        self._hasher = hasher
        self._clock = clock
        self._forget = forget

    def issue(self, tx: Transaction) -> tuple[str, str]:
        """Make a token without rights; return its id and its secret."""
        token_id, secret = new_id("tok"), generate(TOKEN_PREFIX)
        tx.execute(
            insert(run_tokens),
            {
                "id": token_id,
                "hash": self._hasher.digest(secret),
                "created_at": self._clock.now(),
                "instance_id": self._instance_id,
            },
        )
        return token_id, secret

    def bind(
        self,
        tx: Transaction,
        token_id: str,
        *,
        owner: Owner,
        key_id: str,
        run_id: str,
        session_id: str,
    ) -> None:
        """Give a token the rights of a run. Raises `Conflict` if it is bound or revoked."""
        bound = tx.execute(
            update(run_tokens)
            .where(
                run_tokens.c.id == token_id,
                run_tokens.c.run_id.is_(None),
                run_tokens.c.revoked_at.is_(None),
            )
            .values(
                run_id=run_id,
                session_id=session_id,
                organization_id=owner.organization_id,
                project_id=owner.project_id,
                key_id=key_id,
            )
        )
        if bound.rowcount != 1:
            raise Conflict("The run token is not free.", code="token_not_free")
        self._forget_after(tx, [self._hash_of(tx, token_id)])

    def is_bound(self, tx: Transaction, run_id: str) -> bool:
        """Whether a token has the rights of a run."""
        of_run = select(run_tokens.c.id).where(run_tokens.c.run_id == run_id).limit(1)
        return tx.execute(of_run).first() is not None

    def unbind_run(self, tx: Transaction, run_id: str) -> None:
        """Take the rights in a run from every token that has them. Idempotent."""
        of_run = run_tokens.c.run_id == run_id
        hashes = list(tx.execute(select(run_tokens.c.hash).where(of_run)).scalars())
        tx.execute(update(run_tokens).where(of_run).values(_NO_RIGHTS))
        self._forget_after(tx, hashes)

    def revoke(self, tx: Transaction, token_id: str) -> None:
        """End a token for good, bound or not. Idempotent."""
        tx.execute(
            update(run_tokens)
            .where(run_tokens.c.id == token_id, run_tokens.c.revoked_at.is_(None))
            .values(_NO_RIGHTS | {"revoked_at": self._clock.now()})
        )
        self._forget_after(tx, [self._hash_of(tx, token_id)])

    def _hash_of(self, tx: Transaction, token_id: str) -> str:
        found = tx.execute(select(run_tokens.c.hash).where(run_tokens.c.id == token_id)).scalar()
        return str(found or "")

    def _forget_after(self, tx: Transaction, hashes: list[str]) -> None:
        tx.on_commit(lambda: self._forget(hashes))
