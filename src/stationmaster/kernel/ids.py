"""Identifiers: a prefix that tells the kind, and 26 characters that sort by time of making.

The 26 characters are a ULID (https://github.com/ulid/spec) in lower case: 48 bits of
milliseconds and 80 random bits in Crockford's base 32.
"""

import os
import re
import time

from stationmaster.kernel.errors import NotFound

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHIFTS = tuple(range(120, -1, -10))
_ID = re.compile(r"[a-z]{2,12}_[0-9a-hjkmnp-tv-z]{26}")


def new_id(prefix: str) -> str:
    """Make an identifier such as `run_01jd3k…`."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return prefix + "_" + "".join([_PAIRS[(value >> shift) & 1023] for shift in _SHIFTS])


def check_id(value: str, prefix: str) -> str:
    """Return `value` if it has the form of an id of this kind; else raise `NotFound`.

    An id that cannot exist is treated as one that does not: the answer must not tell them apart.
    """
    if not value.startswith(prefix + "_") or _ID.fullmatch(value) is None:
        raise NotFound(f"There is no {prefix} with this id.")
    return value
