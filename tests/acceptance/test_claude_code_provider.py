"""The CLI as a provider: the public suite, with the real CLI and a scripted upstream behind it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.claude_code import ClaudeCodeAgent
from stationmaster.agents.claude_code.launcher import AgentProcess
from stationmaster.agents.claude_code.provider import ClaudeCodeProvider
from stationmaster.agents.claude_code.question import QuestionRefusedError, question_of
from stationmaster.kernel.errors import Invalid, Upstream, UpstreamTimeout
from stationmaster.providers.base import ProviderRequest
from stationmaster.providers.conformance import ENDLESS, Check, Subject, checks_for, whole
from stationmaster.providers.conformance.conduct import keeps_calls_apart
from stationmaster.providers.upstream import Timeouts
from tests.support.wire_upstream import Reply, Text, Usage, WireUpstream

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
UNKNOWN = "no-such-model"


def echo(request: dict[str, Any]) -> Reply:
    if request["model"] == UNKNOWN:
        return Reply(status=404, message=f"model: {UNKNOWN}")
    # The CLI tells the model of its surroundings, before or after what the user says.
    said = re.findall(r"Say (\w+)\.", json.dumps(request["messages"]))
    word = said[-1] if said else "nothing"
    answer = Text(f"Here it is: {word}. " + "And more words. " * 5)
    return Reply((answer,), Usage(40, 20), hang_after=5 if word == ENDLESS else None)


@pytest.fixture
async def upstream() -> AsyncIterator[WireUpstream]:
    async with WireUpstream(echo) as running:
        yield running


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[ClaudeCodeAgent]:
    made = ClaudeCodeAgent(state_dir=tmp_path / "data", sandbox="off")
    (tmp_path / "data").mkdir()
    yield made
    await made.aclose()


@pytest.fixture
async def provider(
    tmp_path: Path, agent: ClaudeCodeAgent, upstream: WireUpstream
) -> AsyncIterator[ClaudeCodeProvider]:
    made = provider_of(tmp_path, agent, upstream, Timeouts())
    yield made
    await made.aclose()
    assert agent.alive() == 0
    assert list(tmp_path.glob("calls/*")) == []


def provider_of(
    tmp_path: Path, agent: ClaudeCodeAgent, upstream: WireUpstream, timeouts: Timeouts
) -> ClaudeCodeProvider:
    return ClaudeCodeProvider(
        agent.asked,
        directory=tmp_path / "calls",
        timeouts=timeouts,
        own_login=False,
        gateway_url=upstream.url,
        token="a-token",
    )


# Forty processes at once are not what it is for: it has a place for a few.
CHECKS = [check for check in checks_for({"messages"}) if check is not keeps_calls_apart]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conforms(check: Check, provider: ClaudeCodeProvider, upstream: WireUpstream) -> None:
    async def closed() -> None:
        async with asyncio.timeout(30):
            await upstream.message_calls[-1].done.wait()
        assert upstream.message_calls[-1].disconnected

    await check(Subject(provider, unknown_model=UNKNOWN, upstream_closed=closed))


async def test_what_the_model_is_asked(
    provider: ClaudeCodeProvider, upstream: WireUpstream
) -> None:
    """Its user's words, the system prompt, the bound; no tools, and no history."""
    subject = Subject(provider)
    await subject.asked(subject.request("lantern", system="Speak like a lighthouse."))
    (call,) = upstream.message_calls
    sent = call.body
    assert sent["max_tokens"] == 1024
    assert not sent.get("tools")
    assert "Speak like a lighthouse." in json.dumps(sent["system"])
    assert "Say lantern." in json.dumps(sent["messages"])
    assert [each["role"] for each in sent["messages"]].count("assistant") == 0


async def test_a_silent_model_is_given_up(
    tmp_path: Path, agent: ClaudeCodeAgent, upstream: WireUpstream
) -> None:
    slow = provider_of(tmp_path, agent, upstream, Timeouts(inactivity=0.5))
    subject = Subject(slow)
    reply = await slow.send(subject.request(ENDLESS, stream=True))
    with pytest.raises(UpstreamTimeout):
        await whole(reply)
    assert agent.alive() == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        *(({name: 1}, name) for name in ("temperature", "top_p", "tools", "tool_choice")),
        *(({name: 1}, name) for name in ("thinking", "stop_sequences", "metadata", "new")),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * 3}, "messages"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"system": 7}, "system"),
        ({"system": [{"type": "text", "text": "a"}, 7]}, "system"),
    ],
)
def test_what_it_cannot_ask_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello."}]}
    assert question_of(json.dumps(body).encode(), "m").max_tokens == 9
    with pytest.raises(QuestionRefusedError, match=named):
        question_of(json.dumps(body | change).encode(), "m")


