"""What a credential may do now, how it is found, and that its use is noted."""

from typing import Any

import pytest
from sqlalchemy import insert, select

from stationmaster.access import Bounds, Keys, LastUse, Resolver, RunTokens, profiles, standing
from stationmaster.access.binding import Belongs
from stationmaster.access.directory import Directory
from stationmaster.access.projects import ProjectChange
from stationmaster.access.secret import Hasher
from stationmaster.access.tables import api_keys
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import (
    Conflict,
    Denied,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Limits, Owner, Principal
from stationmaster.storage import Database, Transaction


@pytest.fixture
def directory(
    database: Database, hasher: Hasher, clock: ManualClock, resolver: Resolver
) -> Directory:
    return Directory.of(database=database, hasher=hasher, clock=clock, resolver=resolver)


# --- rights of a key and of whom it belongs to ------------------------------------------------


async def test_a_key_is_held_to_its_users_role(
    keys: Keys, admin: Principal, resolver: Resolver, directory: Directory
) -> None:
    user = await directory.users.create(admin, email="a@example.org", name="A", role="admin")
    _, secret = await keys.create(admin, name="key", belongs=Belongs(user_id=user.id))
    principal = await resolver.resolve(secret)
    assert (principal.user_id, principal.may("admin:keys")) == (user.id, True)
    assert not principal.may("own:organization")
    await directory.users.update(admin, user.id, role="viewer")
    principal = await resolver.resolve(secret)
    assert (principal.may("read:tasks"), principal.may("write:tasks")) == (True, False)
    await directory.users.update(admin, user.id, status="disabled")
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)
    await directory.users.update(admin, user.id, status="active")
    await resolver.resolve(secret)
    await directory.users.remove(admin, user.id)
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)


async def test_in_another_project_a_person_has_the_role_of_a_membership(
    keys: Keys, admin: Principal, resolver: Resolver, directory: Directory
) -> None:
    user = await directory.users.create(admin, email="a@example.org", name="A", role="member")
    place = await directory.projects.create(admin, ProjectChange(name="Lab"))
    belongs = Belongs(project_id=place.id, user_id=user.id)
    _, secret = await keys.create(admin, name="key", scopes=["read:*", "write:*"], belongs=belongs)
    assert not (await resolver.resolve(secret)).may("read:tasks")
    await directory.members.add(admin, "user", place.id, user.id, role="viewer")
    principal = await resolver.resolve(secret)
    assert principal.owner == Owner("org_default", place.id)
    assert (principal.may("read:tasks"), principal.may("write:tasks")) == (True, False)
    await directory.members.update(admin, "user", place.id, user.id, role="member")
    assert (await resolver.resolve(secret)).may("write:tasks")
    await directory.projects.archive(admin, place.id)
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)


async def test_a_key_that_a_persons_key_makes_is_the_persons(
    keys: Keys, admin: Principal, resolver: Resolver, directory: Directory
) -> None:
    user = await directory.users.create(admin, email="a@example.org", name="A", role="admin")
    _, secret = await keys.create(
        admin, name="key", scopes=["admin:*", "read:*"], belongs=Belongs(user_id=user.id)
    )
    heir, heirs_secret = await keys.create(
        await resolver.resolve(secret), name="heir", scopes=["read:*"]
    )
    assert (heir.user_id, heir.created_by) == (user.id, user.id)
    await directory.users.remove(admin, user.id)
    with pytest.raises(Unauthenticated):
        await resolver.resolve(heirs_secret)


async def test_a_signed_in_user_has_the_same_rights(
    database: Database, admin: Principal, directory: Directory
) -> None:
    user = await directory.users.create(admin, email="a@example.org", name="A", role="member")
    place = await directory.projects.create(admin, ProjectChange(name="Lab"))

    async def found(project_id: str | None = None, user_id: str = user.id) -> Principal | None:
        return await database.read(lambda tx: standing.of_user(tx, user_id, project_id))

    here, there = await found(), await found(place.id)
    assert here is not None
    assert there is not None
    assert (here.kind, here.owner, here.key_id) == ("user", admin.owner, user.id)
    assert (here.may("write:tasks"), there.may("read:tasks")) == (True, False)
    assert await found("proj_nowhere") is None
    assert await found(user_id=new_id("user")) is None
    await directory.users.remove(admin, user.id)
    assert await found() is None


