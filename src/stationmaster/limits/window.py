"""The algorithm, on one line's counts: a sliding window in slots, and a debt that drains."""

from collections import deque

from stationmaster.kernel.clock import Millis
from stationmaster.limits.plan import RateLine


class Window:
    """What has been counted of late.

    Events of a sixtieth of the period share a slot: its first time, its last, and how much. A slot
    counts for a period after its last, so that an event counts for at least a period and at most a
    sixtieth more, and nobody waits for longer than a period. Where a line has a burst, a debt rises
    with what is taken and drains at the line's rate; it is kept in units of one `period`-th, so
    that all of this is whole numbers.
    """

    __slots__ = ("debt", "debt_at", "slots", "total")

    def __init__(self) -> None:
        self.slots: deque[list[int]] = deque()
        self.total = 0
        self.debt = 0
        self.debt_at = 0

    def move(self, line: RateLine, now: Millis) -> int:
        """Forget what is over; return how much may be taken now. Call it before anything else.

        What it returns is negative where more was used than expected.
        """
        slots = self.slots
        if slots:
            ahead = slots[-1][1] - now
            if ahead > 0:
                # The clock stepped back. What was counted "later" was counted before now, so it is
                # taken to be of now: it stays a whole period, and not until the clock catches up.
                for slot in slots:
                    slot[0] -= ahead
                    slot[1] -= ahead
            over = now - line.period
            while slots and slots[0][1] <= over:
                self.total -= slots.popleft()[2]
        free = line.burst - self.total
        if not line.bursting:
            return free
        passed = now - self.debt_at
        if passed > 0 and self.debt:
            self.debt = max(0, self.debt - passed * line.amount)
        self.debt_at = now
        return min(free, line.burst - -(-self.debt // line.period))

    def add(self, line: RateLine, amount: int, now: Millis) -> None:
        """Count it, whether it fits or not."""
        slots = self.slots
        if slots and now - (slot := slots[-1])[0] < line.width:
            slot[1] = now
            slot[2] += amount
        else:
            slots.append([now, now, amount])
        self.total += amount
        if line.bursting:
            self.debt += amount * line.period

    def give_back(self, line: RateLine, amount: int, *, at: Millis, now: Millis) -> None:
        """Uncount what was taken `at` a time, if it still counts. Nothing becomes negative."""
        if line.bursting:
            # What may have drained since is no longer there to be given back.
            left = amount * line.period - max(0, now - at) * line.amount
            self.debt -= min(self.debt, max(0, left))
        for slot in reversed(self.slots):
            if slot[0] <= at <= slot[1]:
                amount = min(amount, slot[2])
                slot[2] -= amount
                self.total -= amount
                break

    def wait(self, line: RateLine, wanted: int, now: Millis) -> int | None:
        """Milliseconds until `wanted` fits, if nobody else takes anything. None: never."""
        if wanted > line.burst or not line.burst:
            return None
        ready = now
        needed = self.total + wanted - line.burst
        for _, last, count in self.slots:
            if needed <= 0:
                break
            needed -= count
            ready = last + line.period
        if line.bursting:
            over = self.debt + (wanted - line.burst) * line.period
            ready = max(ready, now - -over // line.amount)
        return max(0, ready - now)

    def reset(self, line: RateLine, now: Millis) -> Millis:
        """When nothing that was counted is left."""
        end = self.slots[-1][1] + line.period if self.slots else now
        if line.bursting:
            end = max(end, now - -self.debt // line.amount)
        return end
