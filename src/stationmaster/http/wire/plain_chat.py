"""What plain clients send and read on `/v1/chat/completions` beside OpenAI's members.

They may leave `model` out, bound the call by `timeout` and name their `project_id`; and they read
`content`, `cost` and `project_id` from the top of the answer.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import msgspec

from stationmaster.gateway import GatewayCall
from stationmaster.gateway.members import Members, decode, locate, read
from stationmaster.http.advising import Adviser
from stationmaster.http.wire.remembered import Turn
from stationmaster.kernel.errors import Denied, Invalid, UpstreamTimeout
from stationmaster.kernel.money import MicroDollars, to_dollars
from stationmaster.kernel.principal import Principal

AUTO = "auto"
MAX_TIMEOUT_S = 300.0
OWN_PROJECT = "default"
BYTES_PER_TOKEN = 4

MEMBERS = ("timeout", "project_id", "allowed_tools", "working_directory")
_HINTS = (
    *(f'"{name}"'.encode() for name in MEMBERS),
    f'"{AUTO}"'.encode(),
    b":null",
    b": null",
    b"\\u00",
)
_FOR_AGENTS = ("allowed_tools", "working_directory")

_text = msgspec.json.Decoder(str | None)
_seconds = msgspec.json.Decoder(float | None)


class Prepared(msgspec.Struct, frozen=True):
    """A request that is ready to be sent.

    `timeout` is in seconds; `reason` is why the model is that; `turn` is what is to be kept.
    """

    raw: bytes
    timeout: float | None = None
    reason: str | None = None
    turn: Turn | None = None


async def prepare(principal: Principal, raw: bytes, adviser: Adviser) -> Prepared:
    """Take out what is not OpenAI's, and choose a model where none is named.

    Raises `Invalid`, and `Denied` for a project that is not the caller's.
    """
    if b'"model"' in raw and not any(hint in raw for hint in _HINTS):
        return Prepared(raw)
    members = decode(raw)
    locate(raw, members)
    for name in _FOR_AGENTS:
        if _told(members, name):
            raise Invalid(
                f"{name}: A chat has no tools of its own; start a task with POST /v1/task.",
                param=name,
            )
    _check_project(members, principal)
    timeout = _timeout(members)
    model = read(members, "model", _text)
    kept = {name: value for name, value in members.items() if name not in MEMBERS}
    reason = None
    if model is None or model == AUTO:
        advice, _ = await adviser.advise(
            principal, _last_prompt(members), len(raw) // BYTES_PER_TOKEN
        )
        kept["model"] = msgspec.Raw(msgspec.json.encode(advice.model))
        reason = advice.reason
    if reason is None and len(kept) == len(members):
        return Prepared(raw)  # only the prompt speaks of these things
    return Prepared(msgspec.json.encode(kept), timeout, reason)


def _told(members: Members, name: str) -> bool:
    return name in members and bytes(members[name]) not in {b"null", b"[]"}


def _check_project(members: Members, principal: Principal) -> None:
    project = read(members, "project_id", _text)
    if project not in {None, OWN_PROJECT, principal.owner.project_id}:
        raise Denied("project_id: The key belongs to another project.", param="project_id")


def _timeout(members: Members) -> float | None:
    timeout = read(members, "timeout", _seconds)
    if timeout is not None and not 1 <= timeout <= MAX_TIMEOUT_S:
        raise Invalid(f"timeout: Must be between 1 and {MAX_TIMEOUT_S:g} seconds.", param="timeout")
    return timeout


def within(seconds: float | None) -> AbstractAsyncContextManager[None]:
    """Raise `UpstreamTimeout` where it takes longer than the client wants to wait."""
    return _EVER if seconds is None else _within(seconds)


_EVER = nullcontext()


@asynccontextmanager
async def _within(seconds: float) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise UpstreamTimeout("The answer did not come within the request's timeout.") from None


class _Message(msgspec.Struct):
    role: str = ""
    content: object = None


_messages = msgspec.json.Decoder(list[_Message])


def _last_prompt(members: Members) -> str:
    """The words of the last message; empty where they cannot be read: the gateway will say why."""
    try:
        said = _messages.decode(members.get("messages", msgspec.Raw(b"[]")))
    except (msgspec.DecodeError, RecursionError):
        return ""
    if not said:
        return ""
    content = said[-1].content
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


class _Said(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Said | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []


_completion = msgspec.json.Decoder(_Completion)


def with_plain_members(call: GatewayCall, body: bytes) -> bytes:
    """The answer with `content`, `cost` and `project_id` at its end; all before it as it was."""
    if call.entry is None:
        return body
    return plain_members(body, call.entry.cost, call.context.owner.project_id)


def plain_members(body: bytes, cost: MicroDollars, project_id: str) -> bytes:
    """`with_plain_members`, of an answer with this cost."""
    at = body.rfind(b"}")
    if at < 0:
        return body
    try:
        choices = _completion.decode(body).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    message = choices[0].message if choices else None
    added = msgspec.json.encode(
        {
            "content": message.content if message is not None else None,
            "cost": to_dollars(cost),
            "project_id": project_id,
        }
    )
    return body[:at] + b"," + added[1:] + body[at + 1 :]
