"""A clock that tells another's time."""

import pytest

from stationmaster.kernel.clock import ManualClock, Millis, SharedClock, SystemClock

THEIRS = 1_800_000_000_000


class Place:
    """A machine whose clock can be set, a wait that can be had, and another's clock."""

    def __init__(self, off: float) -> None:
        self.own = ManualClock(THEIRS)
        self.theirs = ManualClock(THEIRS)
        self.own.advance(off)
        self.booted = 0.0
        self.clock = SharedClock(self.own, lambda: self.booted)

    def wait(self, seconds: float) -> None:
        self.booted += seconds
        self.own.advance(seconds)
        self.theirs.advance(seconds)

    async def ask(self, *, going: float = 0.0, coming: float = 0.0) -> None:
        async def answer() -> Millis:
            self.wait(going)
            read = self.theirs.now()
            self.wait(coming)
            return read

        await self.clock.ask(answer)


@pytest.mark.parametrize("off", [300.0, -300.0, 0.0])
async def test_it_tells_the_others_time(off: float) -> None:
    place = Place(off)
    assert place.clock.now() == place.own.now()
    await place.ask()
    for _ in range(3):
        assert place.clock.now() == place.theirs.now()
        assert place.clock.offset == off * 1000
        place.wait(60.0)


@pytest.mark.parametrize(("going", "coming"), [(5.0, 0.0), (0.0, 5.0), (2.0, 3.0)])
@pytest.mark.parametrize("off", [300.0, -300.0])
async def test_a_slow_answer_is_wrong_by_what_it_took_at_most(
    off: float, going: float, coming: float
) -> None:
    place = Place(off)
    await place.ask(going=going, coming=coming)
    assert abs(place.clock.now() - place.theirs.now()) <= 5000
    await place.ask()
    assert place.clock.now() == place.theirs.now()


async def test_a_slow_answer_does_not_undo_a_quick_one() -> None:
    place = Place(300.0)
    await place.ask()
    await place.ask(going=7.0, coming=0.5)
    await place.ask(going=0.5, coming=7.0)
    assert place.clock.now() == place.theirs.now()


async def test_setting_this_machines_clock_changes_the_offset_alone() -> None:
    place = Place(0.0)
    await place.ask()
    place.own.advance(-3600.0)
    assert place.clock.now() == place.theirs.now()
    assert place.clock.offset == -3_600_000


async def test_who_does_not_answer_changes_nothing() -> None:
    place = Place(300.0)
    await place.ask()

    async def away() -> Millis:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await place.clock.ask(away)
    assert place.clock.now() == place.theirs.now()


def test_the_machines_own_clock_is_where_it_begins() -> None:
    assert abs(SharedClock(SystemClock()).offset) < 10_000
