from collections import Counter

import pytest

from stationmaster.gateway import Care, Catalogue, Models, Pricing, Route, Target, UpstreamOf
from stationmaster.gateway.routing import Strategy
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import NotFound
from stationmaster.providers.base import Operation, ProviderReply, ProviderRequest

AT = 1_790_000_000_000
OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-5-5"


class Named:
    """A provider that is only ever named."""

    operations: frozenset[Operation] = frozenset({"messages"})

    def __init__(self, name: str) -> None:
        self.name = name

    async def send(self, request: ProviderRequest) -> ProviderReply:
        raise NotImplementedError

    async def check(self) -> None: ...

    async def aclose(self) -> None: ...


def upstream(name: str) -> UpstreamOf:
    return UpstreamOf(Named(name), Care(threshold=1))


def models(strategy: Strategy, *targets: Target, **routes: Route) -> Models:
    return Models(
        Pricing(clock=ManualClock(AT)),
        upstream("default"),
        Catalogue({"short": "house"}),
        {"house": Route(targets, strategy), **routes},
    )


def names(found: list[Target]) -> list[str]:
    return [target.upstream.name for target in found]


def test_a_model_without_a_route_goes_to_the_default_provider() -> None:
    [target] = models("ordered").targets("anything")
    assert (target.upstream.name, target.model) == ("default", "anything")


def test_without_a_default_a_model_without_a_route_is_not_found() -> None:
    known = Models(Pricing(clock=ManualClock(AT)), None)
    with pytest.raises(NotFound) as caught:
        known.targets("anything")
    assert caught.value.error_code == "unknown_model"


def test_an_alias_has_the_route_of_its_model() -> None:
    known = models("ordered", Target(upstream("a"), OPUS), Target(upstream("b"), OPUS))
    assert names(known.targets("short")) == ["a", "b"]


def test_the_cheapest_comes_first() -> None:
    known = models("cost", Target(upstream("a"), OPUS), Target(upstream("b"), HAIKU))
    assert names(known.targets("house")) == ["b", "a"]


def test_the_quickest_comes_first_and_who_was_not_measured_before_it() -> None:
    slow, quick, new = upstream("slow"), upstream("quick"), upstream("new")
    slow.slowness, quick.slowness = 2.0, 0.1
    known = models("latency", *(Target(each, OPUS) for each in (slow, quick, new)))
    assert names(known.targets("house")) == ["new", "quick", "slow"]


def test_weights_share_out_sessions_and_a_session_stays() -> None:
    known = models(
        "weighted", Target(upstream("a"), OPUS, weight=3), Target(upstream("b"), OPUS, weight=1)
    )
    firsts = {
        session: known.targets("house", sticky=session)[0].upstream.name
        for session in map(str, range(2_000))
    }
    assert 1_400 < Counter(firsts.values())["a"] < 1_600
    again = {session: known.targets("house", sticky=session)[0].upstream.name for session in firsts}
    assert again == firsts
    by_chance = Counter(known.targets("house")[0].upstream.name for _ in range(2_000))
    assert 1_350 < by_chance["a"] < 1_650


def test_a_session_moves_only_where_its_target_is_gone() -> None:
    every = [Target(upstream(name), OPUS) for name in "abc"]
    before = models("weighted", *every)
    after = models("weighted", *every[:2])
    for session in map(str, range(200)):
        first = names(before.targets("house", sticky=session))[0]
        if first != "c":
            assert names(after.targets("house", sticky=session))[0] == first


def test_a_tag_of_the_call_prefers_targets_that_have_it() -> None:
    known = models(
        "ordered",
        Target(upstream("a"), OPUS),
        Target(upstream("b"), OPUS, tags=frozenset({"eu"})),
    )
    assert names(known.targets("house")) == ["a", "b"]
    assert names(known.targets("house", tags={"eu", "other"})) == ["b", "a"]


def test_fallbacks_come_after_and_who_is_left_alone_comes_last() -> None:
    broken, other = upstream("broken"), upstream("other")
    known = models(
        "ordered",
        house=Route((Target(broken, OPUS),), fallbacks=("spare", HAIKU)),
        spare=Route((Target(other, OPUS),)),
    )
    assert names(known.targets("house")) == ["broken", "other", "default"]
    broken.breaker.failed(0)
    assert names(known.targets("house")) == ["other", "default", "broken"]
