"""Log lines: one JSON object a line on stderr, from our own loggers and everyone else's.

A line is a sentence plus fields: `log.info("A run has ended.", run_id=…, outcome=…)`. What holds
for a whole run is bound once with `structlog.contextvars.bound_contextvars(...)`, what holds for a
whole request is said in `about`; under the names `request_id`, `run_id` and `principal` (its id) it
appears on every line below it.
"""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from stationmaster.telemetry import about
from stationmaster.telemetry.redaction import Redactor

Level = Literal["debug", "info", "warning", "error"]

_LONGEST = 16_384  # characters of one field; a traceback fits, a prompt or an upload does not
_LEVELS = {"exception": "error", "warn": "warning", "fatal": "critical"}  # by the method's name
_DELETE = b"\x7f"
_FIRST = ("timestamp", "level", "message", "module")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CONTROL_BUT_BREAKS = re.compile(r"(?!\n)" + _CONTROL.pattern)

# These tell every statement with its values, or every frame, at debug level: prompts and keys.
_CHATTY = (
    "aiormq",
    "aiosqlite",
    "alembic",
    "asyncio",
    "asyncpg",
    "httpcore",
    "httpx",
    "mcp",
    "sqlalchemy",
    "urllib3",
)
_SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "claude_agent_sdk")


def configure_logging(
    *,
    level: Level,
    log_format: Literal["json", "console"],
    redactor: Redactor,
    stream: TextIO | None = None,
    gather: bool = False,
) -> None:
    """Send every line of the process to `stream` (stderr). Called again, it replaces itself.

    With `gather` lines below warnings are written at the end of the event loop's present turn.

    `level` holds for Stationmaster; other libraries never say more than `info`, and those that
    would log the data they carry only warnings.
    """
    shared: list[Processor] = [
        about.merge,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = _Handler(stream or sys.stderr, gather=gather)
    render = _render(log_format)
    traced = structlog.processors.format_exc_info
    handler.setFormatter(_Formatter([traced, _tidy, *render], shared, redactor))
    processors = [about.merge, _own, *render]
    if log_format == "json":
        _ways[:] = [_Way(processors, _number(level), handler, redactor)]
    else:
        _ways.clear()
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=lambda name="stationmaster": _Line(name, handler, redactor),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [item for item in root.handlers if not isinstance(item, _Handler)]
    root.addHandler(handler)
    root.setLevel(min(_number(level), logging.INFO))
    _set_levels(level)


def _number(level: Level) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _set_levels(level: Level) -> None:
    others = max(_number(level), logging.INFO)
    logging.getLogger("stationmaster").setLevel(_number(level))
    for name in _SERVERS:
        # uvicorn brings handlers of its own, which would write every line a second time, in a
        # second form, past the redaction.
        server = logging.getLogger(name)
        server.handlers.clear()
        server.propagate = True
        server.setLevel(others)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(others, logging.WARNING))
    # Our own access line has the request's id and the route's template; uvicorn's has the URL,
    # with whatever a client put into its query.
    logging.getLogger("uvicorn.access").handlers.clear()
    logging.getLogger("uvicorn.access").propagate = False


def _render(log_format: str) -> list[Processor]:
    if log_format == "console":
        console = structlog.dev.ConsoleRenderer(colors=False, event_key="message")
        return [_for_people, console]
    return [_json]


def _own(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """What other libraries' lines get step by step, in one: there is a line for every request."""
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    line = {
        "timestamp": _now(),
        "level": _LEVELS.get(method, method),
        "message": str(event.pop("event", "")),
        "module": logger.name,
    }
    for name, value in event.items():
        line[name] = _bounded(value) if type(value) is str else value
    return line


def _now() -> str:
    second, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_spelled(second)}.{micros:06d}Z"


