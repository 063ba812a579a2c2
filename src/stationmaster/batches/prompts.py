"""Prompts that somebody waits for together: answered in parallel, each for itself."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import structlog

from stationmaster.budgets.entry import LedgerEntry, Usage
from stationmaster.gateway import Gateway, GatewayCall
from stationmaster.kernel.errors import (
    Invalid,
    StationmasterError,
    Unavailable,
    Upstream,
    UpstreamTimeout,
)
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Principal

log = structlog.get_logger(__name__)

SCOPE = "write:messages"
WAITING_PER_WORKER = 10
MAX_TOKENS = 4096
"""For each answer. The hold of each prompt is as large."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question, and the caller's name for it."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a prompt: `content`, or the error that it failed with."""

    prompt: Prompt
    content: str | None
    usage: Usage
    cost: MicroDollars
    error: StationmasterError | None


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, and how: the model's name, and the seconds that each prompt may take."""

    principal: Principal
    model: str
    timeout: float
    address: str | None = None
    headers: Sequence[tuple[str, str]] = ()


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Message(msgspec.Struct):
    content: list[_Block]


class _Told(msgspec.Struct):
    message: str = "The model provider refused the call."


class _Refusal(msgspec.Struct):
    error: _Told


_message = msgspec.json.Decoder(_Message)
_refusal = msgspec.json.Decoder(_Refusal)


class PromptPool:
    """`workers` prompts at a time, of all callers together; ten times as many may wait."""

    def __init__(self, gateway: Gateway, *, workers: int) -> None:
        self._gateway = gateway
        self._workers = asyncio.Semaphore(workers)
        self._room = workers * (1 + WAITING_PER_WORKER)
        self._inside = 0

    @property
    def room(self) -> int:
        """How many prompts there may be, those that are being answered included."""
        return self._room

    async def answer(self, asking: Asking, prompts: Sequence[Prompt]) -> list[Answered]:
        """Answer all, in their order. One that fails fails alone.

        Raises `Denied`, `Invalid` where there are more than could ever fit, and `Unavailable`
        (`queue_full`) where there is no room for all of them now; then none is asked.
        """
        asking.principal.require(SCOPE)
        if len(prompts) > self._room:
            raise Invalid(f"At most {self._room} prompts fit into one batch.", param="prompts")
        if self._inside + len(prompts) > self._room:
            raise Unavailable("Too many prompts are waiting.", code="queue_full")
        self._inside += len(prompts)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(asking, prompt)) for prompt in prompts]
        finally:
            self._inside -= len(prompts)
        return [task.result() for task in tasks]

    async def _one(self, asking: Asking, prompt: Prompt) -> Answered:
        async with self._workers:
            try:
                return await self._ask(asking, prompt)
            except StationmasterError as error:
                return Answered(prompt, None, Usage(), 0, error)
            except Exception:
                log.exception("A prompt of a batch failed in this server.")
                fault = StationmasterError("Something went wrong in this server.")
                return Answered(prompt, None, Usage(), 0, fault)

    async def _ask(self, asking: Asking, prompt: Prompt) -> Answered:
        body = {
            "model": asking.model,
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": prompt.text}],
        }
        call = await self._gateway.admit(
            asking.principal,
            msgspec.json.encode(body),
            asking.headers,
            address=asking.address,
        )
        content: str | None = None
        failure: StationmasterError | None = None
        try:
            async with asyncio.timeout(asking.timeout):
                await call.start()
            content = _content(call)
        except TimeoutError:
            failure = UpstreamTimeout(f"There was no answer within {asking.timeout:g} seconds.")
        except StationmasterError as error:
            failure = error
        finally:
            await call.aclose()
        entry: LedgerEntry | None = call.entry
        usage, cost = (Usage(), 0) if entry is None else (entry.usage, entry.cost)
        return Answered(prompt, content, usage, cost, failure)


def _content(call: GatewayCall) -> str:
    """The words of the answer. Raises `Upstream` where it is none."""
    body = call.body or b""
    try:
        if call.status < 300:
            return "".join(block.text for block in _message.decode(body).content)
        told = _refusal.decode(body).error.message
    except (msgspec.DecodeError, UnicodeDecodeError):
        told = "The model provider's answer is not a message."
    raise Upstream(told, status=call.status)
