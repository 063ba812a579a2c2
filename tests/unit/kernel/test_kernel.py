"""Errors, identifiers, time, paging, scopes and text."""

import inspect
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.kernel import errors
from stationmaster.kernel.clock import ManualClock, SystemClock, iso
from stationmaster.kernel.errors import Denied, Invalid, NotFound, StationmasterError
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.paging import check_limit
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.kernel.text import scrub

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, StationmasterError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_a_message_and_a_code(kind: type[StationmasterError]) -> None:
    error = kind()
    assert str(error) == error.message == (kind.__doc__ or "").strip()
    assert error.error_code == kind.code
    special = kind("Words.", code="special", param="field", extra=1)
    assert (special.message, special.error_code, special.param) == ("Words.", "special", "field")
    assert special.details == {"extra": 1}


def test_codes_tell_the_meanings_apart() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(codes) == len(set(codes))


def test_ids_are_unique_and_have_their_form() -> None:
    made = [new_id("run") for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert all(check_id(one, "run") == one for one in made)


def test_ids_of_threads_and_of_a_forked_process_are_unique() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = [one for each in threads.map(_some_ids, [3000] * 4) for one in each]
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.write(writing, " ".join(_some_ids(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    made += _some_ids(100) + os.read(reading, 65_536).decode().split()
    random_parts = {one[-16:] for one in made}
    assert len(random_parts) == len(made) == 12_200


def _some_ids(number: int) -> list[str]:
    return [new_id("run") for _ in range(number)]


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1_700_000_000_000_000_000, 1_700_000_000_000_000_000 + 10**9, 10**7))
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    made = [new_id("run") for _ in range(100)]
    assert made == sorted(made)


GOOD = "run_01m7y4agzbqsrzd7xxwkcn2zs3"


@pytest.mark.parametrize(
    "wrong",
    ["", "run_", "run", GOOD[4:], GOOD[:-1], GOOD + "0", GOOD.upper(), "key_" + GOOD[4:],
     "run_../../etc/passwd", "-" + GOOD, GOOD + "\0", GOOD + "\n", GOOD + " ", " " + GOOD,
     GOOD[:-1] + "u", GOOD[:-1] + "'", "run_" + "\u0660" * 26, GOOD + "\ud800"],
)  # fmt: skip
def test_what_cannot_be_an_id_is_one_that_is_not_there(wrong: str) -> None:
    with pytest.raises(NotFound):
        check_id(wrong, "run")


@given(st.text())
def test_no_text_breaks_the_check_of_ids(text: str) -> None:
    with pytest.raises(NotFound):
        check_id("run_" + text[:40] + "!", "run")


def test_the_clocks() -> None:
    manual = ManualClock(1_000)
    manual.advance(1.5)
    assert manual.now() == 2_500
    manual.advance(-2)
    assert manual.now() == 500
    assert isinstance(SystemClock().now(), int)
    assert iso(1_769_774_400_000) == "2026-01-30T12:00:00.000Z"
    assert iso(1_769_774_400_007) == "2026-01-30T12:00:00.007Z"


def test_page_sizes() -> None:
    assert (check_limit(None), check_limit(1), check_limit(100)) == (20, 1, 100)
    for wrong in (0, -1, 101):
        with pytest.raises(Invalid):
            check_limit(wrong)


def _principal(*scopes: str) -> Principal:
    return Principal("key", "key_1", Owner("org", "proj"), "key_1", frozenset(scopes))


@pytest.mark.parametrize("scope", ["read:tasks", "*", "read:*", "*:tasks"])
def test_scopes_that_grant(scope: str) -> None:
    assert _principal(scope).may("read:tasks")


@pytest.mark.parametrize(
    "scope", ["write:tasks", "read:task", "read", "tasks", "read:", ":tasks", "write:*", "*:keys",
              "*:*", "READ:TASKS", "read:tasks "]
)  # fmt: skip
def test_scopes_that_do_not(scope: str) -> None:
    principal = _principal(scope)
    assert not principal.may("read:tasks")
    with pytest.raises(Denied) as caught:
        principal.require("read:tasks")
    assert caught.value.details == {"scope": "read:tasks"}


def test_without_scopes_nothing_is_granted() -> None:
    assert not _principal().may("read:tasks")


WILD = st.recursive(
    st.none() | st.integers() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
)


@given(WILD)
def test_scrubbed_values_are_always_json_in_utf8(value: object) -> None:
    json.dumps(scrub(value), ensure_ascii=False).encode()


@given(st.recursive(st.none() | st.text(), st.lists))
def test_proper_text_is_left_alone(value: object) -> None:
    assert scrub(value) == value


def test_lone_surrogates_become_question_marks() -> None:
    assert scrub({"a\udfff": ["\ud800b", ("c", "\udc80")]}) == {"a?": ["?b", ["c", "?"]]}
    assert scrub("\U0001f682") == "\U0001f682"
