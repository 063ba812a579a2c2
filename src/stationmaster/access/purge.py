"""Rows of credentials that have had their time, deleted on a schedule: the tables stay bounded.

| what | deleted |
|---|---|
| tickets of sockets | when they have expired |
| refresh tokens | when they have expired; until then one that is used again is known |
| sign-ins, with their tokens | when they have expired |
| failures to sign in | when they no longer count |
| sign-ins that were begun at an identity provider | when they have expired |
| tokens of runs and secrets of work that were revoked or have expired | a day later |
| tokens of a server that died, free of any run | a day after they were made |
| invites | 90 days after they ended |
| keys of `user-login` that were replaced | 90 days later |

Other keys are kept: they are on record, and few.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Table, delete, func

from stationmaster.access.clients import SOURCE
from stationmaster.access.lockout import FORGET_S
from stationmaster.access.tables import (
    api_keys,
    invites,
    oidc_attempts,
    refresh_tokens,
    run_tokens,
    sign_in_failures,
    sign_ins,
    socket_tickets,
)
from stationmaster.jobs import Instances
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.storage import Database, Transaction
from stationmaster.storage.sweeping import sweep

DAY_MS = 86_400_000
TOKENS_KEPT_MS = DAY_MS
ENDED_KEPT_MS = 90 * DAY_MS
BATCH = 1_000  # rows in one transaction: others wait for it on SQLite


class Purge:
    """Deletes what is over."""

    def __init__(self, database: Database, clock: Clock, instances: Instances) -> None:
        """`instances` knows which servers may still use the tokens that they have issued."""
        self._database = database
        self._clock = clock
        self._instances = instances

    async def run(self) -> int:
        """Delete all that is over; return how many rows. Raises `Unavailable`. Idempotent."""
        gone, now = 0, self._clock.now()
        listed = await self._instances.listed()
        for table, over in _over(now, listed):
            first = _end_refresh if table is sign_ins else None
            gone += await sweep(self._database, table, over, at_once=BATCH, first=first)
        return gone


def _end_refresh(tx: Transaction, ended: Sequence[str]) -> None:
    tx.execute(delete(refresh_tokens).where(refresh_tokens.c.sign_in_id.in_(ended)))


def _over(now: Millis, listed: list[str]) -> list[tuple[Table, ColumnElement[bool]]]:
    ended = func.coalesce(invites.c.deleted_at, invites.c.accepted_at, invites.c.expires_at)
    return [
        (socket_tickets, socket_tickets.c.expires_at < now),
        (refresh_tokens, refresh_tokens.c.expires_at < now),
        (sign_ins, sign_ins.c.expires_at < now),
        (sign_in_failures, sign_in_failures.c.failed_at < now - round(FORGET_S * 1000)),
        (oidc_attempts, oidc_attempts.c.expires_at < now),
        (run_tokens, run_tokens.c.revoked_at < now - TOKENS_KEPT_MS),
        (run_tokens, run_tokens.c.expires_at < now - TOKENS_KEPT_MS),
        (
            run_tokens,
            # A run that goes on elsewhere has taken its rights along; its end takes them from all.
            run_tokens.c.run_id.is_(None)
            & run_tokens.c.work_id.is_(None)
            & (run_tokens.c.created_at < now - TOKENS_KEPT_MS)
            & func.coalesce(run_tokens.c.instance_id, "").not_in(listed),
        ),
        (invites, ended < now - ENDED_KEPT_MS),
        (
            api_keys,
            (api_keys.c.source == SOURCE) & (api_keys.c.revoked_at < now - ENDED_KEPT_MS),
        ),
    ]
