"""Keys that follow keys, by a clock that is moved by hand."""

import asyncio

import pytest

from stationmaster.access import Keys, Resolver, Rotation
from stationmaster.access.rotation import ROTATED, stream_of
from stationmaster.access.secret import Hasher
from stationmaster.events import EventLog
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database

DAY = 86_400


@pytest.fixture
def keys(database: Database, hasher: Hasher, clock: ManualClock, resolver: Resolver) -> Keys:
    return Keys(database, hasher, clock, resolver, rotate_after_days=90)


@pytest.fixture
def events(database: Database, clock: ManualClock) -> EventLog:
    return EventLog(database, MemoryBus(), clock)


@pytest.fixture
def rotation(
    *,
    database: Database,
    keys: Keys,
    hasher: Hasher,
    clock: ManualClock,
    resolver: Resolver,
    events: EventLog,
) -> Rotation:
    return Rotation(
        database=database,
        keys=keys,
        hasher=hasher,
        clock=clock,
        resolver=resolver,
        events=events,
    )


async def works(resolver: Resolver, secret: str) -> bool:
    try:
        await resolver.resolve(secret)
    except Unauthenticated:
        return False
    return True


async def test_at_90_days_a_new_key_and_the_old_one_dies_7_later(
    *,
    keys: Keys,
    rotation: Rotation,
    resolver: Resolver,
    clock: ManualClock,
    admin: Principal,
    events: EventLog,
) -> None:
    key, secret = await keys.create(admin, name="ci-runner", scopes=["read:tasks"])
    clock.advance(90 * DAY - 1)
    assert await rotation.sweep() == 0
    clock.advance(1)
    assert await rotation.sweep() == 1
    assert await rotation.sweep() == 0  # once

    old = await keys.get(admin, key.id)
    assert old.successor_id is not None
    new = await keys.get(admin, old.successor_id)
    assert (new.name, new.scopes, new.uncollected) == (key.name, key.scopes, True)
    [told] = await events.read(stream_of("proj_default"))
    assert told.type == ROTATED
    assert told.data["key_id"] == key.id
    assert told.data["successor_id"] == new.id
    assert secret not in str(told.data)

    mine = await resolver.resolve(secret)
    collected, new_secret = await rotation.collect(mine, new.id)  # the old key may ask
    assert (collected.id, collected.hint) == (new.id, new_secret[-4:])
    with pytest.raises(Conflict):
        await rotation.collect(mine, new.id)
    assert await works(resolver, secret)
    assert await works(resolver, new_secret)
    clock.advance(7 * DAY - 1)
    assert await works(resolver, secret)
    clock.advance(1)
    assert not await works(resolver, secret)
    assert await works(resolver, new_secret)
    clock.advance(83 * DAY)
    assert await rotation.sweep() == 1  # and so on


async def test_servers_that_look_at_once_make_one_successor(
    keys: Keys, rotation: Rotation, clock: ManualClock, admin: Principal, events: EventLog
) -> None:
    made = [(await keys.create(admin, name=f"key-{number}"))[0].id for number in range(3)]
    clock.advance(91 * DAY)
    await asyncio.gather(*(rotation.sweep() for _ in range(4)))
    page = await keys.list(admin, limit=100, after=None)
    assert len([key for key in page.items if key.uncollected]) == 3
    told = await events.read(stream_of("proj_default"))
    assert sorted(event.data["key_id"] for event in told) == sorted(made)


