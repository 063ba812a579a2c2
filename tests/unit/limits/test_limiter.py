"""Which limits a caller's requests count against, and what a refusal says."""

from dataclasses import replace

import pytest

from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.principal import Limits, Owner, Principal
from stationmaster.limits import Failures, Limiter, MemoryStore, Policy, Rate, RateLimited
from stationmaster.limits.grant import NOTHING
from stationmaster.limits.limiter import PLANS
from stationmaster.limits.policy import site

OWNER = Owner("org_1", "proj_1")
NO_SCOPES: frozenset[str] = frozenset()


def key(name: str, owner: Owner = OWNER, limits: Limits | None = None) -> Principal:
    return Principal("key", f"key_{name}", owner, f"key_{name}", NO_SCOPES, limits=limits)


class Desk:
    """A limiter in memory, and what it reports."""

    def __init__(self, policy: Policy | None) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.refused: list[tuple[str, str]] = []
        self.limiter = Limiter(policy, self.store, on_refused=self._note)

    def _note(self, level: str, unit: str) -> None:
        self.refused.append((level, unit))


async def passes(desk: Desk, principal: Principal, **more: str) -> int:
    """How many requests in a row pass; at most 50."""
    kind = more.pop("kind", "write")
    for number in range(50):
        try:
            await desk.limiter.admit(principal, kind, **more)  # type: ignore[arg-type]
        except RateLimited:
            return number
    return 50


SAME_PROJECT = key("b")
SAME_ORGANIZATION = key("c", Owner("org_1", "proj_2"))
STRANGER = key("d", Owner("org_2", "proj_3"))


@pytest.mark.parametrize(
    ("policy", "level", "counted_together"),
    [
        (Policy(everything=Rate(3)), "global", {"b", "c", "d"}),
        (Policy(organization=Rate(3)), "organization", {"b", "c"}),
        (Policy(project=Rate(3)), "project", {"b"}),
        (Policy(key=Rate(3)), "key", set()),
        (Policy(classes={"write": Rate(3)}), "class", set()),
    ],
)
async def test_each_level_counts_those_that_belong_to_it(
    policy: Policy, level: str, counted_together: set[str]
) -> None:
    desk = Desk(policy)
    assert await passes(desk, key("a")) == 3
    assert desk.refused == [(level, "requests")]
    for name, other in (("b", SAME_PROJECT), ("c", SAME_ORGANIZATION), ("d", STRANGER)):
        assert await passes(desk, other) == (0 if name in counted_together else 3), name


async def test_a_user_is_one_whatever_key_is_used() -> None:
    desk = Desk(Policy(user=Rate(3)))
    one, two = (replace(key(name), user_id="user_1") for name in "ab")
    assert await passes(desk, one) == 3
    assert await passes(desk, two) == 0
    assert await passes(desk, key("a")) == 50


async def test_an_address_is_one_whoever_calls() -> None:
    desk = Desk(Policy(address=Rate(3)))
    assert await passes(desk, key("a"), address="192.0.2.1") == 3
    assert await passes(desk, key("b"), address="192.0.2.1") == 0
    assert await passes(desk, key("a"), address="192.0.2.2") == 3
    assert await passes(desk, key("a")) == 50


async def test_without_a_credential_the_address_counts() -> None:
    desk = Desk(Policy(everything=Rate(8), classes={"auth": Rate(3)}, key=Rate(1)))
    for address, most in (("192.0.2.1", 3), ("192.0.2.2", 3), ("192.0.2.3", 2)):
        for _ in range(most):
            await desk.limiter.admit_address(address, "auth")
        with pytest.raises(RateLimited):
            await desk.limiter.admit_address(address, "auth")
    assert desk.refused == [("class", "requests")] * 2 + [("global", "requests")]
    with pytest.raises(RateLimited):
        await desk.limiter.admit_address(None, "auth")
    assert await Desk(None).limiter.admit_address("192.0.2.1", "auth") is NOTHING


async def test_a_run_counts_against_the_key_that_started_it() -> None:
    desk = Desk(Policy(key=Rate(4), classes={"chat": Rate(3)}))
    run = Principal("run", "tok_1", OWNER, "key_a", NO_SCOPES, "run_1", "sess_1")
    other = replace(run, id="tok_2", run_id="run_2")
    await desk.limiter.admit(run, "chat")
    await desk.limiter.admit(other, "chat")
    await desk.limiter.admit(key("a"), "chat")
    with pytest.raises(RateLimited):
        await desk.limiter.admit(run, "chat")
    await desk.limiter.admit(key("a"), "read")
    with pytest.raises(RateLimited):
        await desk.limiter.admit(key("a"), "read")


