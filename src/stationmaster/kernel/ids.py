"""Identifiers: a prefix that tells the kind, and 26 characters that sort by time of making.

The 26 characters are a ULID (https://github.com/ulid/spec) in lower case: 48 bits of
milliseconds and 80 random bits in Crockford's base 32.
"""

import os
import re
import time
from functools import lru_cache

from stationmaster.kernel.errors import NotFound

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_TIME_SHIFTS = tuple(range(30, -1, -10))
_RANDOM = 16  # characters of 5 bits each
_DRAWN = 256  # random parts made at once: asking the kernel for each would let another thread run
_SPELL = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
_ID = re.compile(r"[a-z]{2,12}_[0-9a-hjkmnp-tv-z]{26}")


def _no_parts() -> list[str]:
    drawn: list[str] = []
    os.register_at_fork(after_in_child=drawn.clear)  # a process that is forked off draws its own
    return drawn


_drawn = _no_parts()


def new_id(prefix: str) -> str:
    """Make an identifier such as `run_01jd3k…`."""
    millis = time.time_ns() // 1_000_000
    return f"{prefix}_{_spelled(millis >> 10)}{_PAIRS[millis & 1023]}{_random_part()}"


@lru_cache(maxsize=1)
def _spelled(seconds: int) -> str:
    """Of 1,024 milliseconds each: for as long it stays the same."""
    return "".join([_PAIRS[(seconds >> shift) & 1023] for shift in _TIME_SHIFTS])


def _random_part() -> str:
    # Threads share the list: each `pop` and `extend` is whole.
    try:
        return _drawn.pop()
    except IndexError:
        letters = os.urandom(_RANDOM * _DRAWN).translate(_SPELL).decode()
        _drawn.extend([letters[at : at + _RANDOM] for at in range(_RANDOM, len(letters), _RANDOM)])
        return letters[:_RANDOM]


def check_id(value: str, prefix: str) -> str:
    """Return `value` if it has the form of an id of this kind; else raise `NotFound`.

    An id that cannot exist is treated as one that does not: the answer must not tell them apart.
    """
    if not value.startswith(prefix + "_") or _ID.fullmatch(value) is None:
        raise NotFound(f"There is no {prefix} with this id.")
    return value