async def test_of_many_who_rotate_or_collect_at_once_one_does(
    keys: Keys, rotation: Rotation, clock: ManualClock, admin: Principal
) -> None:
    key, _ = await keys.create(admin, name="key")
    answers = await asyncio.gather(
        *(rotation.rotate(admin, key.id, overlap=DAY) for _ in range(8)), return_exceptions=True
    )
    assert [isinstance(answer, Conflict) for answer in answers].count(False) == 1
    page = await keys.list(admin, limit=100, after=None)
    assert [each.name for each in page.items].count("key") == 2
    other, _ = await keys.create(admin, name="other")
    clock.advance(90 * DAY)
    await rotation.sweep()
    successor = (await keys.get(admin, other.id)).successor_id
    assert successor is not None
    answers = await asyncio.gather(
        *(rotation.collect(admin, successor) for _ in range(8)), return_exceptions=True
    )
    assert [isinstance(answer, Conflict) for answer in answers].count(False) == 1


async def test_what_is_not_rotated_by_itself(
    keys: Keys, rotation: Rotation, clock: ManualClock, admin: Principal
) -> None:
    await keys.bootstrap(admin=None, given=["a-users-key-0123456789"])
    await keys.create(admin, name="forever", rotates=False)
    short, _ = await keys.create(admin, name="short", expires_at=clock.now() + DAY * 1000)
    revoked, _ = await keys.create(admin, name="revoked")
    await keys.revoke(admin, revoked.id)
    clock.advance(1000 * DAY)
    assert await rotation.sweep() == 0
    assert (await keys.get(admin, short.id)).successor_id is None


async def test_an_uncollected_key_opens_nothing(
    keys: Keys, rotation: Rotation, clock: ManualClock, admin: Principal, database: Database
) -> None:
    key, _ = await keys.create(admin, name="old")
    clock.advance(90 * DAY)
    await rotation.sweep()
    old = await keys.get(admin, key.id)
    assert old.successor_id is not None
    with pytest.raises(Conflict) as caught:
        await rotation.rotate(admin, old.successor_id, overlap=0)
    assert caught.value.error_code == "key_uncollected"
    del database


async def test_who_may_collect(
    keys: Keys, rotation: Rotation, resolver: Resolver, clock: ManualClock, admin: Principal
) -> None:
    key, _ = await keys.create(admin, name="old", scopes=["write:tasks"])
    _, other_secret = await keys.create(admin, name="other", scopes=["read:*", "write:*"])
    _, manager_secret = await keys.create(admin, name="manager", scopes=["admin:keys"])
    clock.advance(90 * DAY)
    await rotation.sweep()
    new_key = (await keys.get(admin, key.id)).successor_id
    assert new_key is not None
    with pytest.raises(Denied):  # another key of the project
        await rotation.collect(await resolver.resolve(other_secret), new_key)
    with pytest.raises(Denied):  # it would be given rights that it lacks
        await rotation.collect(await resolver.resolve(manager_secret), new_key)
    for absent in ("", "key_x", new_id("key")):
        with pytest.raises(NotFound):
            await rotation.collect(admin, absent)
    _, secret = await rotation.collect(admin, new_key)
    assert (await resolver.resolve(secret)).scopes == {"write:tasks"}


async def test_an_expiry_is_kept(
    keys: Keys, rotation: Rotation, clock: ManualClock, admin: Principal
) -> None:
    ends = clock.now() + 3 * DAY * 1000
    key, _ = await keys.create(admin, name="short", expires_at=ends)
    successor, _ = await rotation.rotate(admin, key.id, overlap=7 * DAY)
    assert successor.expires_at == ends
    assert (await keys.get(admin, key.id)).expires_at == ends
    clock.advance(3 * DAY)
    with pytest.raises(Invalid) as caught:
        await rotation.rotate(admin, successor.id, overlap=0)
    assert caught.value.error_code == "key_over"


@pytest.mark.parametrize("overlap", [-1.0, 90 * DAY + 1, float("nan"), float("inf")])
async def test_overlaps_that_are_none(
    keys: Keys, rotation: Rotation, admin: Principal, overlap: float
) -> None:
    key, _ = await keys.create(admin, name="key")
    with pytest.raises(Invalid):
        await rotation.rotate(admin, key.id, overlap=overlap)
    assert (await keys.get(admin, key.id)).successor_id is None
