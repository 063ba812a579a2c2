"""Tickets for sockets: good once, for a minute, on every server together."""

import asyncio

import pytest
from sqlalchemy import func, select

from stationmaster.access import Keys
from stationmaster.access.resolver import Reference
from stationmaster.access.secret import Hasher, generate
from stationmaster.access.tables import socket_tickets
from stationmaster.access.tickets import LIFETIME_S, PREFIX, Tickets
from stationmaster.kernel.errors import Denied, Unauthenticated
from stationmaster.kernel.principal import Principal
from tests.support.databases import Databases
from tests.unit.identity.conftest import ADMIN, OWNER, PASSWORD, Station, assemble

HASHER = Hasher(b"a pepper for the tests")


@pytest.fixture
async def key(station: Station) -> str:
    keys = Keys(station.database, HASHER, station.clock, station.resolver)
    return (await keys.create(ADMIN, name="page"))[1]


@pytest.fixture
def tickets(station: Station) -> Tickets:
    return Tickets(station.database, HASHER, station.clock, station.resolver)


async def rows(station: Station) -> int:
    query = select(func.count()).select_from(socket_tickets)
    return await station.database.read(lambda tx: int(tx.execute(query).scalar_one()))


async def test_a_ticket_is_good_once(station: Station, tickets: Tickets, key: str) -> None:
    principal = await station.resolver.resolve(key)
    ticket, expires_at = await tickets.issue(principal, key)
    assert expires_at == station.clock.now() + 60_000
    reference = await tickets.take(ticket, "192.0.2.7")
    assert await station.resolver.recall(reference) == principal
    with pytest.raises(Unauthenticated):
        await tickets.take(ticket, "192.0.2.7")
    assert await rows(station) == 0


async def test_neither_it_nor_the_key_is_stored(
    station: Station, tickets: Tickets, key: str
) -> None:
    ticket, _ = await tickets.issue(await station.resolver.resolve(key), key)
    stored = await station.database.read(lambda tx: tx.execute(select(socket_tickets)).all())
    assert ticket not in repr(stored)
    assert key not in repr(stored)


async def test_it_expires(station: Station, tickets: Tickets, key: str) -> None:
    principal = await station.resolver.resolve(key)
    in_time, _ = await tickets.issue(principal, key)
    late, _ = await tickets.issue(principal, key)
    station.clock.advance(LIFETIME_S - 0.001)
    await tickets.take(in_time, None)
    station.clock.advance(0.001)
    with pytest.raises(Unauthenticated):
        await tickets.take(late, None)


@pytest.mark.parametrize(
    ("address", "shown_from", "good"),
    [
        (None, None, True),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.7", None, False),
    ],
)
async def test_it_may_be_bound_to_an_address(
    station: Station,
    tickets: Tickets,
    key: str,
    *,
    address: str | None,
    shown_from: str | None,
    good: bool,
) -> None:
    principal = await station.resolver.resolve(key)
    ticket, _ = await tickets.issue(principal, key, address=address)
    if good:
        assert isinstance(await tickets.take(ticket, shown_from), Reference)
    else:
        with pytest.raises(Unauthenticated):
            await tickets.take(ticket, shown_from)
        with pytest.raises(Unauthenticated):  # whoever tried it had it: it is used up
            await tickets.take(ticket, address)


@pytest.mark.parametrize(
    "ticket",
    ["", "x", PREFIX, PREFIX + "x" * 46, PREFIX + "\ud800" * 46, "a\0b", "é" * 40, "x" * 100_000],
    ids=range(8),
)
async def test_what_is_no_ticket(tickets: Tickets, ticket: str) -> None:
    with pytest.raises(Unauthenticated):
        await tickets.take(ticket, None)


async def test_one_that_was_never_issued(tickets: Tickets) -> None:
    with pytest.raises(Unauthenticated):
        await tickets.take(generate(PREFIX), None)


async def test_it_is_taken_once_by_all_servers_together(
    databases: Databases, station: Station, tickets: Tickets, key: str
) -> None:
    principal = await station.resolver.resolve(key)
    url = databases.url()
    servers = []
    for _ in range(2):
        database = databases.open(url)
        made = await assemble(database, station.clock, HASHER, station.passwords)
        servers.append(Tickets(database, HASHER, station.clock, made.resolver))
    for _ in range(10):
        ticket, _ = await servers[0].issue(principal, key)
        taken = await asyncio.gather(
            *(server.take(ticket, None) for server in servers * 4), return_exceptions=True
        )
        assert sum(isinstance(each, Reference) for each in taken) == 1


async def test_a_key_that_is_revoked_meanwhile_is_not_recalled(
    station: Station, tickets: Tickets, key: str
) -> None:
    principal = await station.resolver.resolve(key)
    reference = await tickets.take((await tickets.issue(principal, key))[0], None)
    keys = Keys(station.database, HASHER, station.clock, station.resolver)
    await keys.revoke(ADMIN, principal.id)
    with pytest.raises(Unauthenticated):
        await station.resolver.recall(reference)


async def test_a_signed_in_users_ticket_ends_with_the_sign_in(
    station: Station, tickets: Tickets
) -> None:
    await station.user()
    grant = await station.sign_ins.by_password("ada@example.com", PASSWORD)
    user = await station.resolver.resolve(grant.access_token)
    reference = await tickets.take((await tickets.issue(user, grant.access_token))[0], None)
    assert await station.resolver.recall(reference) == user
    await station.sign_ins.sign_out(grant.access_token)
    with pytest.raises(Unauthenticated):
        await station.resolver.recall(reference)


async def test_a_users_ticket_outlives_no_access_token(station: Station, tickets: Tickets) -> None:
    await station.user()
    grant = await station.sign_ins.by_password("ada@example.com", PASSWORD)
    user = await station.resolver.resolve(grant.access_token)
    reference = await tickets.take((await tickets.issue(user, grant.access_token))[0], None)
    station.clock.advance(grant.expires_in)
    with pytest.raises(Unauthenticated) as ended:
        await station.resolver.recall(reference)
    assert ended.value.error_code == "expired_token"


async def test_a_runs_token_gets_none(tickets: Tickets) -> None:
    run = Principal("run", "tok_1", OWNER, "key_1", frozenset(), run_id="run_1")
    with pytest.raises(Denied):
        await tickets.issue(run, "sm_run_x")
