"""How far a clock may be off the database's."""

import pytest
import structlog

from stationmaster.bootstrap.parts import check_clock
from stationmaster.kernel.errors import Unavailable

LEASE_S = 10.0


@pytest.mark.parametrize("skew", [0, 1000, -1000])
def test_a_little_is_nothing(skew: int) -> None:
    with structlog.testing.capture_logs() as lines:
        check_clock(skew, LEASE_S)
    assert lines == []


@pytest.mark.parametrize(("skew", "words"), [(1500, "1.5 s ahead"), (-1500, "1.5 s behind")])
def test_more_is_a_warning(skew: int, words: str) -> None:
    with structlog.testing.capture_logs() as lines:
        check_clock(skew, LEASE_S)
    [line] = lines
    assert line["log_level"] == "warning"
    assert words in line["event"]


@pytest.mark.parametrize("skew", [3100, -3_600_000])
def test_what_could_end_anothers_lease_is_refused(skew: int) -> None:
    with pytest.raises(Unavailable, match="NTP") as caught:
        check_clock(skew, LEASE_S)
    assert caught.value.error_code == "clock_skew"
