"""JSON from outside, read strictly: what two parsers could understand in two ways is refused."""

import json
import math
from typing import Any

from stationmaster.kernel.errors import Invalid

MAX_DEPTH = 64  # objects and lists inside each other; ours need 4


def parse(raw: bytes) -> Any:
    """Read a JSON text.

    Raises `Invalid` (`invalid_json`) also for what the standard library lets pass: NaN and
    infinities, numbers that overflow, a name that is there twice in an object, lone surrogates,
    and nesting deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError:
        raise _invalid("it is not UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise _invalid(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:  # an integer with more digits than Python is willing to read
        raise _invalid("a number is too long") from None
    _check(value)
    return value


def _invalid(reason: str) -> Invalid:
    return Invalid(f"The body is not valid JSON: {reason}.", code="invalid_json")


def _too_deep() -> Invalid:
    return _invalid(f"it is nested deeper than {MAX_DEPTH}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _invalid("an object has the same name twice")
    return found


def _no_constant(name: str) -> Any:
    raise _invalid(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _invalid("a number is too large")
    return value


def _check(value: Any) -> None:
    """Walk level by level: a recursive walk could itself be made to overflow."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
        if not below:
            return
        level = below
    raise _too_deep()


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _invalid("a text holds half of a surrogate pair") from None