async def test_a_run_has_the_bounds_of_what_started_it(
    *,
    keys: Keys,
    tokens: RunTokens,
    database: Database,
    admin: Principal,
    resolver: Resolver,
    directory: Directory,
) -> None:
    bounds = Bounds(
        profile=profiles.profile("pro", {}),
        limits=Limits(requests_per_minute=7),
        models=("haiku",),
        addresses=("192.0.2.0/24",),
    )
    key, _ = await keys.create(admin, name="key", bounds=bounds)
    user = await directory.users.create(admin, email="a@example.org", name="A", role="member")

    async def token_of(key_id: str) -> str:
        def verb(tx: Transaction) -> str:
            token_id, secret = tokens.issue(tx)
            tokens.bind(
                tx, token_id, owner=admin.owner, key_id=key_id, run_id="run_1", session_id="s"
            )
            return secret

        return await database.write(verb)

    secret = await token_of(key.id)
    run = await resolver.resolve(secret)
    assert run.kind == "run"
    assert run.scopes == {"write:messages"}
    assert (run.limits, run.profile) == (bounds.limits, bounds.profile)
    assert run.models == frozenset({"haiku"})
    assert run.networks == ()
    await keys.revoke(admin, key.id)
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)
    secret = await token_of(user.id)  # of a signed-in user
    assert (await resolver.resolve(secret)).user_id == user.id
    await directory.users.remove(admin, user.id)
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)


async def test_limits_of_all_levels_come_along(
    keys: Keys, admin: Principal, resolver: Resolver, directory: Directory
) -> None:
    _, secret = await keys.create(
        admin, name="key", bounds=Bounds(limits=Limits(requests_per_minute=1))
    )
    await directory.organizations.update(admin, limits={"burst": 3})
    await directory.projects.update(
        admin, admin.owner.project_id, ProjectChange(limits={"requests_per_minute": 2})
    )
    principal = await resolver.resolve(secret)
    assert principal.limits == Limits(requests_per_minute=1)
    assert principal.project_limits == Limits(requests_per_minute=2)
    assert principal.organization_limits == Limits(burst=3)
    with pytest.raises(Invalid):
        await directory.organizations.update(admin, limits={"no_such": 3})


# --- people -----------------------------------------------------------------------------------


async def test_only_an_owner_makes_owners_and_there_is_always_one(
    admin: Principal, keys: Keys, resolver: Resolver, directory: Directory
) -> None:
    owner = await directory.users.create(admin, email="o@example.org", name="O", role="owner")
    _, secret = await keys.create(admin, name="key", scopes=["admin:*"])
    manager = await resolver.resolve(secret)
    for role in ("owner", "admin"):
        with pytest.raises(Denied):
            await directory.users.create(manager, email="x@example.org", name="X", role=role)
        with pytest.raises(Denied):
            await directory.invites.create(manager, email="x@example.org", role=role)
    with pytest.raises(Denied):
        await directory.users.update(manager, owner.id, role="viewer")
    with pytest.raises(Denied):
        await directory.users.remove(manager, owner.id)
    _, secret = await keys.create(admin, name="key", scopes=["admin:*", "read:*"])
    with pytest.raises(Denied):  # nor acts in the name of one
        await keys.create(
            await resolver.resolve(secret),
            name="name",
            scopes=["read:tasks"],
            belongs=Belongs(user_id=owner.id),
        )
    for attempt in (
        directory.users.update(admin, owner.id, role="admin"),
        directory.users.update(admin, owner.id, status="disabled"),
        directory.users.remove(admin, owner.id),
    ):
        with pytest.raises(Conflict) as caught:
            await attempt
        assert caught.value.error_code == "last_owner"
    await directory.users.create(admin, email="p@example.org", name="P", role="owner")
    await directory.users.remove(admin, owner.id)


