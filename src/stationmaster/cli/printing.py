"""Printing: tables for people, JSON for programs, and no surprise from what others wrote."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

# A file name or a model's words could otherwise clear the screen, or pretend to be our output.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Output(StrEnum):
    """How a command prints what it found."""

    table = "table"
    json = "json"


def safe(text: object) -> str:
    """Text that a terminal only shows: escape sequences are dropped, controls made visible."""
    plain = _SURROGATE.sub("?", _ESCAPES.sub("", str(text)).replace("\r\n", "\n"))
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", plain)


def one_line(text: object, width: int = 60) -> str:
    """The text on one line, cut to `width` characters."""
    words = " ".join(safe(text).split())
    return words if len(words) <= width else words[: width - 1] + "…"


def say(text: str = "") -> None:
    """A line on stdout, made `safe`, and at once: someone may be reading it through a pipe."""
    print(safe(text), flush=True)


def warn(text: str) -> None:
    """A line on stderr, made `safe`."""
    print(safe(text), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON document, indented. Output of others is escaped by JSON itself."""
    say(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """One JSON document on one line."""
    say(json.dumps(value, separators=(",", ":")))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need to be; the last one is not padded, nothing is cut."""
    table = [[one_line(cell, 200) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        say("  ".join(cells).rstrip())


def dollars(amount: float) -> str:
    """An amount of US dollars, precise enough to tell small ones apart."""
    if amount and abs(amount) < 0.01:  # a cent
        return f"${amount:.6f}"
    return f"${amount:.4f}"


def count_of(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
