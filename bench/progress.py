"""A line that says what is being measured now, on stderr."""

import sys
from typing import TextIO


class Progress:
    """On a terminal one line that changes; elsewhere a line each."""

    def __init__(self, name: str, *, to: TextIO | None = None) -> None:
        self._name = name
        self._to = to or sys.stderr
        self._live = self._to.isatty()

    def say(self, what: str) -> None:
        """Show what is going on."""
        if self._live:
            self._to.write(f"\r\x1b[K{self._name}: {what}")
        else:
            self._to.write(f"{self._name}: {what}\n")
        self._to.flush()

    def clear(self) -> None:
        """Leave the terminal's line empty."""
        if self._live:
            self._to.write("\r\x1b[K")
            self._to.flush()
