"""Following a task: server-sent events, and where a reader is among them."""

import json
from dataclasses import dataclass, field

from stationmaster.client.calls import event_of
from stationmaster.client.errors import ConnectionFailed, UnexpectedAnswer
from stationmaster.client.models import TaskEvent
from stationmaster.client.retry import backoff

MAX_FRAME_BYTES = 32 * 1024**2  # one event; the server's own are far smaller
_ENDED = "run.ended"
# About the stream, not about the task.
_CLOSING = frozenset({"overflow", "server.stopping", "error"})


@dataclass(slots=True)
class Frame:
    """One server-sent event. `id` is None where the frame has none."""

    id: str | None = None
    event: str = "message"
    data: list[str] = field(default_factory=list)


class Decoder:
    """Splits bytes into frames. Comments are dropped.

    Lines end in LF, CR or CRLF and nothing else: text split as Python does would break at U+2028
    inside of an event.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._frame = Frame()

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take some bytes; return the frames they complete."""
        data = self._rest + chunk
        if len(data) > MAX_FRAME_BYTES:
            raise UnexpectedAnswer("The server sent an event that is too large.")
        held = data.endswith(b"\r")  # perhaps the first half of a CRLF
        lines = (data[:-1] if held else data).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, rest = lines.split(b"\n")
        self._rest = rest + (b"\r" if held else b"")
        frames = []
        for line in whole:
            if line:
                self._take(line.decode("utf-8", "replace"))
            else:
                if self._frame.data:
                    frames.append(self._frame)
                self._frame = Frame()
        return frames

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id":
                self._frame.id = value
            case "event":
                self._frame.event = value
            case "data":
                self._frame.data.append(value)


class Reading:
    """Where one reader of one task is. `patience` is how long, in seconds, no event may come.

    The clients do the sending; this says with what, and what an interruption means.
    """

    def __init__(self, after: int, patience: float, now: float) -> None:
        self.done = False
        self._after = after
        self._patience = patience
        self._heard = now
        self._failures = 0
        self._known_ended = False
        self._news = False
        self._decoder = Decoder()

    def headers(self) -> dict[str, str]:
        """The headers of the next request; a new connection starts with them."""
        self._decoder = Decoder()
        self._news = False
        given = {"accept": "text/event-stream", "cache-control": "no-store"}
        return given | ({"last-event-id": str(self._after)} if self._after else {})

    def feed(self, chunk: bytes, now: float) -> list[TaskEvent]:
        """The events in some bytes, each once and in order."""
        self._heard = now  # a keepalive is a sign of life too
        self._failures = 0
        events = [self._event(frame) for frame in self._decoder.feed(chunk)]
        return [event for event in events if event is not None]

    def _event(self, frame: Frame) -> TaskEvent | None:
        if self.done or frame.event in _CLOSING:
            return None
        try:
            data = json.loads("\n".join(frame.data))
            seq = int(frame.id) if frame.id else None
        except (ValueError, RecursionError):
            raise UnexpectedAnswer("The server sent an event that is not one.") from None
        if not isinstance(data, dict):
            raise UnexpectedAnswer("The server sent an event that is not one.")
        event = event_of(seq, frame.event, data)
        if event.seq is not None:
            if event.seq <= self._after:
                return None
            self._after = event.seq
            self._news = True
        self.done = event.type == _ENDED
        return event

    def closed(self, now: float, *, ended: bool) -> float:
        """The stream was closed in order; `ended` is whether the task has ended by now.

        Sets `done` where nothing more can follow; else returns the seconds to wait.
        """
        if self._known_ended and not self._news:
            self.done = True
            return 0.0
        # Its last events may have come after the stream was closed: look once more.
        self._known_ended = ended
        return 0.0 if ended or self._news else self.failed("The server closes the stream.", now)

    def failed(self, reason: str, now: float) -> float:
        """A connection failed. Returns the seconds to wait, or raises `ConnectionFailed`."""
        if self._news:
            self._news = False
            return 0.0
        self._failures += 1
        pause = backoff(self._failures)
        if now + pause - self._heard > self._patience:
            raise ConnectionFailed(f"The task cannot be followed any longer: {reason}")
        return pause
