"""Tickets: good once, for a minute, for opening a socket as whoever asked for them.

A browser's page can set no header on a socket, and a key in its URL would be written into logs. A
ticket may be: by then it has been used, or is about to expire.
"""

from dataclasses import asdict

from sqlalchemy import delete, insert

from stationmaster.access.jwt_tokens import Claims
from stationmaster.access.resolver import Reference, Resolver
from stationmaster.access.secret import Hasher, generate, well_formed
from stationmaster.access.tables import socket_tickets
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Denied, Unauthenticated
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

PREFIX = "sm_ticket_"
LIFETIME_S = 60
MAX_LENGTH = 128


class Tickets:
    """Issues tickets, and takes each once, on whichever server it is shown."""

    def __init__(
        self, database: Database, hasher: Hasher, clock: Clock, resolver: Resolver
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._clock = clock
        self._resolver = resolver

    async def issue(
        self, principal: Principal, secret: str, *, address: str | None = None
    ) -> tuple[str, Millis]:
        """A ticket for the caller, whose credential `secret` is, and when it expires.

        With `address` it is good from there alone. Raises `Denied` for a run's token.
        """
        if principal.kind == "run":
            raise Denied("A run's token is for model calls alone.")
        ticket, expires_at = generate(PREFIX), self._clock.now() + LIFETIME_S * 1000
        reference = await self._resolver.refer(secret)
        row = {
            "hash": self._hasher.digest(ticket),
            "credential": reference.digest,
            "claims": None if reference.claims is None else asdict(reference.claims),
            "address": address,
            "expires_at": expires_at,
        }
        await self._database.write(lambda tx: tx.execute(insert(socket_tickets), row))
        return ticket, expires_at

    async def take(self, ticket: str, address: str | None) -> Reference:
        """Whose it is; it is used up by this, also where it is refused.

        Raises `Unauthenticated` for one that was used, has expired, never was, or is for another
        address.
        """
        wrong = Unauthenticated("The ticket is not valid, or no longer.", code="invalid_ticket")
        if not ticket.startswith(PREFIX) or len(ticket) > MAX_LENGTH or not well_formed(ticket):
            raise wrong
        taken = (
            delete(socket_tickets)
            .where(socket_tickets.c.hash == self._hasher.digest(ticket))
            .returning(socket_tickets)
        )

        def verb(tx: Transaction) -> Reference | None:
            row = tx.execute(taken).first()
            if row is None or row.expires_at <= self._clock.now():
                return None
            if row.address is not None and row.address != address:
                return None
            claims = None if row.claims is None else Claims(**row.claims)
            return Reference(row.credential, claims)

        reference = await self._database.write(verb)
        if reference is None:
            raise wrong
        return reference
