"""From a credential to a principal: what is refused, remembered, and forgotten."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stationmaster.access import Keys, Resolver, RunTokens
from stationmaster.access import resolver as module
from stationmaster.access.secret import KEY_PREFIX, TOKEN_PREFIX, generate
from stationmaster.kernel.errors import Conflict, Unauthenticated, Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database
from tests.unit.access.conftest import DEFAULT


class Reads:
    """Counts a database's reads, and lets them fail."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.away = False
        self.before_answer: Callable[[], Any] | None = None
        self._real = database.read
        monkeypatch.setattr(database, "read", self._read)

    async def _read(self, query: Any) -> Any:
        self.count += 1
        if self.away:
            raise Unavailable
        answer = await self._real(query)
        if self.before_answer is not None:
            await self.before_answer()
        return answer


@pytest.fixture
def reads(admin: Principal, database: Database, monkeypatch: pytest.MonkeyPatch) -> Reads:
    del admin  # made first
    return Reads(database, monkeypatch)


@pytest.mark.parametrize(
    "secret",
    [None, "", "x", "wrong", KEY_PREFIX, TOKEN_PREFIX + "x", KEY_PREFIX + "x" * 46,
     KEY_PREFIX + "\ud800" * 46, "\ud800", "a\0b", "' OR 1=1 --", "x" * 100_000,
     KEY_PREFIX + "x" * 100_000, "é" * 40],
)  # fmt: skip
async def test_what_is_no_key(resolver: Resolver, admin: Principal, secret: str | None) -> None:
    assert admin.kind == "key"
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)


async def test_a_typing_error_costs_no_query(resolver: Resolver, reads: Reads) -> None:
    good = generate(KEY_PREFIX)
    for secret in (good[:-1] + "!", "x" * 1000):
        with pytest.raises(Unauthenticated):
            await resolver.resolve(secret)
    assert reads.count == 0
    with pytest.raises(Unauthenticated):
        await resolver.resolve(good)
    assert reads.count == 1


