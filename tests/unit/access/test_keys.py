"""API keys: the first start, the operator's own, making, listing, revoking."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import func, insert, select

from stationmaster.access import Keys, Resolver
from stationmaster.access.api_key import add, fresh
from stationmaster.access.secret import KEY_PREFIX, Hasher, generate
from stationmaster.access.tables import api_keys, organizations, projects
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Denied, Invalid, NotFound, Unauthenticated
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction
from tests.support.databases import Databases
from tests.unit.access.conftest import DEFAULT, PEPPER

ADMIN_SECRET = "operator-admin-key-0123456789"
USER_SECRET = "operator-user-key-0123456789"


def _count(tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).select_from(api_keys)).scalar_one())


# --- the first start --------------------------------------------------------------------------


async def test_the_first_start_makes_one_admin_key_and_shows_it_once(
    keys: Keys, resolver: Resolver
) -> None:
    secret = await keys.bootstrap(admin=None, given=[])
    assert secret is not None
    assert secret.startswith(KEY_PREFIX)
    principal = await resolver.resolve(secret)
    assert (principal.kind, principal.owner) == ("key", DEFAULT)
    assert principal.scopes == {"*"}
    assert await keys.bootstrap(admin=None, given=[]) is None


async def test_servers_that_start_at_once_make_one_key(
    databases: Databases, migrated_url: str, clock: ManualClock
) -> None:
    hasher = Hasher(PEPPER)
    opened = [databases.open(migrated_url) for _ in range(4)]
    starts = [Keys(each, hasher, clock, Resolver(each, hasher, clock)) for each in opened]
    made = await asyncio.gather(*(each.bootstrap(admin=None, given=[]) for each in starts))
    assert sum(secret is not None for secret in made) == 1
    assert await opened[0].read(_count) == 1


async def test_servers_that_start_at_once_add_the_operators_keys_once(
    databases: Databases, migrated_url: str, clock: ManualClock
) -> None:
    hasher = Hasher(PEPPER)
    opened = [databases.open(migrated_url) for _ in range(4)]
    starts = [Keys(each, hasher, clock, Resolver(each, hasher, clock)) for each in opened]
    await asyncio.gather(
        *(each.bootstrap(admin=ADMIN_SECRET, given=[USER_SECRET]) for each in starts)
    )
    assert await opened[0].read(_count) == 2


# --- the operator's own keys ------------------------------------------------------------------


async def test_the_operators_keys_have_their_rights(keys: Keys, resolver: Resolver) -> None:
    assert await keys.bootstrap(admin=ADMIN_SECRET, given=[USER_SECRET]) is None
    admin, user = await resolver.resolve(ADMIN_SECRET), await resolver.resolve(USER_SECRET)
    assert admin.may("admin:keys")
    assert user.may("write:tasks")
    assert user.may("read:usage")
    assert not user.may("admin:keys")


async def test_a_key_no_longer_given_ends_with_the_next_start_and_may_come_back(
    keys: Keys, database: Database, hasher: Hasher, clock: ManualClock
) -> None:
    await keys.bootstrap(admin=ADMIN_SECRET, given=[USER_SECRET])
    await keys.bootstrap(admin=ADMIN_SECRET, given=[])
    with pytest.raises(Unauthenticated):
        await Resolver(database, hasher, clock).resolve(USER_SECRET)
    await keys.bootstrap(admin=ADMIN_SECRET, given=[USER_SECRET])
    await Resolver(database, hasher, clock).resolve(USER_SECRET)
    await keys.bootstrap(admin=None, given=[USER_SECRET])
    with pytest.raises(Unauthenticated):
        await Resolver(database, hasher, clock).resolve(ADMIN_SECRET)


async def test_the_time_of_the_end_is_kept(
    keys: Keys, admin: Principal, clock: ManualClock
) -> None:
    await keys.bootstrap(admin=None, given=[USER_SECRET])
    await keys.bootstrap(admin=None, given=[])
    (before,) = [k for k in (await keys.list(admin, limit=10, after=None)).items if k.revoked_at]
    clock.advance(1000)
    await keys.bootstrap(admin=None, given=[])
    (after,) = [k for k in (await keys.list(admin, limit=10, after=None)).items if k.revoked_at]
    assert before == after


async def test_an_admins_key_that_becomes_a_users_loses_its_rights(
    keys: Keys, database: Database, hasher: Hasher, clock: ManualClock
) -> None:
    await keys.bootstrap(admin=USER_SECRET, given=[])
    await keys.bootstrap(admin=ADMIN_SECRET, given=[USER_SECRET])
    principal = await Resolver(database, hasher, clock).resolve(USER_SECRET)
    assert not principal.may("admin:keys")
    await keys.bootstrap(admin=USER_SECRET, given=[USER_SECRET])  # in both: the admin's
    principal = await Resolver(database, hasher, clock).resolve(USER_SECRET)
    assert principal.may("admin:keys")


async def test_a_key_made_here_may_be_given_too_and_stays_as_it_is(
    keys: Keys, admin: Principal, resolver: Resolver
) -> None:
    _, secret = await keys.create(admin, name="made", scopes=["read:tasks"])
    await keys.bootstrap(admin=None, given=[secret])
    await keys.bootstrap(admin=None, given=[])
    assert (await resolver.resolve(secret)).scopes == {"read:tasks"}


# --- making -----------------------------------------------------------------------------------


async def test_a_made_key_works_and_its_secret_is_nowhere(
    keys: Keys, admin: Principal, resolver: Resolver, database: Database
) -> None:
    key, secret = await keys.create(admin, name="ci-runner", scopes=["write:tasks", "read:*"])
    principal = await resolver.resolve(secret)
    assert (principal.id, principal.key_id, principal.owner) == (key.id, key.id, admin.owner)
    assert principal.scopes == {"write:tasks", "read:*"}
    rows = await database.read(lambda tx: tx.execute(select(api_keys)).all())
    assert secret not in repr(rows)
    assert key.hint == secret[-4:]


@pytest.mark.parametrize(
    "name", ["", "ab", "a" * 51, "with space", "ä" * 5, "a\nb", "abc\n", "../x", "a\0bc"]
)
async def test_names_of_the_wrong_form(keys: Keys, admin: Principal, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        await keys.create(admin, name=name)
    assert caught.value.param == "name"


@pytest.mark.parametrize(
    "scopes", [[], [""], ["read"], ["read:nothing"], ["*:*"], ["read:*", "root:tasks"], ["%"]]
)
async def test_scopes_that_are_none(keys: Keys, admin: Principal, scopes: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        await keys.create(admin, name="name", scopes=scopes)
    assert caught.value.param == "scopes"


@pytest.mark.parametrize(
    ("has", "wants", "allowed"),
    [
        ({"admin:keys"}, ["read:tasks"], False),
        ({"admin:keys", "read:tasks"}, ["read:tasks"], True),
        ({"admin:keys", "read:tasks"}, ["read:*"], False),
        ({"admin:keys", "read:*"}, ["read:*"], True),
        ({"admin:keys", "read:*"}, ["*:tasks"], False),
        ({"admin:keys", "*:tasks"}, ["*:tasks"], True),
        ({"admin:keys", "*:tasks"}, ["read:*"], False),
        ({"admin:*", "read:*", "write:tasks"}, ["*"], False),
        ({"*"}, ["*"], True),
        ({"read:*", "write:*"}, ["read:tasks"], False),  # may not make keys at all
    ],
)
async def test_nobody_gives_what_he_lacks(
    keys: Keys, admin: Principal, has: set[str], wants: list[str], allowed: bool
) -> None:
    principal = replace(admin, scopes=frozenset(has))
    if allowed:
        key, _ = await keys.create(principal, name="name", scopes=wants)
        assert key.scopes == set(wants)
    else:
        with pytest.raises(Denied):
            await keys.create(principal, name="name", scopes=wants)


async def test_a_key_ends_when_it_expires(
    keys: Keys, admin: Principal, resolver: Resolver, clock: ManualClock
) -> None:
    with pytest.raises(Invalid):
        await keys.create(admin, name="name", expires_at=clock.now())
    _, secret = await keys.create(admin, name="name", expires_at=clock.now() + 1000)
    await resolver.resolve(secret)
    clock.advance(0.999)
    await resolver.resolve(secret)
    clock.advance(0.001)
    with pytest.raises(Unauthenticated) as caught:
        await resolver.resolve(secret)
    assert caught.value.error_code == "expired_api_key"


# --- listing and revoking ---------------------------------------------------------------------


@pytest.fixture
async def stranger(database: Database, hasher: Hasher, admin: Principal) -> Principal:
    """An admin of another organisation."""
    del admin  # made first
    owner = Owner("org_other", "proj_other")

    def verb(tx: Transaction) -> Principal:
        tx.execute(insert(organizations), {"id": "org_other", "name": "Other", "created_at": 0})
        tx.execute(
            insert(projects),
            {"id": "proj_other", "organization_id": "org_other", "name": "o", "created_at": 0},
        )
        secret = generate(KEY_PREFIX)
        rights = frozenset({"*"})
        key = fresh("other", owner, rights, secret, source="created", created_at=0, expires_at=None)
        add(tx, key, secret, hasher)
        return Principal("key", key.id, owner, key.id, key.scopes)

    return await database.write(verb)


async def test_a_list_is_paged_newest_first(keys: Keys, admin: Principal) -> None:
    made = [(await keys.create(admin, name=f"key-{number}"))[0].id for number in range(5)]
    seen, after = [], None
    while True:
        page = await keys.list(admin, limit=2, after=after)
        seen += [key.id for key in page.items]
        assert len(page.items) <= 2
        if page.next_cursor is None:
            break
        after = page.next_cursor
    assert seen == sorted([*made, admin.key_id], reverse=True)


async def test_another_owners_keys_are_not_there(
    keys: Keys, admin: Principal, stranger: Principal, resolver: Resolver
) -> None:
    key, secret = await keys.create(admin, name="mine")
    assert [k.id for k in (await keys.list(stranger, limit=10, after=None)).items] == [
        stranger.key_id
    ]
    with pytest.raises(NotFound) as foreign:
        await keys.revoke(stranger, key.id)
    with pytest.raises(NotFound) as absent:
        await keys.revoke(stranger, new_id("key"))
    assert foreign.value.message == absent.value.message
    await resolver.resolve(secret)


@pytest.mark.parametrize("key_id", ["", "key_", "run_01m7y4agzbqsrzd7xxwkcn2zs3", "key_../x", "-x"])
async def test_ids_that_cannot_be(keys: Keys, admin: Principal, key_id: str) -> None:
    with pytest.raises(NotFound):
        await keys.revoke(admin, key_id)
    with pytest.raises(NotFound):
        await keys.list(admin, limit=10, after=key_id)


async def test_a_revoked_key_ends_at_once(
    keys: Keys, admin: Principal, resolver: Resolver, clock: ManualClock
) -> None:
    key, secret = await keys.create(admin, name="short-lived")
    await resolver.resolve(secret)  # and now it is remembered
    revoked = await keys.revoke(admin, key.id)
    assert revoked.revoked_at == clock.now()
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)
    clock.advance(60)
    assert await keys.revoke(admin, key.id) == revoked  # idempotent


async def test_a_key_cannot_revoke_itself(keys: Keys, admin: Principal, database: Database) -> None:
    with pytest.raises(Invalid) as caught:
        await keys.revoke(admin, admin.key_id)
    assert caught.value.error_code == "own_key"
    assert await database.read(_count) == 1


async def test_who_may_not_manage_keys_may_do_nothing_with_them(
    keys: Keys, admin: Principal
) -> None:
    user = replace(admin, scopes=frozenset({"read:*", "write:*"}))
    with pytest.raises(Denied):
        await keys.list(user, limit=10, after=None)
    with pytest.raises(Denied):
        await keys.revoke(user, new_id("key"))
    with pytest.raises(Denied):
        await keys.create(user, name="name", scopes=["read:tasks"])
