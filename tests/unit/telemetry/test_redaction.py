import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.telemetry import Redactor
from stationmaster.telemetry.redaction import MASK


@pytest.mark.parametrize(
    "secret",
    [
        "sm_live_" + "a1B2" * 11 + "cc",
        "sm_run_" + "a1B2" * 11 + "cc",
        "sk-ant-api03-" + "x" * 40,
        "sk-proj-" + "x" * 40,
        "ghp_" + "x" * 36,
        "github_pat_" + "x" * 40,
        "AKIA" + "A" * 16,
        "AIza" + "x" * 35,
        "xoxb-" + "1" * 20,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
@pytest.mark.parametrize("around", ["{}", '"{}"', "key={},", "(see {}).", "x-api-key: {}"])
def test_what_looks_like_a_secret_is_masked(secret: str, around: str) -> None:
    text = Redactor().scrub(around.format(secret))
    assert secret not in text
    assert MASK in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdefghijkl", f"Authorization: Bearer {MASK}"),
        ("authorization: basic dXNlcjpwYXNz", f"authorization: basic {MASK}"),
        ("postgresql://user:hunter2@host/name", f"postgresql://{MASK}@host/name"),
        ("redis://:hunter2@host", f"redis://{MASK}@host"),
    ],
)
def test_credentials_in_headers_and_urls_are_masked(text: str, expected: str) -> None:
    assert Redactor().scrub(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "run_01jd3k0000000000000000000a has ended.",
        "req_01jd3k0000000000000000000a",
        "http://127.0.0.1:8080/v1/tasks",
        "claude-sonnet-4-5-20250929",
        "Reading task-description and disk-usage of the workspace.",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor("hunter2hunter2").scrub(text) == text


def test_registered_values_are_masked_in_every_spelling() -> None:
    secret = 'pä ss"w/ord'
    redactor = Redactor()
    assert secret in redactor.scrub(secret)
    redactor.register(secret)
    assert redactor.scrub(f"<{secret}>") == f"<{MASK}>"
    assert redactor.scrub(json.dumps({"p": secret})) == json.dumps({"p": MASK})
    assert redactor.scrub("x=p%C3%A4%20ss%22w%2Ford") == f"x={MASK}"


def test_a_secret_that_begins_with_another_is_masked_whole() -> None:
    redactor = Redactor("abcdefgh", "abcdefghijkl")
    assert redactor.scrub("abcdefghijkl abcdefgh") == f"{MASK} {MASK}"


@given(st.text(min_size=8), st.text(), st.text())
def test_no_registered_value_survives(secret: str, before: str, after: str) -> None:
    scrubbed = Redactor(secret).scrub(before + secret + after)
    assert secret not in scrubbed.replace(MASK, "\0")


def test_long_hostile_text_takes_linear_time() -> None:
    redactor = Redactor()

    def cost(size: int) -> float:
        hostile = "://" * size + "eyJaaaaaaaa." * size + "sk-" * size + "Bearer " * size
        best = float("inf")
        for _ in range(3):
            begin = time.process_time()
            redactor.scrub(hostile)
            best = min(best, time.process_time() - begin)
        return best

    # Eight times the text in linear time costs eight times as much, in quadratic time 64 times.
    assert cost(16_000) < 30 * cost(2_000)
