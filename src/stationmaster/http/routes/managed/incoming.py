"""What clients send becomes what the verbs take. Files are put in as their bytes."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

from stationmaster.http.services import Services
from stationmaster.http.shapes.managed.event import (
    ClientEvent,
    Unsupported,
    UserCustomToolResult,
    UserInterrupt,
    UserMessage,
    UserToolConfirmation,
    UserToolResult,
)
from stationmaster.kernel.errors import Invalid, NotFound, TooLarge
from stationmaster.kernel.principal import Principal
from stationmaster.sessions import inputs

MAX_INLINE_BYTES = 16 * 1024 * 1024  # of all files that one request puts into messages

Blocks = list[dict[str, Any]]


async def inputs_of(
    services: Services,
    caller: Principal,
    events: Sequence[ClientEvent],
    at: str = "events",
    *,
    tags: tuple[str, ...],
    thread_id: str | None = None,
) -> list[inputs.Input]:
    """The verbs' inputs. Raises `Invalid` for what is not supported, and for files not there.

    `tags` are those of the request, for each message in it. `thread_id` is the session's own
    thread.
    """
    incoming = _Incoming(services, caller, tags, thread_id)
    return [await incoming.input_of(event, f"{at}.{index}") for index, event in enumerate(events)]


def unsupported(param: str, what: str) -> Invalid:
    """The refusal of what the API has and this server has not."""
    return Invalid(f"{what} is not supported here.", code="unsupported", param=param)


class _Incoming:
    """One request's events. Its files are read into memory: together they have a bound."""

    def __init__(
        self,
        services: Services,
        caller: Principal,
        tags: tuple[str, ...],
        thread_id: str | None,
    ) -> None:
        self._services = services
        self._caller = caller
        self._tags = tags
        self._thread_id = thread_id
        self._left = MAX_INLINE_BYTES

    async def input_of(self, event: ClientEvent, at: str) -> inputs.Input:
        match event:
            case UserMessage():
                content = await self._with_files(event.content, f"{at}.content")
                return inputs.UserMessage(content, event.output_schema, self._tags)
            case UserInterrupt():
                if event.session_thread_id not in {None, self._thread_id}:
                    raise unsupported(f"{at}.session_thread_id", "A single sub-agent's interrupt")
                return inputs.Interrupt()
            case UserToolConfirmation():
                if event.deny_message is not None and event.result != "deny":
                    raise Invalid(
                        "deny_message goes with the result deny alone.", param=f"{at}.deny_message"
                    )
                return inputs.ToolConfirmation(
                    event.tool_use_id, event.result == "allow", event.deny_message
                )
            case UserCustomToolResult():
                content = await self._with_files(event.content, f"{at}.content")
                return inputs.CustomToolResult(
                    event.custom_tool_use_id, content, bool(event.is_error)
                )
            case UserToolResult():
                return inputs.ToolResult(event.tool_use_id, event.content, bool(event.is_error))
            case Unsupported():
                raise unsupported(f"{at}.type", f"The event {event.type}")

    async def _with_files(self, blocks: Blocks, at: str) -> Blocks:
        made = []
        for index, block in enumerate(blocks):
            source = block.get("source")
            if isinstance(source, dict) and source.get("type") == "file":
                filled = await self._source(block, source, f"{at}.{index}.source")
                made.append({**block, "source": filled})
            else:
                made.append(block)
        return made

    async def _source(
        self, block: dict[str, Any], source: dict[str, Any], at: str
    ) -> dict[str, Any]:
        file_id = source.get("file_id")
        if not isinstance(file_id, str) or set(source) != {"type", "file_id"}:
            raise Invalid("A source of type file has a file_id and nothing else.", param=at)
        try:
            file, content = await self._services.stored_files.open(self._caller, file_id)
        except NotFound as error:
            raise Invalid(error.message, code=error.error_code, param=f"{at}.file_id") from None
        with content:
            self._left -= file.size
            if self._left < 0:
                raise TooLarge(
                    f"The files of one request have at most {MAX_INLINE_BYTES} bytes together.",
                    param=f"{at}.file_id",
                )
            raw = await asyncio.to_thread(content.read)
        if block.get("type") == "document" and file.media_type == "text/plain":
            return {"type": "text", "media_type": "text/plain", "data": _text(raw, at)}
        encoded = base64.b64encode(raw).decode()
        return {"type": "base64", "media_type": file.media_type, "data": encoded}


def _text(raw: bytes, at: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Invalid("The file is not UTF-8 text.", param=f"{at}.file_id") from None
