"""What the demo prints: scenes, facts, and checks that can fail."""

import sys
import time

from rich.console import Console
from rich.text import Text

from stationmaster.cli.printing import safe
from stationmaster.cli.view import open_view
from stationmaster.client import Client, Task, TaskEvent


class Failed(Exception):
    """Something is not as it should be."""


class Stage:
    """Prints to stdout, in colour on a terminal. Rich heeds NO_COLOR."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    def title(self, text: str) -> None:
        """The heading of a scene."""
        self._console.print()
        self._console.print(Text(f"== {text} ==", style="bold magenta"))

    def say(self, text: str, style: str = "") -> None:
        """A line of prose."""
        self._console.print(Text(safe(text), style=style))

    def command(self, text: str) -> None:
        """Something to type."""
        self._console.print(Text(f"  $ {text}", style="bold"))

    def check(self, holds: bool, text: str) -> None:
        """A promise, and whether it is kept. Raises `Failed` where it is not."""
        if not holds:
            self._console.print(Text(f"  [failed] {safe(text)}", style="bold red"))
            raise Failed(text)
        self._console.print(Text(f"  [ok] {safe(text)}", style="green"))

    def watch(self, client: Client, task: Task) -> Task:
        """Show a task to its end; return it as it ended."""
        with open_view(sys.stdout) as view:
            for event in client.follow(task.id):
                view.show(event)
        return client.get(task.id)

    def glimpse(self, client: Client, task: Task, until: str) -> list[TaskEvent]:
        """Show a task up to its first event of this type; return the numbered events so far."""
        seen = []
        with open_view(sys.stdout) as view:
            for event in client.follow(task.id):
                view.show(event)
                if event.seq is not None:
                    seen.append(event)
                if event.type == until:
                    break
        return seen

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started
