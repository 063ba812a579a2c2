"""What is taken out of what is kept, however it is written."""

import json
from typing import Any

import pytest

from stationmaster.calls import Pattern, Policy
from stationmaster.calls.policy import RULES, checked
from stationmaster.calls.redaction import MAX_TEXT, Redaction
from stationmaster.calls.rules import rules_of
from stationmaster.kernel.errors import Invalid
from stationmaster.telemetry import Redactor

CARD = "4111 1111 1111 1111"
KEY = "sk-ant-api03-abcdefghijklmnopqrst"


def redacted(value: Any, *patterns: Pattern, server_secret: str = "") -> Any:
    policy = checked(Policy(enabled=True, rules=RULES, patterns=patterns))
    return Redaction(rules_of(policy), Redactor(server_secret).scrub).value(value)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to bob.o'x+y@mail.example.org now", "write to bob.o'[email] now"),
        (f"my card {CARD}, thanks", "my card [card_number], thanks"),
        ("card 4111111111111111.", "card [card_number]."),
        ("order 4111111111111112", "order 4111111111111112"),  # adds up to no card
        ("IBAN DE89 3704 0044 0532 0130 00!", "IBAN [iban]!"),
        ("DE00 3704 0044 0532 0130 00", "DE00 3704 0044 0532 0130 00"),
        ("call +49 (0)170 123 45 67", "call [phone_number]"),
        ("from 192.0.2.7 and 2001:db8::1", "from [ip_address] and [ip_address]"),
        ("version 1.2.3 at 12:30:15", "version 1.2.3 at 12:30:15"),
        (f"the key is {KEY}", "the key is [redacted]"),
        ("Bearer abcdefghijkl", "Bearer [redacted]"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nafter",
            "[private_key]\nafter",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut off", "[private_key]"),
        ("nothing to see", "nothing to see"),
    ],
)
def test_what_the_rules_take_out(text: str, left: str) -> None:
    assert redacted(text) == left


def test_it_is_found_wherever_it_stands() -> None:
    found = redacted(
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a@b.example"}]}],
            "a@b.example": "a name is looked at too",
            "number": 4111111111111111,
            "small": 41,
            "yes": True,
            "nothing": None,
        }
    )
    assert found["messages"][0]["content"][0]["text"] == "[email]"
    assert "[email]" in found
    assert found["number"] == "[card_number]"
    assert (found["small"], found["yes"], found["nothing"]) == (41, True, None)


def test_an_escape_hides_nothing() -> None:
    # As it comes over the wire, in a body and in the arguments of a tool call within it.
    body = json.loads(
        r'{"text": "bob\u0040example.org", "arguments": "{\"to\": \"a\\u0040b.org\"}"}'
    )
    found = redacted(body)
    assert found["text"] == "[email]"
    assert json.loads(found["arguments"]) == {"to": "[email]"}
    broken = redacted({"arguments": '{"to": "a@b.org", '})
    assert "a@b.org" not in broken["arguments"]


def test_a_secret_of_the_server_is_taken_out_by_its_value() -> None:
    assert redacted("x hunter2-hunter2 x", server_secret="hunter2-hunter2") == "x [redacted] x"


def test_files_and_long_texts_leave_a_note() -> None:
    found = redacted(
        {
            "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100},
            "image_url": {"url": "data:image/png;base64," + "A" * 100},
            "file": {"filename": "a.pdf", "file_data": "A" * 50},
            "data": "kept where it stands beside no type",
            "text": "b" * (MAX_TEXT + 10),
        }
    )
    assert found["source"]["data"] == "[100 characters of data]"
    assert found["image_url"]["url"] == "[122 characters of data]"
    assert found["file"]["file_data"] == "[50 characters of data]"
    assert found["data"].startswith("kept")
    assert found["text"].endswith("b[10 more characters]")


def test_a_secret_at_the_cut_is_gone_before_it() -> None:
    found = redacted("b " * (MAX_TEXT // 2 - 4) + "bob@example.org" + " b" * 50)
    assert "bob" not in found


def test_what_is_nested_without_end_is_left_out() -> None:
    deep: Any = "a@b.example"
    for _ in range(500):
        deep = [deep]
    assert "a@b" not in json.dumps(redacted(deep))


def test_the_projects_own_patterns() -> None:
    own = Pattern("customer", r"\bC-\d{6}\b")
    assert redacted("C-123456 and C-1234567", own) == "[customer] and C-1234567"


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", "[", "*", r"(a)\1", "(?=a)", "(?<=a)b", "a{2000}", "((a{100}){100}){100}"),
        *("a*", "x?", "", "a" * 501, "\ud800"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid):
        checked(Policy(patterns=(Pattern("own", pattern),)))


@pytest.mark.parametrize("name", ["", "a b", "a" * 33, "ä", "[x]"])
def test_so_is_a_name_that_is_none(name: str) -> None:
    with pytest.raises(Invalid):
        checked(Policy(patterns=(Pattern(name, "a"),)))


def test_and_a_policy_beyond_its_bounds() -> None:
    for policy in (
        Policy(retention_days=0),
        Policy(retention_days=100_000),
        Policy(rules=("everything",)),  # type: ignore[arg-type]
        Policy(patterns=tuple(Pattern(f"p{n}", "a") for n in range(21))),
        Policy(patterns=(Pattern("a", "a"), Pattern("a", "b"))),
    ):
        with pytest.raises(Invalid):
            checked(policy)


def test_a_hostile_pattern_takes_time_in_proportion_to_the_text() -> None:
    """Where patterns are tried back and forth, this one takes longer than the world is old."""
    own = Pattern("slow", r"(?:a+)+$|(?:a|aa)+\d")
    assert redacted("a" * 50_000 + "!", own) == "a" * 50_000 + "!"


def test_a_policy_is_stored_and_read_as_it_was() -> None:
    policy = Policy(True, False, True, True, 7, ("email",), (Pattern("a", "b+"),))
    assert Policy.from_row(json.loads(json.dumps(policy.to_row()))) == policy