async def test_classes_are_counted_apart() -> None:
    desk = Desk(Policy(classes={"tasks": Rate(2), "chat": Rate(3)}))
    assert await passes(desk, key("a"), kind="tasks") == 2
    assert await passes(desk, key("a"), kind="chat") == 3
    assert await passes(desk, key("a"), kind="read") == 50


async def test_a_keys_own_limit_replaces_the_usual_one_and_its_burst() -> None:
    desk = Desk(Policy(key=Rate(10, burst=15)))
    assert await passes(desk, key("a")) == 15
    assert await passes(desk, key("b", limits=Limits(requests_per_minute=20))) == 20
    assert await passes(desk, key("c", limits=Limits(requests_per_minute=4, burst=6))) == 6
    assert await passes(desk, key("d", limits=Limits(requests_per_minute=0, burst=6))) == 0
    assert await passes(desk, key("e", limits=Limits(requests_per_minute=9, burst=2))) == 9
    assert await passes(desk, key("f", limits=Limits(sockets=2))) == 15


async def test_a_change_of_a_limit_counts_at_once() -> None:
    desk = Desk(Policy())
    slow = key("a", limits=Limits(requests_per_minute=2))
    assert await passes(desk, slow) == 2
    assert await passes(desk, replace(slow, limits=Limits(requests_per_minute=5))) == 3
    assert await passes(desk, replace(slow, limits=None)) == 50
    together = replace(slow, limits=None, project_limits=Limits(requests_per_minute=4))
    assert await passes(desk, together) == 4
    assert await passes(desk, replace(SAME_PROJECT, project_limits=together.project_limits)) == 0
    whole = replace(STRANGER, organization_limits=Limits(requests_per_minute=1))
    assert await passes(desk, whole) == 1


async def test_tokens_are_expected_first_and_put_right_afterwards() -> None:
    desk = Desk(Policy(input_tokens=Rate(1000), output_tokens=Rate(500)))
    grant = await desk.limiter.admit(key("a"), "chat", input_tokens=600, output_tokens=32_000)
    with pytest.raises(RateLimited) as refusal:
        await desk.limiter.admit(key("a"), "chat", input_tokens=1, output_tokens=1)
    assert refusal.value.retry_after is not None
    assert desk.refused == [("key", "output_tokens")]
    grant.finish(700, 200)
    again = await desk.limiter.admit(key("a"), "chat", input_tokens=300, output_tokens=300)
    assert [quota and quota.remaining for quota in again.standing] == [None, 0, 0]


async def test_tokens_of_key_and_project_count_together() -> None:
    limits = Limits(input_tokens_per_minute=100, output_tokens_per_minute=100)
    desk = Desk(Policy(input_tokens=Rate(60)))
    one = replace(key("a"), project_limits=limits)
    two = replace(key("b"), project_limits=limits)
    await desk.limiter.admit(one, "chat", input_tokens=60)
    with pytest.raises(RateLimited):
        await desk.limiter.admit(one, "chat", input_tokens=1)
    with pytest.raises(RateLimited):
        await desk.limiter.admit(two, "chat", input_tokens=41)
    await desk.limiter.admit(two, "chat", input_tokens=40)
    assert desk.refused == [("key", "input_tokens"), ("project", "input_tokens")]


async def test_calls_at_once() -> None:
    desk = Desk(Policy(calls=2))
    grants = [await desk.limiter.admit(key("a"), "chat") for _ in range(2)]
    with pytest.raises(RateLimited) as refusal:
        await desk.limiter.admit(key("a"), "chat")
    assert refusal.value.retry_after
    assert desk.refused == [("key", "calls")]
    await desk.limiter.admit(key("a"), "read")
    await desk.limiter.admit(key("b", limits=Limits(concurrent_calls=1)), "chat")
    grants[0].finish()
    await desk.limiter.admit(key("a"), "chat")


async def test_sockets_at_once() -> None:
    desk = Desk(Policy(sockets=2))
    grants = [await desk.limiter.admit(key("a"), "sockets") for _ in range(2)]
    with pytest.raises(RateLimited):
        await desk.limiter.admit(key("a"), "sockets")
    for grant in grants:
        grant.finish()
    assert desk.store.places == 0


