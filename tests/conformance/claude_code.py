"""The cells of the real Claude Code, as a user has it: pointed at the server by its environment."""

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from stationmaster.agents.claude_code.agent import bundled_cli
from tests.conformance.features import OURS, PROVIDERS, STATUSES, Provider, features_of
from tests.conformance.outcome import Outcome, outcome
from tests.conformance.scenes import FORECAST, LONG, PICTURE, WORDS, seen
from tests.conformance.station import Case, Cell, Station

AT_ONCE = 2
"""Processes: each needs a second of a processor to start."""
SECONDS = 90.0
TOLD = {
    "count_tokens": "not_by_itself",
    **dict.fromkeys(("embeddings", "responses", "previous", "batches"), "no_such_call"),
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}

Json = dict[str, Any]


class Talk:
    """A process of Claude Code that is spoken to, turn by turn."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def say(self, words: str) -> list[Json]:
        """What it writes until its result."""
        await self.send(words)
        return [frame async for frame in self.frames()]

    async def send(self, words: str) -> None:
        """Say something, and wait for nothing."""
        assert self.process.stdin is not None
        message = {"type": "user", "message": {"role": "user", "content": words}}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def frames(self) -> AsyncIterator[Json]:
        """Up to and with a result."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while line := await self.process.stdout.readline():
                frame: Json = json.loads(line)
                yield frame
                if frame["type"] == "result":
                    return
        raise AssertionError("Claude Code went away.")


@asynccontextmanager
async def talking(
    case: Case, *more: str, key: str | None = None, model: str | None = None, **env: str
) -> AsyncIterator[Talk]:
    """A process of its own home; `more` are arguments."""
    home = case.station.directory / case.tag
    home.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        str(bundled_cli()),
        *("-p", "--output-format=stream-json", "--input-format=stream-json", "--verbose"),
        *("--include-partial-messages", "--setting-sources=", "--strict-mcp-config"),
        *(f"--model={model or case.model}", "--tools=Bash,Read", "--allowedTools=Bash,Read", *more),
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": case.station.url,
            "ANTHROPIC_AUTH_TOKEN": key or case.station.key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "0",
            **env,
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=16 * 1024**2,
        start_new_session=True,
    )
    try:
        yield Talk(process)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def text(case: Case, talk: Talk) -> None:
    assert _result(await talk.say(case.ask("text"))) == WORDS


async def stream(case: Case, talk: Talk) -> None:
    frames = await talk.say(case.ask("text"))
    events = [frame["event"] for frame in frames if frame["type"] == "stream_event"]
    deltas = [e["delta"]["text"] for e in events if e.get("delta", {}).get("type") == "text_delta"]
    assert "".join(deltas) == WORDS
    assert len(deltas) > 3


async def tools(case: Case, talk: Talk) -> None:
    assert _result(await talk.say(case.ask("tools"))) == "The tool said: 21 degrees in Ulm"


async def parallel(case: Case, talk: Talk) -> None:
    said = _result(await talk.say(case.ask("parallel"))).removeprefix("The tool said: ")
    # Whichever ends first comes first.
    assert sorted(said.split(" and ")) == ["21 degrees in Bonn", "21 degrees in Ulm"], said


async def image(case: Case, talk: Talk) -> None:
    picture = case.station.directory / f"{case.tag}.png"
    picture.write_bytes(base64.b64decode(PICTURE))
    said = _result(await talk.say(f"{case.ask('image')} file:{picture}"))
    assert said.startswith("I see ")
    assert said != seen([]), said


async def thinking(case: Case, talk: Talk) -> str | None:
    assert _result(await talk.say(case.ask("thinking"))) == "Kept."
    return None if case.as_anthropic else "no_signature"


async def gzip(case: Case, talk: Talk) -> str:
    assert _result(await talk.say(case.ask("long"))).strip() == LONG.strip()
    calls = case.station.providers.calls[case.tag]
    assert calls
    assert all(call.body["stream"] for call in calls)
    return "streams"


async def agent(case: Case) -> str:
    async with talking(case, model=case.agent) as talk:
        result = (await talk.say(case.ask("text")))[-1]
    assert result["api_error_status"] == 400, result
    assert "tools" in result["result"]
    return "brings_tools"