def asking(words: str) -> ProviderRequest:
    body = {
        "model": "m",
        "max_tokens": 99,
        "system": "The system's canary.",
        "messages": [{"role": "user", "content": words}],
    }
    return ProviderRequest(
        operation="messages",
        model="claude-sonnet-4-5",
        body=json.dumps(body).encode(),
        headers=(),
        stream=False,
    )


@pytest.mark.parametrize("where", ["../home/", "~/", "file://"])
async def test_no_file_is_read_because_a_request_names_it(
    tmp_path: Path, agent: ClaudeCodeAgent, upstream: WireUpstream, where: str
) -> None:
    """The CLI puts the content of `@PATH` before the model: its home has the owner's login."""
    outside = tmp_path / "outside.txt"
    outside.write_text("The file's canary.")
    named = str(outside) if where == "file://" else f"{where}system.txt"
    provider = provider_of(tmp_path, agent, upstream, Timeouts())
    await whole(await provider.send(asking(f"Say lamp. @{named} and @'{named}' @\"{named}\"")))
    (call,) = upstream.message_calls
    assert "canary" not in json.dumps(call.body["messages"])
    assert f"@{named}" in json.dumps(call.body["messages"])


@pytest.mark.parametrize("words", ["/context", "/model opus", "/compact", "/login", "/cost"])
async def test_no_command_of_the_cli_is_given_by_a_request(
    provider: ClaudeCodeProvider, upstream: WireUpstream, words: str
) -> None:
    reply = await provider.send(asking(words))
    error = json.loads(await whole(reply))["error"]
    assert (reply.status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith("messages.0.content: ")
    assert "isn't available" in error["message"]
    assert upstream.message_calls == []


@pytest.mark.parametrize("words", ["!touch pwned", "# remember this", "/home/me is a directory."])
async def test_what_only_looks_like_a_command_is_asked(
    provider: ClaudeCodeProvider, upstream: WireUpstream, words: str
) -> None:
    reply = await provider.send(asking(words))
    assert reply.status == 200
    await whole(reply)
    (call,) = upstream.message_calls
    last = call.body["messages"][-1]["content"][-1]
    assert last["text"] == words


@pytest.mark.parametrize("model", ["--dangerously-skip-permissions", "a\0b", "a b", ""])
async def test_a_model_that_is_no_name_starts_nothing(
    provider: ClaudeCodeProvider, agent: ClaudeCodeAgent, model: str
) -> None:
    with pytest.raises(Invalid, match="name of a model"):
        await provider.send(msgspec.structs.replace(asking("Say lamp."), model=model))
    assert agent.alive() == 0


async def test_one_over_its_limits_is_stopped(
    tmp_path: Path, agent: ClaudeCodeAgent, upstream: WireUpstream
) -> None:
    """As every agent's process it is counted and watched."""

    def narrow(spec: LaunchSpec, words: Sequence[str]) -> AbstractAsyncContextManager[AgentProcess]:
        return agent.asked(replace(spec, limits=replace(spec.limits, disk_bytes=1)), words)

    provider = ClaudeCodeProvider(
        narrow,
        directory=tmp_path / "calls",
        own_login=False,
        gateway_url=upstream.url,
        token="a-token",
    )
    with capture_logs() as lines, pytest.raises(Upstream):
        await whole(await provider.send(Subject(provider).request(ENDLESS, stream=True)))
    assert [line["limit"] for line in lines if "stopped" in line["event"]] == ["disk_bytes"]
    assert agent.alive() == 0


async def test_a_refusal_is_a_reply_and_starts_nothing(
    provider: ClaudeCodeProvider, agent: ClaudeCodeAgent
) -> None:
    subject = Subject(provider)
    reply = await provider.send(subject.request(temperature=0))
    assert reply.status == 400
    error = json.loads(await whole(reply))["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("temperature:")
    assert agent.alive() == 0
