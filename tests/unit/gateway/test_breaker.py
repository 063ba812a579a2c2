from stationmaster.gateway.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def failing(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        call = breaker.enter()
        assert call is not None
        breaker.failed(call)


def test_it_opens_after_failures_in_a_row_and_tries_one_call_after_a_while() -> None:
    clock = Clock()
    breaker = Breaker(threshold=3, recovery=30, now=clock)
    failing(breaker, 2)
    breaker.succeeded()
    failing(breaker, 2)
    assert breaker.ready
    failing(breaker, 1)
    assert breaker.state == "open"
    assert not breaker.enter()
    assert breaker.retry_after == 30
    clock.now = 30
    assert breaker.enter()
    assert not breaker.enter()  # one tries, the others wait for what it finds
    breaker.succeeded()
    assert breaker.ready
    assert breaker.retry_after == 0


def test_a_trial_that_fails_opens_it_again_at_once() -> None:
    clock = Clock()
    breaker = Breaker(threshold=3, recovery=30, now=clock)
    failing(breaker, 3)
    clock.now = 31
    failing(breaker, 1)
    assert breaker.state == "open"
    assert breaker.retry_after == 30


def test_a_trial_that_says_nothing_lets_the_next_one_try() -> None:
    clock = Clock()
    breaker = Breaker(threshold=1, recovery=30, now=clock)
    failing(breaker, 1)
    clock.now = 30
    call = breaker.enter()
    assert call is not None
    breaker.left(call)
    assert breaker.enter()


def test_only_the_trials_own_end_lets_another_try() -> None:
    clock = Clock()
    breaker = Breaker(threshold=1, recovery=30, now=clock)
    before = breaker.enter()
    assert before is not None
    failing(breaker, 1)
    clock.now = 30
    trial = breaker.enter()
    assert trial is not None
    # One that began before the upstream was left alone, and ends now, says nothing of it.
    breaker.left(before)
    assert not breaker.ready
    clock.now = 40
    breaker.failed(before)
    assert breaker.retry_after == 0
    assert not breaker.ready
    breaker.left(trial)
    assert breaker.ready


def test_without_a_threshold_it_never_opens() -> None:
    breaker = Breaker(threshold=0, recovery=30)
    failing(breaker, 100)
    assert breaker.state == "closed"