@pytest.mark.parametrize(
    "email", ["", "a", "a@", "@b", "a b@c", "a@b\nBcc: c@d", "ä@b", "a@" + "b" * 260, "a@b..c"]
)
async def test_what_is_no_address_is_refused(
    admin: Principal, directory: Directory, email: str
) -> None:
    with pytest.raises(Invalid):
        await directory.users.create(admin, email=email, name="A")
    with pytest.raises(Invalid):
        await directory.invites.create(admin, email=email, role="member")


async def test_an_invite_expires(
    admin: Principal, directory: Directory, clock: ManualClock
) -> None:
    invite = await directory.invites.create(admin, email="a@example.org", role="member")
    token = await directory.invites.token(admin, invite.id)
    clock.advance(21 * 86_400)
    with pytest.raises(Unauthenticated):
        await directory.invites.accept(token, name="A")
    with pytest.raises(Conflict):
        await directory.invites.token(admin, invite.id)
    await directory.invites.create(admin, email="a@example.org", role="member")  # again


async def test_a_tenant_is_made_by_the_operator_alone(
    admin: Principal, resolver: Resolver, directory: Directory
) -> None:
    made, key, secret = await directory.organizations.create(admin, name="Acme")
    master = await resolver.resolve(secret)
    assert master.owner == Owner(made.id, key.owner.project_id)
    assert (await directory.organizations.mine(master)).name == "Acme"
    with pytest.raises(Denied):
        await directory.organizations.create(master, name="Another")
    with pytest.raises(NotFound):
        await directory.projects.get(master, admin.owner.project_id)


# --- finding ----------------------------------------------------------------------------------


async def test_a_key_is_found_by_an_index_however_many_there_are(
    database: Database, admin: Principal
) -> None:
    def fill(tx: Transaction) -> None:
        row = {
            "organization_id": "org_default",
            "project_id": "proj_default",
            "name": "many",
            "hint": "",
            "source": "created",
            "scopes": ["*"],
            "created_at": 1,
        }
        tx.execute(
            insert(api_keys),
            [{**row, "id": f"key_{n:026d}", "hash": f"{n:064x}"} for n in range(2000)],
        )

    await database.write(fill)
    plan = await database.read(lambda tx: _plan(tx, database.dialect))
    assert "uq_api_keys_hash" in plan or "sqlite_autoindex_api_keys" in plan, plan
    assert "SCAN api_keys" not in plan
    assert "Seq Scan on api_keys" not in plan
    del admin


def _plan(tx: Transaction, dialect: str) -> str:
    from sqlalchemy import text
    from sqlalchemy.dialects import postgresql, sqlite

    module: Any = sqlite if dialect == "sqlite" else postgresql
    compiled = standing.BY_HASH.params(digest="0" * 64).compile(
        dialect=module.dialect(), compile_kwargs={"literal_binds": True}
    )
    explain = "EXPLAIN QUERY PLAN " if dialect == "sqlite" else "EXPLAIN "
    return "\n".join(str(row) for row in tx.execute(text(explain + str(compiled))))


# --- last use ---------------------------------------------------------------------------------


async def test_uses_are_noted_and_written_together(
    *,
    keys: Keys,
    database: Database,
    hasher: Hasher,
    clock: ManualClock,
    admin: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last_use = LastUse(database, clock)
    resolver = Resolver(database, hasher, clock, last_use=last_use)
    made = [await keys.create(admin, name=f"key-{number}") for number in range(3)]
    for _, secret in made[:2]:
        await resolver.resolve(secret)
    clock.advance(1)
    await resolver.resolve(made[0][1])
    noted_at = clock.now()

    async def away(_: Any) -> Any:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(database, "write", away)
        with pytest.raises(Unavailable):
            await last_use.flush()
    assert await last_use.flush() == 2  # nothing was lost meanwhile
    assert await last_use.flush() == 0

    async def used(key_id: str) -> int | None:
        query = select(api_keys.c.last_used_at).where(api_keys.c.id == key_id)
        found: int | None = await database.read(lambda tx: tx.execute(query).scalar())
        return found

    assert await used(made[0][0].id) == noted_at
    assert await used(made[1][0].id) == noted_at - 1000
    assert await used(made[2][0].id) is None
    clock.advance(-10)  # another server's clock is behind: the later use stays
    last_use.note(made[0][0].id)
    await last_use.flush()
    assert await used(made[0][0].id) == noted_at
