"""Slots: who is at work, who waits, and whose turn it is."""

import asyncio
from collections.abc import Awaitable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stationmaster.sessions.runs.slots import Slot, Slots


class Waiter:
    """Somebody is waited for, until `answer`."""

    def __init__(self, slot: Slot) -> None:
        self._answered = asyncio.Event()
        self.task = asyncio.ensure_future(self._wait(slot))

    async def _wait(self, slot: Slot) -> None:
        async with slot.lent():
            await self._answered.wait()

    def answer(self) -> None:
        self._answered.set()


async def settle() -> None:
    """Let everybody come as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_waits_lends_its_slot_and_comes_back_before_a_new_run() -> None:
    told = 0

    def freed() -> None:
        nonlocal told
        told += 1

    slots = Slots(1, most_waiting=1, freed=freed)
    first = slots.take()
    assert not slots.free
    waiter = Waiter(first)
    await settle()
    assert (slots.free, slots.working, slots.waiting, told) == (True, 0, 1, 1)
    second = slots.take()
    waiter.answer()
    await settle()
    assert not waiter.task.done(), "another is at work"
    assert not slots.free
    second.end()
    assert not slots.free, "who comes back goes first"
    await waiter.task
    assert (slots.working, slots.waiting, told) == (1, 0, 1)
    first.end()
    first.end()
    assert (slots.free, slots.working) == (True, 0)


async def test_beyond_the_most_that_may_wait_the_slot_is_kept() -> None:
    slots = Slots(2, most_waiting=1)
    waiters = [Waiter(slots.take()), Waiter(slots.take())]
    await settle()
    assert (slots.working, slots.waiting) == (1, 1)
    for waiter in waiters:
        waiter.answer()
    await asyncio.gather(*(waiter.task for waiter in waiters))
    assert (slots.working, slots.waiting) == (2, 0)


async def test_a_run_waits_until_all_its_calls_are_answered() -> None:
    slots = Slots(1, most_waiting=1)
    slot = slots.take()
    one, two = Waiter(slot), Waiter(slot)
    await settle()
    one.answer()
    await one.task
    assert slots.waiting == 1
    two.answer()
    await two.task
    assert (slots.working, slots.waiting) == (1, 0)


async def test_a_question_that_is_taken_back_costs_no_slot_and_holds_up_nobody() -> None:
    slots = Slots(1, most_waiting=2)
    mine = slots.take()
    waiter = Waiter(mine)
    await settle()
    other = slots.take()
    waiter.task.cancel()
    await settle()
    assert slots.working == 2, "the turn may go on: it is counted"
    mine.end()
    # Likewise for one that has been answered, and waits for its slot.
    late = Slots(1, most_waiting=1)
    waiter = Waiter(late.take())
    await settle()
    late.take()
    waiter.answer()
    await settle()
    waiter.task.cancel()
    await settle()
    assert (late.working, late.waiting) == (2, 0)
    assert (slots.working, slots.waiting, slots.free) == (1, 0, False)
    other.end()
    assert slots.free


async def test_the_end_of_a_run_leaves_nothing_waiting() -> None:
    slots = Slots(1, most_waiting=1)
    mine = slots.take()
    waiter = Waiter(mine)
    await settle()
    other = slots.take()
    waiter.answer()
    await settle()
    mine.end()
    await waiter.task
    assert (slots.working, slots.waiting) == (1, 0)
    other.end()
    assert slots.free


class Station(RuleBasedStateMachine):
    """Any order of runs, questions, answers, questions taken back and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.slots = Slots(2, most_waiting=2)
        self.runs: list[tuple[Slot, list[Waiter]]] = []
        self.cancelled = False

    def go(self, *work: Awaitable[object]) -> None:
        async def all_of_it() -> None:
            for each in work:
                await each
            await settle()

        self.loop.run_until_complete(all_of_it())

    @precondition(lambda self: self.slots.free)
    @rule()
    def begin(self) -> None:
        self.runs.append((self.slots.take(), []))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        slot, waiters = data.draw(st.sampled_from(self.runs))

        async def ask() -> None:
            waiters.append(Waiter(slot))

        self.go(ask())

    @precondition(lambda self: any(waiters for _, waiters in self.runs))
    @rule(data=st.data(), cancel=st.booleans())
    def answer(self, data: st.DataObject, cancel: bool) -> None:
        waiters = data.draw(st.sampled_from([each for _, each in self.runs if each]))
        waiter = waiters.pop(data.draw(st.integers(0, len(waiters) - 1)))
        if cancel:
            self.cancelled = True
            waiter.task.cancel()
        else:
            waiter.answer()
        self.go()

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        slot, waiters = self.runs.pop(data.draw(st.integers(0, len(self.runs) - 1)))
        for waiter in waiters:
            waiter.task.cancel()
        slot.end()
        self.go()

    @invariant()
    def each_run_is_counted_once(self) -> None:
        assert self.slots.working + self.slots.waiting == len(self.runs)
        assert self.slots.waiting <= 2
        if not self.cancelled:
            assert self.slots.working <= 2

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        asking = sum(bool(waiters) for _, waiters in self.runs)
        if self.slots.working < 2:
            assert self.slots.waiting <= asking
            assert self.slots.free

    def teardown(self) -> None:
        while self.runs:
            slot, waiters = self.runs.pop()
            for waiter in waiters:
                waiter.task.cancel()
            slot.end()
        self.go()
        assert (self.slots.working, self.slots.waiting) == (0, 0)
        self.loop.close()


TestStation = Station.TestCase
TestStation.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("most_waiting", [0, 1])
async def test_without_room_to_wait_nothing_changes(most_waiting: int) -> None:
    slots = Slots(1, most_waiting=most_waiting)
    waiter = Waiter(slots.take())
    await settle()
    assert slots.free == bool(most_waiting)
    waiter.answer()
    await waiter.task
    assert slots.working == 1
