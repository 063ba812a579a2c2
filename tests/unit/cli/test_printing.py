"""Whatever is printed, a terminal only shows it."""

from collections.abc import Callable

import pytest

from stationmaster.cli.printing import print_json, print_table, say, warn

ATTACKS = (
    "\x1b[2J\x1b[H",  # clears the screen
    "\x1b]0;a title\x07",
    "\x1b]52;c;cm0gLXJmIC8=\x07",  # writes to the clipboard
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x9b31m",
    "one\rtwo",
    "a\x08b",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\ud800",
    "\x00",
)
PRINTERS: dict[str, Callable[[str], None]] = {
    "say": say,
    "warn": warn,
    "json": lambda text: print_json({text: [text]}),
    "table": lambda text: print_table([text], [[text]]),
}


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("attack", ATTACKS, ids=ascii)
def test_nothing_that_is_printed_acts_on_the_terminal(
    printer: str, attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    PRINTERS[printer](f"before {attack} after")
    printed = "".join(capsys.readouterr())
    assert "before" in printed
    assert "after" in printed
    acting = {*map(chr, range(0x09)), *map(chr, range(0x0B, 0x20)), *map(chr, range(0x7F, 0xA0))}
    acting |= {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\ud800"}
    assert set(printed) & acting == set()
