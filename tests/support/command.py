"""`stationmaster` on a command line, in this process."""

from collections.abc import Callable

Command = Callable[..., tuple[int, str, str]]
"""Runs a command line: exit code, stdout, stderr."""
