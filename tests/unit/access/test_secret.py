"""What keys look like, and what is stored of them."""

import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.access.secret import (
    ALPHABET,
    CHECK_LENGTH,
    KEY_PREFIX,
    TOKEN_PREFIX,
    Hasher,
    generate,
    well_formed,
)


@pytest.mark.parametrize("prefix", [KEY_PREFIX, TOKEN_PREFIX])
def test_what_is_made_is_well_formed_and_unique(prefix: str) -> None:
    made = [generate(prefix) for _ in range(500)]
    assert len(set(made)) == 500
    for secret in made:
        assert secret.startswith(prefix)
        assert len(secret) == len(prefix) + 40 + CHECK_LENGTH
        assert set(secret.removeprefix(prefix)) <= set(string.ascii_letters + string.digits)
        assert well_formed(secret)


SECRET = generate(KEY_PREFIX)


@given(st.integers(len(KEY_PREFIX), len(SECRET) - 1), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_noticed(at: int, instead: str) -> None:
    typed = SECRET[:at] + instead + SECRET[at + 1 :]
    assert well_formed(typed) == (typed == SECRET)


@given(st.text(st.characters(codec=None)))
def test_no_text_breaks_the_check(text: str) -> None:
    assert not well_formed(KEY_PREFIX + text + "!")
    assert len(Hasher(b"x" * 16).digest(text)) == 64


@pytest.mark.parametrize(
    "text",
    ["", "x", KEY_PREFIX, SECRET[:-1], SECRET + "0"],
    ids=["empty", "letter", "prefix", "cut", "longer"],
)
def test_what_is_too_short_or_too_long_is_not_well_formed(text: str) -> None:
    assert not well_formed(text)


@pytest.mark.parametrize("length", [16, 63, 64, 65, 200])
def test_a_hash_is_the_standard_one(length: int) -> None:
    pepper = bytes(range(length))
    assert Hasher(pepper).digest(SECRET) == hmac.digest(pepper, SECRET.encode(), "sha256").hex()


def test_a_hash_depends_on_the_pepper_and_tells_nothing() -> None:
    one, other = Hasher(b"a" * 16), Hasher(b"b" * 16)
    assert one.digest(SECRET) == one.digest(SECRET)
    assert one.digest(SECRET) != other.digest(SECRET)
    assert SECRET[len(KEY_PREFIX) :] not in one.digest(SECRET)