async def structured(case: Case) -> None:
    async with talking(case, f"--json-schema={json.dumps(SCHEMA)}") as talk:
        frames = await talk.say(case.ask("structured"))
    assert frames[-1]["structured_output"] == FORECAST


async def error(case: Case, talk: Talk, status: int) -> None:
    scene = "text" if status in OURS else f"status{status}"
    result = (await talk.say(case.ask(scene)))[-1]
    assert result["is_error"] is True
    assert result["api_error_status"] == status, result
    if status not in (*OURS, 404, 413):  # for these it has words of its own
        assert f"scripted {status}" in result["result"]


async def own_error(case: Case, status: int) -> None:
    keys = {401: "sk-nobodys", 402: case.station.poor, 403: case.station.denied}
    async with talking(case, key=keys[status]) as talk:
        await error(case, talk, status)


async def retry(case: Case) -> None:
    async with talking(case, CLAUDE_CODE_MAX_RETRIES="2") as talk:
        assert _result(await talk.say(case.ask("retry"))) == WORDS
    first, second = (call.at for call in case.station.providers.calls[case.tag])
    assert second - first >= 1


async def timeout(case: Case) -> None:
    async with talking(case, API_TIMEOUT_MS="2000") as talk:
        result = (await talk.say(case.ask("slow")))[-1]
        assert result["is_error"] is True
        assert "timed out" in result["result"]
        calls = await case.station.providers.ended(case.tag)
    assert calls
    assert all(call.disconnected for call in calls)


async def cancel(case: Case) -> None:
    async with talking(case) as talk:
        await talk.send(case.ask("endless"))
        async for frame in talk.frames():
            if frame.get("event", {}).get("type") == "content_block_delta":
                break
        os.killpg(talk.process.pid, signal.SIGINT)
        calls = await case.station.providers.ended(case.tag)
    assert [call.disconnected for call in calls] == [True]


_ALONE: dict[str, Callable[[Case], Awaitable[str | None]]] = {
    "agent": agent,
    "structured": structured,
    "retry": retry,
    "timeout": timeout,
    "cancel": cancel,
}
_TURNS: dict[str, Callable[[Case, Talk], Awaitable[str | None]]] = {
    each.__name__: each for each in (text, stream, tools, parallel, image, gzip, thinking)
}


async def run(station: Station) -> dict[Cell, Outcome]:
    """Every cell of its columns."""
    places = asyncio.Semaphore(AT_ONCE)

    async def placed(work: Awaitable[dict[Cell, Outcome]]) -> dict[Cell, Outcome]:
        async with places:
            return await work

    works = [work for provider in PROVIDERS for work in _works(station, provider)]
    found = await asyncio.gather(*map(placed, works))
    return {cell: each for part in found for cell, each in part.items()}


def _works(station: Station, provider: Provider) -> list[Awaitable[dict[Cell, Outcome]]]:
    wanted = features_of(provider)

    def case(feature: str) -> Case:
        return Case(station, "claude", provider, feature)

    async def alone(feature: str, check: Awaitable[str | None]) -> dict[Cell, Outcome]:
        return {case(feature).cell: await outcome(check)}

    async def told() -> dict[Cell, Outcome]:
        return {
            case(name).cell: Outcome(reason=why) for name, why in TOLD.items() if name in wanted
        }

    async def conversation() -> dict[Cell, Outcome]:
        found = {}
        async with talking(case("conversation")) as talk:
            for feature, turn in _TURNS.items():
                if feature not in wanted:
                    continue
                found[case(feature).cell] = await outcome(turn(case(feature), talk))
            for status in STATUSES:
                if status not in OURS and f"error_{status}" in wanted:
                    asked = case(f"error_{status}")
                    found[asked.cell] = await outcome(error(asked, talk, status))
        return found

    return [
        conversation(),
        told(),
        *(
            alone(f"error_{each}", own_error(case(f"error_{each}"), each))
            for each in OURS
            if f"error_{each}" in wanted
        ),
        *(alone(name, check(case(name))) for name, check in _ALONE.items() if name in wanted),
    ]


def _result(frames: list[Json]) -> str:
    result = frames[-1]
    assert not result["is_error"], result["result"]
    return str(result["result"])
