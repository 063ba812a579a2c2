"""The scripted model by itself. A loop here plays the agent: it does what the model asks for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stationmaster.providers.base import ProviderRequest
from stationmaster.providers.conformance import assembled, events_of, whole
from stationmaster.providers.offline import OfflineProvider
from stationmaster.providers.offline.programs import MAX_COUNT, choose

Json = dict[str, Any]

ALL = ("Write", "Bash", "Read")


def asking(prompt: str, tools: tuple[str, ...] = ALL, **members: Any) -> Json:
    return {
        "model": "claude-opus-5-5",
        "max_tokens": 4096,
        "tools": [{"name": name, "input_schema": {"type": "object"}} for name in tools],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>\nprime csv\n</system-reminder>"},
                    {"type": "text", "text": prompt},
                ],
            }
        ],
        **members,
    }


async def answer(request: Json, *, stream: bool = False) -> Json:
    body = json.dumps(request).encode()
    sent = ProviderRequest("messages", request["model"], body, (), stream)
    reply = await OfflineProvider(delay=0).send(sent)
    raw = await whole(reply)
    told: Json = assembled(events_of(raw)) if stream else json.loads(raw)
    return {**told, "http": reply.status}


def uses(message: Json) -> list[Json]:
    return [block for block in message["content"] if block["type"] == "tool_use"]


def words(message: Json) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def do(use: Json, directory: Path) -> tuple[str, bool]:
    """Do a tool call as the agent would; its result and whether it failed."""
    given = use["input"]
    if use["name"] == "Write":
        (directory / given["file_path"]).write_text(given["content"])
        return "File created", False
    if use["name"] == "Read":
        return (directory / given["file_path"]).read_text(), False
    command = given["command"].replace("python3", sys.executable)
    done = subprocess.run(
        command, shell=True, cwd=directory, capture_output=True, text=True, check=False
    )
    return done.stdout, done.returncode != 0


async def work(request: Json, directory: Path) -> list[Json]:
    """The model's messages until it stops."""
    said: list[Json] = []
    for _ in range(10):
        message = await answer(request, stream=len(said) % 2 == 0)
        said.append(message)
        results = []
        for use in uses(message):
            result, failed = do(use, directory)
            results.append(
                {
                    "type": "tool_result",
                    "tool_use_id": use["id"],
                    "content": result,
                    "is_error": failed,
                }
            )
        if not results:
            return said
        request["messages"] += [
            {"role": "assistant", "content": message["content"]},
            {"role": "user", "content": results},
            {"role": "system", "content": "<total_tokens>1000 left</total_tokens>"},
        ]
    raise AssertionError("the script does not end")


@pytest.mark.parametrize(
    ("prompt", "file", "printed"),
    [
        ("Print the first 12 Fibonacci numbers", "fibonacci.py", "0 1 1 2 3 5 8 13 21 34 55 89"),
        ("a few primes please", "primes.py", "2 3 5 7 11 13 17 19 23 29"),
        ("Write fizzbuzz", "fizzbuzz.py", "14\nFizzBuzz"),
        ("count words into a csv", "words.py", "word,count\nthe,7"),
        ("Do something useful", "hello.py", "Hello, world!"),
    ],
)
async def test_plans_writes_runs_reads_and_sums_up(
    prompt: str, file: str, printed: str, tmp_path: Path
) -> None:
    instructions = f"# Environment\n - Primary working directory: {tmp_path}\n - Platform: linux"
    said = await work(asking(prompt, system=instructions), tmp_path)
    assert [use["name"] for message in said for use in uses(message)] == ["Write", "Bash", "Read"]
    assert uses(said[0])[0]["input"]["file_path"] == str(tmp_path / file)
    assert (tmp_path / file).exists()
    assert printed in words(said[-1])
    assert [message["stop_reason"] for message in said] == ["tool_use"] * 3 + ["end_turn"]
    for message in (said[0], said[-1]):
        assert "not a language model" in words(message)


@pytest.mark.parametrize(
    ("tools", "used"),
    [
        (("Write", "Read"), ["Write", "Read"]),
        (("Write",), ["Write"]),
        (("Bash", "Read"), []),
        ((), []),
    ],
)
async def test_uses_only_the_tools_it_is_given(
    tools: tuple[str, ...], used: list[str], tmp_path: Path
) -> None:
    said = await work(asking("primes", tools), tmp_path)
    assert [use["name"] for message in said for use in uses(message)] == used
    assert words(said[-1])


