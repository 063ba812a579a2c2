"""Where a task is shown: a terminal, with what is being written just now, or plain lines."""

import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from stationmaster.cli.narration import Line, Narrator, Style
from stationmaster.cli.printing import one_line, safe
from stationmaster.client import TaskEvent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_DELTA = "agent.delta"
_SHOWN_TAIL = 8  # lines of a message in the making

_INDENT: dict[Style, str] = {"input": "    ", "result": "    ", "thinking": "  "}
_LABEL: dict[Style, str] = {"status": "· ", "tool": "> ", "failure": "! ", "done": "= "}
_COLOUR: dict[Style, str] = {
    "status": "dim",
    "thinking": "italic dim",
    "text": "",
    "tool": "bold cyan",
    "input": "dim",
    "result": "green",
    "failure": "bold red",
    "done": "bold green",
}


class View(Protocol):
    """Shows one task."""

    narrator: Narrator

    def show(self, event: TaskEvent) -> None:
        """Show what an event has to say."""
        ...

    def note(self, text: str) -> None:
        """Show a word of the command's own."""
        ...


def open_view(stream: TextIO) -> AbstractContextManager[View]:
    """A view for this stream: live on a terminal, else plain."""
    if not stream.isatty():
        return nullcontext(PlainView(stream))
    from rich.console import Console

    return LiveView(Console(file=stream, highlight=False))


def plain(line: Line) -> str:
    """A line as plain text, told apart by how it begins."""
    label, indent = _LABEL.get(line.style, ""), _INDENT.get(line.style, "")
    return label + "\n".join(indent + part for part in line.text.split("\n"))


class PlainView:
    """One line after the other, for pipes and logs. What only passes by is left out."""

    def __init__(self, stream: TextIO) -> None:
        self.narrator = Narrator()
        self._stream = stream

    def show(self, event: TaskEvent) -> None:
        """See `View`."""
        for line in self.narrator.lines(event):
            if line.text:
                self._stream.write(plain(line) + "\n")
        self._stream.flush()

    def note(self, text: str) -> None:
        """See `View`."""
        self._stream.write(f"· {safe(text)}\n")
        self._stream.flush()


class LiveView:
    """What has happened scrolls by; below it stands what is being written, and the cost so far."""

    def __init__(self, console: "Console") -> None:
        from rich.live import Live

        self.narrator = Narrator()
        self._console = console
        self._started = time.monotonic()
        self._writing = ""
        self._kind = ""
        # It draws itself anew by a thread, so that the clock goes on in silence.
        self._live = Live(
            console=console,
            transient=True,
            refresh_per_second=8,
            get_renderable=self._bottom,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        """Take the bottom of the terminal."""
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        self._live.__exit__(kind, error, trace)

    def show(self, event: TaskEvent) -> None:
        """See `View`."""
        if event.type == _DELTA:
            self._write(event)
            return
        lines = [line for line in self.narrator.lines(event) if line.text]
        if lines and self._writing:
            self._writing = ""
            self._live.refresh()  # or the last picture of it would be drawn below the whole
        for line in lines:
            self._print(line)

    def note(self, text: str) -> None:
        """See `View`."""
        self._print(Line("status", safe(text)))

    def _write(self, event: TaskEvent) -> None:
        kind = str(event.data.get("kind"))
        if kind != self._kind:
            self._kind, self._writing = kind, ""
        self._writing += safe(event.data.get("text", ""))

    def _print(self, line: Line) -> None:
        from rich.text import Text

        # Text, not a string: nothing that an agent wrote is taken for markup.
        self._console.print(Text(plain(line), style=_COLOUR[line.style]))

    def _bottom(self) -> "RenderableType":
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.text import Text

        seconds = int(time.monotonic() - self._started)
        clock = f"{seconds // 60}:{seconds % 60:02d}"
        status = Text(f"{self.narrator.state}  {clock}  {self.narrator.so_far()}", style="dim")
        parts: list[RenderableType] = []
        if self._writing:
            colour = "italic dim" if self._kind != "text" else ""
            tail = self._writing.split("\n")[-_SHOWN_TAIL:]
            width = max(20, self._console.width - 1)
            parts = [Text(one_line(part, width), style=colour) for part in tail]
        return Group(*parts, Spinner("dots", text=status))