@lru_cache(maxsize=1)
def _spelled(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def _tidy(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Name the fields, put the ones every line has first, and bound each value."""
    event["message"] = str(event.pop("event", ""))
    event["module"] = event.pop("logger", None)
    head = {name: event.pop(name) for name in _FIRST if name in event}
    return {name: _bounded(value) for name, value in (*head.items(), *event.items())}


def _for_people(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make control characters visible, which JSON escapes by itself."""
    return {name: _visible(value, keep_breaks=name == "exception") for name, value in event.items()}


_encode_plain = msgspec.json.Encoder().encode
_encode_any = json.JSONEncoder(default=repr, separators=(",", ":")).encode
_PLAIN = frozenset({str, int, float, bool, type(None)})


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One line of ASCII, so that no control character gets through."""
    line = _plain_line(event) if _PLAIN.issuperset(map(type, event.values())) else None
    return _encode_any(event) if line is None else line


def _plain_line(fields: object) -> str | None:
    """The fields on one line; None where that is not plain ASCII."""
    try:
        line = _encode_plain(fields)
    except (ValueError, OverflowError):  # half a surrogate, a number of many digits
        return None
    return line.decode() if line.isascii() and _DELETE not in line else None


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + f"… ({len(value)} characters)"
    return value


def _visible(value: Any, *, keep_breaks: bool) -> Any:
    if not isinstance(value, str):
        return value
    pattern = _CONTROL_BUT_BREAKS if keep_breaks else _CONTROL
    return pattern.sub(lambda match: f"\\u{ord(match[0]):04x}", value)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring again can tell it from a test's or a host program's.

    With `gather`, lines of one turn of the event loop can be written together: many requests end
    in one turn, and each write lets other threads run.
    """

    def __init__(self, stream: TextIO, *, gather: bool) -> None:
        super().__init__(stream)
        self._gather = gather
        self._gathered: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self.put(self.format(record))
        except Exception:  # noqa: BLE001 - as `logging` does it
            self.handleError(record)

    def put(self, line: str) -> None:
        """Write a line, after those that were gathered."""
        self._add(line)
        self.flush()

    def put_soon(self, line: str) -> None:
        """Write a line at the end of this turn of the event loop, or now where there is none."""
        loop = asyncio._get_running_loop() if self._gather else None
        if loop is None:
            self.put(line)
        elif self._add(line) == 1:
            loop.call_soon(self.flush)

    def _add(self, line: str) -> int:
        with self.lock or nullcontext():
            self._gathered.append(line + self.terminator)
            return len(self._gathered)

    def flush(self) -> None:
        """Write what was gathered."""
        # A log that cannot be written must not stop what it tells of.
        with self.lock or nullcontext(), suppress(OSError, ValueError):
            if self._gathered:
                gathered, self._gathered = self._gathered, []
                self.stream.write("".join(gathered))
            super().flush()


class _Line:
    """Writes the rendered lines of one of our own loggers.

    Not by way of `logging`, which takes three times as long as all the rest: there is a line for
    every request. The handler's lock and stream are shared with the lines that do come that way.
    """

    def __init__(self, name: str, handler: _Handler, redactor: Redactor) -> None:
        self.name = name
        self._handler = handler
        self._redactor = redactor

    def write(self, line: str) -> None:
        self._handler.put(self._redactor.scrub(line))

    def write_soon(self, line: str) -> None:
        """What holds nobody up, and is no loss with a process that ends just now."""
        self._handler.put_soon(self._redactor.scrub(line))

    debug = info = write_soon
    warning = error = critical = write


class _Answered(msgspec.Struct, omit_defaults=True):
    """A request's line, its fields in the order of every other line's."""

    timestamp: str
    level: str
    message: str
    module: str
    method: str
    path: str
    endpoint: str
    status_code: int
    duration_ms: float
    request_id: str = ""
    client_request_id: str = ""
    principal: str = ""


@dataclass(frozen=True, slots=True)
class _Way:
    """Past structlog, for as long as its processors are these."""

    processors: list[Processor]
    level: int
    handler: _Handler
    redactor: Redactor


_ways: list[_Way] = []  # the one that is configured, where lines are JSON


class RequestLog:
    """Writes the line that there is for every request.

    It is the line that `structlog` makes of the same fields, in a fifth of the time. Where lines
    are for people, or somebody listens instead, `structlog` does make it.
    """

    def __init__(self, module: str) -> None:
        """`module` is the logger's name."""
        self._module = module
        self._log = structlog.get_logger(module).bind()  # once: each look for it makes two objects

    def tell(
        self,
        message: str,
        *,
        quiet: bool,
        method: str,
        path: str,
        endpoint: str,
        status_code: int,
        duration_ms: float,
    ) -> None:
        """Write one line, at debug level where it is `quiet`."""
        way = _ways[0] if _ways else None
        if way is not None and way.processors and way.processors[-1] is _json:
            if way.level > (logging.DEBUG if quiet else logging.INFO):
                return
            said = about.fields()
            line = _plain_line(
                _Answered(
                    _now(),
                    "debug" if quiet else "info",
                    message,
                    self._module,
                    method,
                    path,
                    endpoint,
                    status_code,
                    duration_ms,
                    **said,
                )
            )
            if line is not None:
                # What is not ours is the path and the client's own id.
                if path != endpoint or "client_request_id" in said:
                    line = way.redactor.scrub(line)
                way.handler.put_soon(line)
                return
        (self._log.debug if quiet else self._log.info)(
            message,
            method=method,
            path=path,
            endpoint=endpoint,
            status_code=status_code,
            duration_ms=duration_ms,
        )


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders, then masks: the whole line, so that no `repr` of an object slips by."""

    def __init__(
        self, processors: Iterable[Processor], foreign: list[Processor], redactor: Redactor
    ) -> None:
        extra = structlog.stdlib.ExtraAdder()
        unmarked = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        super().__init__(processors=[unmarked, *processors], foreign_pre_chain=[*foreign, extra])
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.scrub(super().format(record))