async def test_a_refusal_says_which_limit_and_when_to_come_back() -> None:
    desk = Desk(Policy(key=Rate(2, 3_600_000)))
    await passes(desk, key("a"))
    desk.clock.advance(600)
    with pytest.raises(RateLimited) as refusal:
        await desk.limiter.admit(key("a"), "read")
    error = refusal.value
    assert error.error_code == "rate_limit_exceeded"
    assert "of this key" in error.message
    assert "2 requests in an hour" in error.message
    assert error.retry_after == 3_000
    desk.clock.advance(error.retry_after)
    await desk.limiter.admit(key("a"), "read")


async def test_where_waiting_cannot_help_nobody_is_told_to() -> None:
    desk = Desk(Policy(key=Rate(0)))
    with pytest.raises(RateLimited) as refusal:
        await desk.limiter.admit(key("a"), "read")
    assert refusal.value.retry_after is None
    assert refusal.value.error_code == "exceeds_rate_limit"


async def test_switched_off_not_even_own_limits_count() -> None:
    desk = Desk(None)
    assert await passes(desk, key("a", limits=Limits(requests_per_minute=1))) == 50
    assert len(desk.store) == 0


async def test_memory_is_bounded_and_what_counts_is_kept() -> None:
    clock = ManualClock()
    store = MemoryStore(clock, capacity=100)
    limiter = Limiter(Policy(key=Rate(2)), store)
    for round_ in range(20):
        for number in range(60):
            await limiter.admit(key(f"{round_}_{number}"), "read")
        clock.advance(62)
        assert len(store) <= 200
    quick = key("quick")
    await limiter.admit(quick, "read")
    for number in range(90):
        await limiter.admit(key(f"more_{number}"), "read")
    await limiter.admit(quick, "read")
    with pytest.raises(RateLimited):
        await limiter.admit(quick, "read")


async def test_plans_are_bounded() -> None:
    desk = Desk(Policy(address=Rate(2)))
    for number in range(PLANS + 5):
        await desk.limiter.admit(key("a"), "read", address=f"192.0.2.{number}")
    assert len(desk.limiter._plans) <= PLANS


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::"),
        ("no:address", "no:address"),
        ("testclient", "testclient"),
    ],
)
def test_what_an_address_is_counted_as(address: str, counted_as: str) -> None:
    assert site(address) == counted_as


class TestFailures:
    def failures(self, clock: ManualClock, most: int = 3) -> Failures:
        return Failures(Rate(most), MemoryStore(clock))

    def test_the_last_one_that_is_allowed_is_the_last_one_looked_at(self) -> None:
        clock = ManualClock()
        failures = self.failures(clock)
        for number in range(3):
            failures.check("192.0.2.1", f"wrong {number}")
            failures.count("192.0.2.1", f"wrong {number}")
        with pytest.raises(RateLimited) as refusal:
            failures.check("192.0.2.1", "right")
        failures.check("192.0.2.2", "right")
        failures.check(None, "right")
        assert refusal.value.retry_after is not None
        clock.advance(refusal.value.retry_after)
        failures.check("192.0.2.1", "right")

    def test_many_at_the_same_time_are_told_no_more(self) -> None:
        failures = self.failures(ManualClock())
        for number in range(10):
            failures.check("192.0.2.1", f"wrong {number}")
        told = 0
        for number in range(10):
            try:
                failures.count("192.0.2.1", f"wrong {number}")
            except RateLimited:
                continue
            told += 1
        assert told == 3

    def test_who_was_good_lately_does_not_pay_for_the_neighbours(self) -> None:
        failures = self.failures(ManualClock())
        failures.trust("right")
        for number in range(3):
            failures.count("192.0.2.1", f"wrong {number}")
        failures.check("192.0.2.1", "right")
        with pytest.raises(RateLimited):
            failures.count("192.0.2.1", "right")  # it was revoked
        with pytest.raises(RateLimited):
            failures.check("192.0.2.1", "right")

    def test_a_flood_of_addresses_and_of_keys_is_bounded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stationmaster.limits.limiter.TRUSTED", 10)
        store = MemoryStore(ManualClock(), capacity=50)
        failures = Failures(Rate(3), store)
        for number in range(1000):
            failures.count(f"10.0.{number // 250}.{number % 250}", "wrong")
            failures.trust(f"right {number}")
        assert len(store) <= 100
        assert len(failures._trusted) == 10

    def test_without_a_limit_nothing_is_counted(self) -> None:
        store = MemoryStore(ManualClock())
        failures = Failures(None, store)
        for _ in range(100):
            failures.check("192.0.2.1", "wrong")
            failures.count("192.0.2.1", "wrong")
        assert len(store) == 0
