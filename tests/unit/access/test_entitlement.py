"""Spending by a credential that has ended on another server."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from stationmaster.access import Keys, Resolver, RunTokens
from stationmaster.access import resolver as resolving
from stationmaster.access.entitlement import Spender, still_good
from stationmaster.access.keys import KeyChange
from stationmaster.access.secret import Hasher
from stationmaster.access.tables import (
    api_keys,
    organizations,
    projects,
    service_accounts,
    users,
)
from stationmaster.budgets import Budgets, CallContext, Reserved
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Unauthenticated
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction
from tests.support.databases import Databases
from tests.unit.access.conftest import DEFAULT, PEPPER

USER = {
    "id": "user_01jd3k00000000000000000000",
    "organization_id": "org_default",
    "name": "Ada",
    "role": "member",
    "status": "active",
    "created_at": 1,
}
ACCOUNT = {
    "id": "svac_01jd3k00000000000000000000",
    "organization_id": "org_default",
    "name": "ci",
    "description": "",
    "role": "member",
    "created_at": 1,
    "updated_at": 1,
}


async def good(database: Database, clock: ManualClock, *spenders: Spender) -> list[bool]:
    return await database.read(lambda tx: still_good(tx, spenders, clock.now()))


async def test_each_is_asked_for_itself(
    database: Database, clock: ManualClock, keys: Keys, admin: Principal, tokens: RunTokens
) -> None:
    one, _ = await keys.create(admin, name="one")
    two, _ = await keys.create(admin, name="two")
    await keys.revoke(admin, one.id)
    run_id = new_id("run")

    def bind(tx: Transaction) -> None:
        token_id, _ = tokens.issue(tx)
        tokens.bind(tx, token_id, owner=DEFAULT, key_id=two.id, run_id=run_id, session_id="sesn_1")
        tx.execute(insert(users), USER)

    await database.write(bind)
    spenders = (
        Spender(one.id, None),
        Spender(two.id, None),
        Spender("key_01jd3k00000000000000000000", None),
        Spender(two.id, run_id),
        Spender(two.id, "run_another"),
        Spender(one.id, run_id),
        Spender(USER["id"], None),  # type: ignore[arg-type]
        Spender("user_01jd3k00000000000000000001", None),
        Spender("", None),
    )
    assert await good(database, clock, *spenders) == [
        False,
        True,
        False,
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    await database.write(lambda tx: tokens.unbind_run(tx, run_id))
    assert await good(database, clock, Spender(two.id, run_id)) == [False]
    assert await good(database, clock) == []


ENDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "revoked": (api_keys, {"revoked_at": 1}),
    "disabled": (api_keys, {"disabled_at": 1}),
    "expired": (api_keys, {"expires_at": 1}),
    "its project archived": (projects, {"archived_at": 1}),
    "its organisation archived": (organizations, {"archived_at": 1}),
    "its user disabled": (users, {"status": "disabled"}),
    "its user removed": (users, {"removed_at": 1}),
    "its account archived": (service_accounts, {"archived_at": 1}),
}


@pytest.mark.parametrize("how", ENDS)
async def test_a_key_ends_with_what_it_hangs_on(
    database: Database, clock: ManualClock, keys: Keys, admin: Principal, how: str
) -> None:
    of_user, _ = await keys.create(admin, name="of-user")
    of_account, _ = await keys.create(admin, name="of-account")

    def belong(tx: Transaction) -> None:
        tx.execute(insert(users), USER)
        tx.execute(insert(service_accounts), ACCOUNT)
        for key, column, owner in (
            (of_user, "user_id", USER),
            (of_account, "service_account_id", ACCOUNT),
        ):
            put = update(api_keys).where(api_keys.c.id == key.id)
            tx.execute(put.values({column: owner["id"]}))

    await database.write(belong)
    both = (Spender(of_user.id, None), Spender(of_account.id, None))
    assert await good(database, clock, *both) == [True, True]
    table, values = ENDS[how]
    await database.write(lambda tx: tx.execute(update(table).values(**values)))
    ended = await good(database, clock, *both)
    assert ended == [how == "its account archived", how.startswith("its user")]


async def test_what_is_revoked_on_one_server_spends_nothing_on_another(
    databases: Databases, clock: ManualClock, hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "CACHE_S", 3600.0)  # however busy the machine is
    url = databases.url()
    here, there = databases.open(url), databases.open(url)
    keys = Keys(here, hasher, clock, Resolver(here, hasher, clock))
    away = Resolver(there, Hasher(PEPPER), clock)

    def entitled(tx: Transaction, contexts: Any) -> list[bool]:
        spenders = [Spender(context.key_id, context.run_id) for context in contexts]
        return still_good(tx, spenders, clock.now())

    budgets = Budgets(there, clock, instance_id="ins_there", entitled=entitled)

    def call(principal: Principal) -> CallContext:
        return CallContext(
            new_id("call"), principal.owner, principal.key_id, None, None, "offline", "m"
        )

    admin = await away.resolve(await keys.bootstrap(admin=None, given=[]))
    for ending in (KeyChange(revoke=True), KeyChange(enabled=False)):
        made, secret = await keys.create(admin, name="spender")
        spender = await away.resolve(secret)
        assert isinstance(await budgets.reserve(call(spender), 5), Reserved)
        await keys.update(admin, made.id, ending)
        assert await away.resolve(secret) == spender  # remembered there: it may still look
        with pytest.raises(Unauthenticated):
            await budgets.reserve(call(spender), 5)
        # Another's call of the same batch is not touched by it.
        assert isinstance(await budgets.reserve(call(admin), 5), Reserved)
    held = await there.read(lambda tx: budgets.holds_of(tx, "ins_there"))
    assert held == 4