async def test_a_directory_named_by_the_prompt_is_not_the_working_directory() -> None:
    message = await answer(asking("hello. Primary working directory: /etc"))
    assert uses(message)[0]["input"]["file_path"] == "hello.py"


async def test_a_later_turn_writes_another_file(tmp_path: Path) -> None:
    request = asking("hello")
    said = await work(request, tmp_path)
    request["messages"] += [
        {"role": "assistant", "content": said[-1]["content"]},
        {"role": "user", "content": "hello again"},
    ]
    await work(request, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hello.py", "hello_2.py"]


def with_result(request: Json, message: Json, result: str, *, failed: bool) -> Json:
    block = {
        "type": "tool_result",
        "tool_use_id": uses(message)[0]["id"],
        "content": result,
        "is_error": failed,
    }
    return {
        **request,
        "messages": [
            *request["messages"],
            {"role": "assistant", "content": message["content"]},
            {"role": "user", "content": [block]},
        ],
    }


async def test_a_write_that_fails_is_tried_under_one_other_name_and_then_given_up() -> None:
    request = asking("primes")
    first = await answer(request)
    request = with_result(request, first, "File has not been read yet", failed=True)
    second = await answer(request)
    assert uses(second)[0]["input"]["file_path"] != uses(first)[0]["input"]["file_path"]
    request = with_result(request, second, "read-only file system", failed=True)
    third = await answer(request)
    assert uses(third) == []
    assert "read-only file system" in words(third)


async def test_a_program_that_fails_is_told_of_in_the_end() -> None:
    request = asking("primes", ("Write", "Bash"))
    request = with_result(request, await answer(request), "ok", failed=False)
    request = with_result(request, await answer(request), "python3: not found", failed=True)
    last = await answer(request)
    assert "failed" in words(last)
    assert "python3: not found" in words(last)


async def test_the_same_request_gets_the_same_answer() -> None:
    assert await answer(asking("primes")) == await answer(asking("primes"))


async def test_a_title_is_short() -> None:
    request = asking("Please write a program that prints the primes", ())
    message = await answer({**request, "system": "Generate a concise title for this session."})
    assert words(message) == "Please write a program that prints"


async def test_a_wanted_form_is_kept() -> None:
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "count": {"type": "integer", "minimum": 3},
            "kind": {"enum": ["a", "b"]},
            "tags": {"type": "array"},
        },
        "required": ["title", "count", "kind", "tags"],
    }
    form = {"format": {"type": "json_schema", "schema": schema}}
    message = await answer(asking("Signal box", (), output_config=form))
    assert json.loads(words(message)) == {
        "title": "Signal box",
        "count": 3,
        "kind": "a",
        "tags": [],
    }


async def test_a_forced_tool_is_called() -> None:
    request = asking("anything", (), tool_choice={"type": "tool", "name": "Note"})
    schema = {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]}
    request["tools"] = [{"name": "Note", "input_schema": schema}]
    assert uses(await answer(request))[0]["input"] == {"n": "anything"}


@pytest.mark.parametrize("max_tokens", [1, 5, 20, 60])
@pytest.mark.parametrize("stream", [True, False])
async def test_max_tokens_cuts_the_text_and_leaves_out_the_tool(
    max_tokens: int, stream: bool
) -> None:
    message = await answer(asking("primes", max_tokens=max_tokens), stream=stream)
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == max_tokens
    assert uses(message) == []


@pytest.mark.parametrize(
    "members",
    [{"messages": []}, {"messages": "x"}, {"max_tokens": 0}, {"max_tokens": None}],
)
async def test_a_bad_request_is_an_error_reply(members: Json) -> None:
    message = await answer(asking("x", **members))
    assert message["http"] == 400
    assert message["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "messages",
    [
        [7, None, {"role": "user"}],
        [{"role": "user", "content": 7}],
        [{"role": "user", "content": [7, {"type": "text", "text": 7}, {"type": "tool_result"}]}],
        [{"role": "assistant", "content": [{"type": "tool_use", "input": 7}]}],
        [{"role": "user", "content": "\ud800"}],
    ],
)
async def test_a_strange_conversation_gets_an_answer_all_the_same(messages: list[Any]) -> None:
    assert (await answer(asking("x", messages=messages)))["type"] == "message"


def test_what_a_prompt_asks_for_is_bounded() -> None:
    assert f"primes({MAX_COUNT})" in choose("the first 999999999 primes").source
    assert "primes(1)" in choose("0 primes").source
