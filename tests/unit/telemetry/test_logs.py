import asyncio
import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from stationmaster.telemetry import Redactor, RequestLog, about, configure_logging
from stationmaster.telemetry.logs import Level

SECRET = "canary-0123456789"


class Output(io.StringIO):
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def configure(level: Level = "info") -> Output:
    output = Output()
    configure_logging(level=level, log_format="json", redactor=Redactor(SECRET), stream=output)
    return output


def test_a_line_is_a_sentence_plus_fields() -> None:
    output = configure()
    with bound_contextvars(request_id="req_1", run_id="run_1", principal="key_1"):
        structlog.get_logger("stationmaster.sessions").info("A run has ended.", outcome="completed")
    (record,) = output.records()
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "level": "info",
        "message": "A run has ended.",
        "module": "stationmaster.sessions",
        "outcome": "completed",
        "request_id": "req_1",
        "run_id": "run_1",
        "principal": "key_1",
    }


def test_what_was_bound_is_gone_after() -> None:
    output = configure()
    with bound_contextvars(request_id="req_1"):
        pass
    structlog.get_logger("stationmaster").info("Later.")
    assert "request_id" not in output.records()[0]


@pytest.mark.parametrize("name", ["uvicorn.error", "alembic", "aiohttp", "anything.else"])
def test_other_libraries_write_the_same_lines(name: str) -> None:
    output = configure()
    with bound_contextvars(request_id="req_1"):
        logging.getLogger(name).warning("Half of %s", "it", extra={"size": 3})
    (record,) = output.records()
    assert (record["message"], record["module"], record["level"]) == ("Half of it", name, "warning")
    assert (record["size"], record["request_id"]) == (3, "req_1")


def test_the_level_holds_for_us_and_debug_is_ours_alone() -> None:
    def messages(level: Level) -> list[str]:
        output = configure(level)
        structlog.get_logger("stationmaster.x").debug("ours")
        structlog.get_logger("stationmaster.x").info("ours, more important")
        logging.getLogger("uvicorn.error").debug("theirs")
        logging.getLogger("aiosqlite").info("a statement with its values")
        return [record["message"] for record in output.records()]

    assert messages("debug") == ["ours", "ours, more important"]
    assert messages("info") == ["ours, more important"]
    assert messages("error") == []


def test_uvicorns_access_lines_are_not_written() -> None:
    output = configure()
    logging.getLogger("uvicorn.access").info('"GET /?api_key=%s"', SECRET)
    assert output.getvalue() == ""


def test_configuring_again_replaces_and_does_not_double() -> None:
    first = configure()
    second = configure()
    logging.getLogger("stationmaster").info("Once.")
    assert first.getvalue() == ""
    assert len(second.records()) == 1


@pytest.mark.parametrize("path", ["/v1/x", f"/{SECRET}", "/ä\x7f", "/\ud800"])
@pytest.mark.parametrize("said", [{}, {"client_request_id": SECRET, "principal": "key_1"}])
def test_a_requests_line_is_what_structlog_writes_of_its_fields(
    path: str, said: dict[str, str]
) -> None:
    output = configure()
    fields: Any = {
        "method": "GET",
        "path": path,
        "endpoint": "/v1/x",
        "status_code": 200,
        "duration_ms": 1.5,
    }
    token = about.begin({"request_id": "req_1", **said})
    RequestLog("stationmaster.x").tell("Answered.", quiet=False, **fields)
    RequestLog("stationmaster.x").tell("Not told.", quiet=True, **fields)
    structlog.get_logger("stationmaster.x").info("Answered.", **fields)
    about.end(token)
    ours, theirs = output.records()
    assert ours.pop("timestamp") <= theirs.pop("timestamp")
    assert list(ours.items()) == list(theirs.items())
    assert ours["request_id"] == "req_1"
    assert SECRET not in output.getvalue()


class Holder:
    def __repr__(self) -> str:
        return f"Holder(token={SECRET})"


def test_no_secret_by_any_road() -> None:
    output = configure("debug")
    log = structlog.get_logger("stationmaster.x")
    log.info(
        " ".join(["in the message", SECRET]), value=SECRET, nested={"a": [SECRET]}, **{SECRET: 1}
    )
    log.info("inside an object", holder=Holder())
    logging.getLogger("uvicorn.error").info("as an argument %s", SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("With a traceback.")
        logging.getLogger("alembic").exception("With a traceback.")
    with bound_contextvars(request_id=SECRET):
        log.info("bound")
    log.info("as bytes", name=SECRET.encode(), several=(SECRET.encode(), 2**70))
    assert len(output.records()) == 7
    assert SECRET not in output.getvalue()


@pytest.mark.parametrize("get_logger", [structlog.get_logger, logging.getLogger])
@pytest.mark.parametrize("name", ["stationmaster.x", "uvicorn.error"])
@pytest.mark.parametrize("more", ["", "\x7f", "\u2028\x85"])
def test_a_line_break_does_not_make_a_second_line(
    get_logger: Callable[[str], Any], name: str, more: str
) -> None:
    output = configure()
    hostile = 'x\n{"level": "error"}\r\x1b[2J' + more
    get_logger(name).info(hostile)
    assert output.getvalue().count("\n") == 1
    assert output.getvalue()[:-1].isprintable()
    assert output.getvalue().isascii()
    assert output.records()[0]["message"] == hostile


def test_half_a_surrogate_is_a_line_too() -> None:
    # Not by `logging`: pytest captures what goes that way, and cannot hand it on between processes.
    output = configure()
    structlog.get_logger("stationmaster.x").info("x\ud800")
    assert output.getvalue().isascii()
    assert output.records()[0]["message"] == "x\ud800"


class Counting(Output):
    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    configure_logging(level="info", log_format="json", redactor=Redactor(), stream=Full())
    structlog.get_logger("stationmaster.x").info("Lost.")


async def test_lines_of_one_turn_of_the_loop_are_written_together_and_in_order() -> None:
    output = Counting()
    configure_logging(
        level="info", log_format="json", redactor=Redactor(), stream=output, gather=True
    )
    log = structlog.get_logger("stationmaster.x")
    log.info("1")
    await asyncio.to_thread(log.info, "2")  # no loop runs there: it is written, and what waited
    log.info("3")
    log.info("4")
    assert output.writes == 1
    await asyncio.sleep(0)
    assert output.writes == 2
    log.info("5")
    log.warning("6")
    log.info("7")
    logging.getLogger("anything.else").info("8")
    log.info("9")
    for handler in logging.getLogger().handlers:
        handler.flush()  # as at the end of the process
    assert output.writes == 5
    assert [record["message"] for record in output.records()] == [*"123456789"]


def test_a_huge_value_is_cut() -> None:
    output = configure()
    structlog.get_logger("stationmaster.x").info("Read.", body="x" * 1_000_000)
    assert len(output.getvalue()) < 20_000
    assert output.records()[0]["body"].endswith("… (1000000 characters)")


def test_for_people_control_characters_become_visible() -> None:
    output = io.StringIO()
    configure_logging(level="info", log_format="console", redactor=Redactor(SECRET), stream=output)
    log = structlog.get_logger("stationmaster.x")
    log.info("one\ntwo \x1b[31mred", name=f"\x1b]0;{SECRET}\x07")
    try:
        raise ValueError("in an error \x1b[31m")
    except ValueError:
        log.exception("Broken.")
    text = output.getvalue()
    assert "\x1b" not in text
    assert "one\\u000atwo" in text
    assert SECRET not in text
    assert "Traceback (most recent call last):\n" in text