async def test_a_known_key_is_remembered_for_a_short_time(
    keys: Keys, resolver: Resolver, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys.bootstrap(admin="operators-key-0123456789", given=[])
    for _ in range(3):
        await resolver.resolve("operators-key-0123456789")
    assert reads.count == 1
    monkeypatch.setattr(module, "CACHE_S", -1.0)  # the time is over
    await resolver.resolve("operators-key-0123456789")
    assert reads.count == 2


async def test_a_key_that_many_ask_for_at_once_is_looked_up_once(
    keys: Keys, resolver: Resolver, reads: Reads
) -> None:
    await keys.bootstrap(admin="operators-key-0123456789", given=[])
    asked = [resolver.resolve("operators-key-0123456789") for _ in range(20)]
    found = await asyncio.gather(*asked)
    assert len({principal.id for principal in found}) == 1
    assert reads.count == 1


async def test_one_who_goes_takes_no_other_along(
    keys: Keys, resolver: Resolver, reads: Reads
) -> None:
    await keys.bootstrap(admin="operators-key-0123456789", given=[])
    going, on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        going.set()
        await on.wait()

    reads.before_answer = wait
    first = asyncio.create_task(resolver.resolve("operators-key-0123456789"))
    await going.wait()
    second = asyncio.create_task(resolver.resolve("operators-key-0123456789"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait((first,))
    on.set()
    assert (await second).kind == "key"
    assert first.cancelled()
    assert reads.count == 1


async def test_who_asks_after_a_revocation_does_not_hear_what_was_asked_before(
    keys: Keys, resolver: Resolver, reads: Reads
) -> None:
    await keys.bootstrap(admin="operators-key-0123456789", given=[])
    asked, on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await on.wait()

    reads.before_answer = wait
    early = asyncio.create_task(resolver.resolve("operators-key-0123456789"))
    await asked.wait()
    resolver.forget_all()
    late = asyncio.create_task(resolver.resolve("operators-key-0123456789"))
    on.set()
    assert (await early).kind == (await late).kind == "key"
    assert reads.count == 2


async def test_known_keys_are_believed_for_a_while_when_the_database_is_away(
    keys: Keys, resolver: Resolver, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys.bootstrap(admin="operators-key-0123456789", given=["another-key-0123456789"])
    known = await resolver.resolve("operators-key-0123456789")
    monkeypatch.setattr(module, "CACHE_S", -1.0)
    reads.away = True
    assert await resolver.resolve("operators-key-0123456789") == known
    with pytest.raises(Unavailable):
        await resolver.resolve("another-key-0123456789")  # never seen: not known to be good
    with pytest.raises(Unauthenticated):
        await resolver.resolve(KEY_PREFIX + "nonsense")
    monkeypatch.setattr(module, "CACHE_WHILE_AWAY_S", -1.0)
    with pytest.raises(Unavailable):
        await resolver.resolve("operators-key-0123456789")
    reads.away = False
    assert await resolver.resolve("operators-key-0123456789") == known


async def test_the_memory_is_bounded_and_keeps_the_newest(
    keys: Keys, resolver: Resolver, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHE_SIZE", 3)
    secrets = [f"operators-key-number-{number}" for number in range(6)]
    await keys.bootstrap(admin=None, given=secrets)
    for secret in secrets:
        await resolver.resolve(secret)
    assert reads.count == 6
    await resolver.resolve(secrets[-1])
    assert reads.count == 6
    await resolver.resolve(secrets[0])
    assert reads.count == 7


async def test_a_lookup_that_a_revocation_overtakes_is_not_remembered(
    keys: Keys, admin: Principal, resolver: Resolver, reads: Reads
) -> None:
    key, secret = await keys.create(admin, name="racing")
    read, go_on = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        read.set()
        await go_on.wait()

    reads.before_answer = pause
    looking = asyncio.create_task(resolver.resolve(secret))
    await read.wait()
    await keys.revoke(admin, key.id)
    go_on.set()
    await looking  # it was good when it was looked up
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)


# --- run tokens -------------------------------------------------------------------------------


async def _issue(database: Database, tokens: RunTokens) -> tuple[str, str]:
    return await database.write(tokens.issue)


async def _bind(
    database: Database, tokens: RunTokens, token_id: str, key_id: str, run_id: str
) -> None:
    await database.write(
        lambda tx: tokens.bind(
            tx, token_id, owner=DEFAULT, key_id=key_id, run_id=run_id, session_id="sesn_1"
        )
    )


async def test_a_token_has_no_rights_until_a_run_has_it(
    database: Database, tokens: RunTokens, resolver: Resolver, admin: Principal
) -> None:
    token_id, secret = await _issue(database, tokens)
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)
    run_id = new_id("run")
    await _bind(database, tokens, token_id, admin.key_id, run_id)
    principal = await resolver.resolve(secret)
    assert principal == Principal(
        "run", token_id, DEFAULT, admin.key_id, frozenset({"write:messages"}), run_id, "sesn_1"
    )
    assert not any(principal.may(scope) for scope in ("write:tasks", "read:tasks", "admin:keys"))


async def test_a_token_is_bound_to_one_run(
    database: Database, tokens: RunTokens, resolver: Resolver, admin: Principal
) -> None:
    token_id, secret = await _issue(database, tokens)
    binds = [
        _bind(database, tokens, token_id, admin.key_id, f"run_{number}") for number in range(8)
    ]
    results = await asyncio.gather(*binds, return_exceptions=True)
    (winner,) = [number for number, result in enumerate(results) if result is None]
    assert sum(isinstance(result, Conflict) for result in results) == 7
    assert (await resolver.resolve(secret)).run_id == f"run_{winner}"


async def test_a_token_that_is_not_there_cannot_be_bound(
    database: Database, tokens: RunTokens, admin: Principal
) -> None:
    with pytest.raises(Conflict):
        await _bind(database, tokens, new_id("tok"), admin.key_id, "run_1")


async def test_a_token_has_no_rights_after_its_run_and_serves_the_next(
    database: Database, tokens: RunTokens, resolver: Resolver, admin: Principal
) -> None:
    token_id, secret = await _issue(database, tokens)
    await _bind(database, tokens, token_id, admin.key_id, "run_1")
    await resolver.resolve(secret)
    await database.write(lambda tx: tokens.unbind_run(tx, "run_1"))
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)
    await _bind(database, tokens, token_id, admin.key_id, "run_2")
    await database.write(lambda tx: tokens.unbind_run(tx, "run_1"))
    assert (await resolver.resolve(secret)).run_id == "run_2"


@pytest.mark.parametrize("bound", [False, True])
async def test_a_token_is_revoked_for_good(
    database: Database, tokens: RunTokens, resolver: Resolver, admin: Principal, bound: bool
) -> None:
    token_id, secret = await _issue(database, tokens)
    if bound:
        await _bind(database, tokens, token_id, admin.key_id, "run_1")
        await resolver.resolve(secret)
    for _ in range(2):
        await database.write(lambda tx: tokens.revoke(tx, token_id))
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)
    with pytest.raises(Conflict):
        await _bind(database, tokens, token_id, admin.key_id, "run_2")
    await database.write(lambda tx: tokens.revoke(tx, new_id("tok")))


async def test_a_token_is_dead_when_the_key_behind_it_is_revoked(
    database: Database, tokens: RunTokens, resolver: Resolver, keys: Keys, admin: Principal
) -> None:
    key, _ = await keys.create(admin, name="behind")
    token_id, secret = await _issue(database, tokens)
    await _bind(database, tokens, token_id, key.id, "run_1")
    await resolver.resolve(secret)
    await keys.revoke(admin, key.id)
    with pytest.raises(Unauthenticated):
        await resolver.resolve(secret)
