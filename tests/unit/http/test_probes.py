"""The probes: those that the door knows are those that are answered."""

from stationmaster.http.probes import ANSWERS
from stationmaster.http.security import PROBES


def test_what_the_door_lets_by_is_what_is_answered() -> None:
    assert set(ANSWERS) == PROBES
