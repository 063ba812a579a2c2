"""Signing in, on and out."""

import asyncio
import threading
from typing import Any

import pytest
from pwdlib import PasswordHash
from sqlalchemy import select

from stationmaster.access.lockout import FREE_OF_ADDRESS, FREE_OF_NAME, MAX_LOCK_S
from stationmaster.access.passwords import MAX_WAITING, Passwords, check_password
from stationmaster.access.secret import Hasher
from stationmaster.access.signin import Grant
from stationmaster.access.tables import refresh_tokens, sign_in_failures, sign_ins
from stationmaster.kernel import origin
from stationmaster.kernel.errors import Denied, Exhausted, Invalid, NotFound, Unauthenticated
from stationmaster.kernel.principal import Owner, Principal
from tests.unit.identity.conftest import (
    ADMIN,
    DAY,
    HOUR,
    OPERATOR,
    OWNER,
    PASSWORD,
    Station,
    assemble,
)


async def sign_in(station: Station, password: str = PASSWORD, **fields: str) -> Grant:
    return await station.sign_ins.by_password("ada@example.com", password, **fields)


async def test_who_signs_in_is_who_the_token_says(station: Station) -> None:
    user_id = await station.user()
    grant = await sign_in(station)
    assert (grant.user_id, grant.owner) == (user_id, OWNER)
    assert (grant.expires_in, grant.refresh_expires_in) == (HOUR, 30 * DAY)
    principal = await station.resolver.resolve(grant.access_token)
    assert (principal.kind, principal.id, principal.owner) == ("user", user_id, OWNER)
    assert principal.may("write:tasks")
    assert not principal.may("admin:keys")


async def test_an_email_is_known_in_any_case(station: Station) -> None:
    await station.user()
    await station.sign_ins.by_password("  ADA@Example.COM ", PASSWORD)


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ada@example.com", "wrong password here"),
        ("ada@example.com", ""),
        ("ada@example.com", "x" * 100_000),
        ("ada@example.com", "\ud800"),
        ("nobody@example.com", PASSWORD),
        ("", PASSWORD),
        ("x" * 10_000, PASSWORD),
    ],
)
async def test_every_wrong_sign_in_is_refused_alike(
    station: Station, email: str, password: str
) -> None:
    await station.user()
    with pytest.raises(Unauthenticated) as refused:
        await station.sign_ins.by_password(email, password)
    assert refused.value.error_code == "wrong_credentials"


async def test_who_cannot_sign_in_costs_the_database_the_same_work_too(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So how long a refusal takes does not tell who is here."""
    await station.user("ada@example.com")
    await station.user("grace@example.com", password=None)
    for organization in ("org_a", "org_b"):
        await station.user("both@example.com", organization=organization)
    await station.passwords.prepare()
    work: list[str] = []

    def spied(name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            work.append(name)
            return real(*args, **kwargs)

        return call

    hashing = spied("hash", PasswordHash.verify_and_update)
    monkeypatch.setattr(PasswordHash, "verify_and_update", hashing)
    for name in ("read", "write"):
        monkeypatch.setattr(station.database, name, spied(name, getattr(station.database, name)))
    told = {}
    for person in ("ada", "grace", "both", "nobody"):
        work.clear()
        with pytest.raises(Unauthenticated):
            await station.sign_ins.by_password(f"{person}@example.com", "wrong password here")
        told[person] = list(work)
    assert told["ada"] == ["write", "hash", "write"]
    assert set(map(tuple, told.values())) == {tuple(told["ada"])}


async def test_who_has_no_password_cannot_sign_in_with_one(station: Station) -> None:
    await station.user(password=None)
    for password in ("", PASSWORD, "nobody's password"):
        with pytest.raises(Unauthenticated):
            await sign_in(station, password)


@pytest.mark.parametrize("values", [{"status": "disabled"}, {"removed_at": 5}])
async def test_who_is_no_longer_there_is_out_at_once(
    station: Station, values: dict[str, object]
) -> None:
    user_id = await station.user()
    grant = await sign_in(station)
    await station.change(user_id, **values)
    station.resolver.forget_key(user_id)  # another replica's cache runs out by itself
    with pytest.raises(Unauthenticated):
        await station.resolver.resolve(grant.access_token)
    with pytest.raises(Unauthenticated):
        await station.sign_ins.refresh(grant.refresh_token)
    with pytest.raises(Unauthenticated):
        await sign_in(station)


async def test_one_address_in_two_organisations_must_name_one(station: Station) -> None:
    first = await station.user()
    second = await station.user(organization="org_b", password="another good password")
    with pytest.raises(Unauthenticated):
        await sign_in(station)
    assert (await sign_in(station, organization_id="org_a")).user_id == first
    grant = await sign_in(station, "another good password", organization_id="org_b")
    assert (grant.user_id, grant.owner) == (second, Owner("org_b", "proj_b"))
    with pytest.raises(Unauthenticated):
        await sign_in(station, organization_id="org_b")


async def test_another_organisations_project_is_not_there(station: Station) -> None:
    await station.user()
    with pytest.raises(NotFound):
        await sign_in(station, project_id="proj_b")
    with pytest.raises(NotFound):
        await sign_in(station, project_id="proj_none")


# --- refresh ----------------------------------------------------------------------------------


async def test_a_refresh_token_brings_the_next_one(station: Station) -> None:
    await station.user()
    grant = await sign_in(station)
    for _ in range(3):
        station.clock.advance(20 * DAY)
        following = await station.sign_ins.refresh(grant.refresh_token)
        assert following.refresh_token != grant.refresh_token
        assert (await station.resolver.resolve(following.access_token)).id == grant.user_id
        grant = following


async def test_a_refresh_token_ends_after_its_time(station: Station) -> None:
    await station.user()
    grant = await sign_in(station)
    station.clock.advance(30 * DAY + 1)
    with pytest.raises(Unauthenticated):
        await station.sign_ins.refresh(grant.refresh_token)


async def test_a_token_that_comes_twice_ends_the_family(station: Station) -> None:
    user_id = await station.user()
    stolen = await sign_in(station)
    apart = await sign_in(station)
    owners = await station.sign_ins.refresh(stolen.refresh_token)
    await station.resolver.resolve(owners.access_token)
    with pytest.raises(Unauthenticated):
        await station.sign_ins.refresh(stolen.refresh_token)
    with pytest.raises(Unauthenticated):
        await station.sign_ins.refresh(owners.refresh_token)
    with pytest.raises(Unauthenticated):
        await station.resolver.resolve(owners.access_token)
    # What was signed in elsewhere is another family.
    assert (await station.resolver.resolve(apart.access_token)).id == user_id
    await station.sign_ins.refresh(apart.refresh_token)
    entries = [entry for entry in await station.record() if entry.action == "user.token_reuse"]
    assert [(entry.actor_id, entry.outcome) for entry in entries] == [(user_id, "refused")]


async def test_of_many_that_use_a_token_at_once_one_wins_and_then_none(station: Station) -> None:
    await station.user()
    grant = await sign_in(station)
    answers = await asyncio.gather(
        *(station.sign_ins.refresh(grant.refresh_token) for _ in range(8)), return_exceptions=True
    )
    won = [answer for answer in answers if isinstance(answer, Grant)]
    assert len(won) == 1
    with pytest.raises(Unauthenticated):
        await station.sign_ins.refresh(won[0].refresh_token)


@pytest.mark.parametrize(
    "token",
    ["", "sm_refresh_", "sm_refresh_" + "a" * 46, "sm_live_" + "a" * 46, "x" * 9999, "\ud800"],
)
async def test_what_is_no_refresh_token_is_refused(station: Station, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await station.sign_ins.refresh(token)


async def test_a_refresh_token_is_no_credential(station: Station) -> None:
    await station.user()
    grant = await sign_in(station)
    with pytest.raises(Unauthenticated):
        await station.resolver.resolve(grant.refresh_token)


# --- out --------------------------------------------------------------------------------------


async def test_signing_out_ends_both_tokens(station: Station) -> None:
    await station.user()
    grant = await sign_in(station)
    await station.resolver.resolve(grant.access_token)
    await station.sign_ins.sign_out(grant.access_token)
    await station.sign_ins.sign_out(grant.access_token)
    with pytest.raises(Unauthenticated):
        await station.resolver.resolve(grant.access_token)
    with pytest.raises(Unauthenticated):
        await station.sign_ins.refresh(grant.refresh_token)
    assert [e.action for e in await station.record()].count("user.sign_out") == 1


async def test_what_has_expired_is_swept_and_nothing_else(station: Station) -> None:
    await station.user()
    await sign_in(station)
    station.clock.advance(10 * DAY)
    live = await sign_in(station)
    station.clock.advance(21 * DAY)
    await station.purge().run()

    for table in (sign_ins, refresh_tokens):
        rows = await station.database.read(
            lambda tx, table=table: tx.execute(select(table)).all()  # type: ignore[misc]
        )
        assert len(rows) == 1
    await station.sign_ins.refresh(live.refresh_token)


# --- lockout ----------------------------------------------------------------------------------


async def test_failures_lock_a_name_for_ever_longer(station: Station) -> None:
    await station.user()
    for _ in range(FREE_OF_NAME):
        with pytest.raises(Unauthenticated):
            await sign_in(station, "wrong password here")
    waits = []
    for _ in range(14):
        with pytest.raises(Exhausted) as refused:
            await sign_in(station)
        assert refused.value.error_code == "locked_out"
        wait = refused.value.retry_after
        assert wait is not None
        waits.append(wait)
        station.clock.advance(wait)
        with pytest.raises(Unauthenticated):
            await sign_in(station, "wrong password here")
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert max(waits) == waits[-1] == MAX_LOCK_S
    station.clock.advance(MAX_LOCK_S)
    await sign_in(station)
    with pytest.raises(Unauthenticated):  # counting has begun anew
        await sign_in(station, "wrong password here")
    await sign_in(station)


async def test_many_guesses_at_once_get_no_more_tries(station: Station) -> None:
    await station.user()
    answers = await asyncio.gather(
        *(sign_in(station, f"a wrong guess {n}") for n in range(20)), return_exceptions=True
    )
    kinds = [type(answer) for answer in answers]
    assert kinds.count(Unauthenticated) == FREE_OF_NAME
    assert kinds.count(Exhausted) == 20 - FREE_OF_NAME


async def test_a_name_that_nobody_has_is_locked_like_any_other(station: Station) -> None:
    for _ in range(FREE_OF_NAME):
        with pytest.raises(Unauthenticated):
            await station.sign_ins.by_password("nobody@example.com", PASSWORD)
    with pytest.raises(Exhausted):
        await station.sign_ins.by_password("nobody@example.com", PASSWORD)


async def test_one_address_cannot_try_many_names_for_long(station: Station) -> None:
    await station.user()
    token = origin.begin(origin.Origin("203.0.113.9", "req_1"))
    try:
        for n in range(FREE_OF_ADDRESS):
            with pytest.raises(Unauthenticated):
                await station.sign_ins.by_password(f"name{n}@example.com", PASSWORD)
        with pytest.raises(Exhausted):
            await sign_in(station)
    finally:
        origin.end(token)
    await sign_in(station)  # from elsewhere


async def test_failures_are_forgotten_in_time(station: Station) -> None:
    await station.user()
    for _ in range(FREE_OF_NAME):
        with pytest.raises(Unauthenticated):
            await sign_in(station, "wrong password here")
    station.clock.advance(HOUR + 1)
    for _ in range(FREE_OF_NAME):
        with pytest.raises(Unauthenticated):
            await sign_in(station, "wrong password here")
    station.clock.advance(HOUR + 1)
    await station.purge().run()
    left = await station.database.read(lambda tx: tx.execute(select(sign_in_failures)).all())
    assert left == []


# --- passwords --------------------------------------------------------------------------------


async def test_a_new_password_ends_every_sign_in(station: Station) -> None:
    await station.user()
    first, second = await sign_in(station), await sign_in(station)
    principal = await station.resolver.resolve(first.access_token)
    await station.sign_ins.change_password(principal, PASSWORD, "a quite different one")
    for grant in (first, second):
        with pytest.raises(Unauthenticated):
            await station.resolver.resolve(grant.access_token)
        with pytest.raises(Unauthenticated):
            await station.sign_ins.refresh(grant.refresh_token)
    with pytest.raises(Unauthenticated):
        await sign_in(station)
    await sign_in(station, "a quite different one")


async def test_a_wrong_current_password_changes_nothing_and_counts(station: Station) -> None:
    await station.user()
    principal = await station.resolver.resolve((await sign_in(station)).access_token)
    for _ in range(FREE_OF_NAME):
        with pytest.raises(Invalid) as wrong:
            await station.sign_ins.change_password(principal, "not it at all", "a quite new one")
        assert wrong.value.error_code == "wrong_password"
    with pytest.raises(Exhausted):
        await station.sign_ins.change_password(principal, PASSWORD, "a quite new one")
    await sign_in(station)


async def test_a_key_has_no_password_to_change(station: Station) -> None:
    with pytest.raises(Invalid):
        await station.sign_ins.change_password(ADMIN, PASSWORD, "a quite new one")


async def test_a_password_is_set_by_an_admin_of_the_same_organisation_alone(
    station: Station,
) -> None:
    user_id = await station.user()
    owner_id = await station.user("boss@example.com", role="owner")
    stranger = Principal("key", "key_b", Owner("org_b", "proj_b"), "key_b", frozenset({"*"}))
    with pytest.raises(NotFound):
        await station.sign_ins.set_password(stranger, user_id, "a quite new one")
    member = Principal("key", "key_m", OWNER, "key_m", frozenset({"read:*", "write:*"}))
    with pytest.raises(Denied):
        await station.sign_ins.set_password(member, user_id, "a quite new one")
    admin = Principal("key", "key_n", OWNER, "key_n", frozenset({"admin:*"}))
    await station.sign_ins.set_password(admin, user_id, "a quite new one")
    with pytest.raises(Denied):  # an admin would become the owner
        await station.sign_ins.set_password(admin, owner_id, "a quite new one")
    with pytest.raises(NotFound):
        await station.sign_ins.set_password(ADMIN, "user_nobody", "a quite new one")
    await sign_in(station, "a quite new one")


@pytest.mark.parametrize(
    "password", ["", "short", "x" * 257, "aaaaaaaaaaaaaaaa", "\ud800" * 3 + "abcdefghijkl"]
)
def test_a_weak_password_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_password(password)
    assert not password or password not in refused.value.message


async def test_a_hash_of_another_cost_is_renewed_at_a_sign_in(station: Station) -> None:
    await station.user()
    dearer = Passwords(passes=2, memory_kib=64)
    other = await assemble(
        station.database, station.clock, Hasher(b"a pepper for the tests"), dearer
    )
    await other.sign_ins.by_password("ada@example.com", PASSWORD)
    right, newer = await dearer.verify(PASSWORD, await _stored(station))
    assert (right, newer) == (True, None)
    dearer.close()


async def _stored(station: Station) -> str:
    from stationmaster.access.tables import user_passwords

    query = select(user_passwords.c.hash)
    return str(await station.database.read(lambda tx: tx.execute(query).scalar()))


async def test_hashing_is_never_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, seen = Passwords(passes=1, memory_kib=64), set()
    hasher = passwords._hasher()
    for name in ("hash", "verify_and_update"):
        real = getattr(hasher, name)

        def watched(*args: object, real: object = real) -> object:
            seen.add(threading.current_thread().name)
            return real(*args)  # type: ignore[operator]

        monkeypatch.setattr(hasher, name, watched)
    stored = await passwords.hash(PASSWORD)
    assert (await passwords.verify(PASSWORD, stored))[0]
    assert not (await passwords.verify(PASSWORD, None))[0]
    passwords.close()
    assert seen
    assert all(name.startswith("argon2") for name in seen)


async def test_very_many_at_once_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, go = Passwords(passes=1, memory_kib=64), threading.Event()
    monkeypatch.setattr(passwords, "_verify", lambda *_: go.wait(10) and (True, None))
    waiting = [asyncio.create_task(passwords.verify("x", None)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Exhausted):
        await passwords.verify("x", None)
    go.set()
    await asyncio.gather(*waiting)
    await passwords.verify("x", None)
    passwords.close()


async def test_a_name_that_nobody_has_costs_the_same_work(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    await station.user()
    done: list[str] = []
    hasher = station.passwords._hasher()
    real = hasher.verify_and_update

    def counted(password: str, stored: str) -> tuple[bool, str | None]:
        done.append(stored.rpartition("$")[0].rpartition("$")[0])  # its kind and its cost
        return real(password, stored)

    monkeypatch.setattr(hasher, "verify_and_update", counted)
    for email in ("ada@example.com", "nobody@example.com"):
        with pytest.raises(Unauthenticated):
            await station.sign_ins.by_password(email, "wrong password here")
    assert len(done) == 2
    assert len(set(done)) == 1


# --- on record --------------------------------------------------------------------------------


async def test_what_happens_is_on_record(station: Station) -> None:
    user_id = await station.user()
    grant = await sign_in(station)
    for _ in range(FREE_OF_NAME):
        with pytest.raises(Unauthenticated):
            await sign_in(station, "wrong password here")
    await station.sign_ins.sign_out(grant.access_token)
    entries = await station.record()
    assert [(e.action, e.actor_kind, e.outcome) for e in entries] == [
        ("user.set_password", "key", "success"),
        ("user.sign_in", "user", "success"),
        *[("user.sign_in", "user", "refused")] * FREE_OF_NAME,
        ("user.lock_out", "user", "success"),
        ("user.sign_out", "user", "success"),
    ]
    assert {entry.actor_id for entry in entries[1:]} == {user_id}
    with pytest.raises(Unauthenticated):
        await station.sign_ins.by_password("nobody@example.com", PASSWORD)
    (unknown,) = await station.record(OPERATOR)
    assert (unknown.actor_kind, unknown.actor_id) == ("anonymous", "")
    text = repr([*entries, unknown])
    for secret in (PASSWORD, "wrong password", "nobody@", grant.access_token, grant.refresh_token):
        assert secret not in text
    assert all(verdict.whole for verdict in await station.chains.verify())
