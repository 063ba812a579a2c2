"""Which formats there are, and a call from one to another."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Protocol

import msgspec

from stationmaster.gateway.translation.chat import client_request as chat_request
from stationmaster.gateway.translation.chat import provider_reply as chat_reply
from stationmaster.gateway.translation.chat import provider_request as chat_body
from stationmaster.gateway.translation.chat.client_reply import ChatClient
from stationmaster.gateway.translation.conversation import Conversation
from stationmaster.gateway.translation.fields import Fields, members_of
from stationmaster.gateway.translation.messages import client_request as messages_request
from stationmaster.gateway.translation.messages import provider_reply as messages_reply
from stationmaster.gateway.translation.messages import provider_request as messages_body
from stationmaster.gateway.translation.messages.client_reply import MessagesClient
from stationmaster.gateway.translation.responses import client_request as responses_request
from stationmaster.gateway.translation.responses.client_reply import ResponsesClient
from stationmaster.gateway.translation.stamp import Stamp
from stationmaster.gateway.translation.translator import ClientFormat, Translator
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.ids import new_id
from stationmaster.providers.base import Operation

MaxTokensField = Literal["max_completion_tokens", "max_tokens"]

_INDEX = re.compile(r"\[\d+\]")

_READERS: Mapping[Operation, Callable[[Fields], Conversation]] = MappingProxyType(
    {
        "chat": chat_request.read,
        "messages": messages_request.read,
        "responses": responses_request.read,
    }
)


class Translation(Protocol):
    """A request in its provider's format, and the way back of the reply. `Translator` is one."""

    body: bytes
    ignored: tuple[str, ...]

    def whole(self, reply: bytes) -> bytes:
        """A successful, unstreamed reply in the client's format."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Bytes of the provider's stream, cut anywhere, as bytes of the client's."""
        ...

    def end(self) -> bytes:
        """At the stream's end, what is still owed. Raises `Upstream` where it was cut."""
        ...

    def error(self, status: int, body: bytes) -> bytes:
        """An error reply in the client's shape."""
        ...


def translate(
    client: Operation,
    provider: Operation,
    raw: bytes,
    *,
    model: str,
    default_max_tokens: int,
    max_tokens_field: MaxTokensField = "max_completion_tokens",
    created: int | None = None,
) -> Translation:
    """Make the provider's request of a client's.

    `model` is the provider's name for the model. `default_max_tokens` is used where the client
    sets no limit and the provider needs one. `max_tokens_field` is what the provider calls that
    limit: OpenAI's newer models and its older imitations each know one name. `created` is in
    seconds since 1970, now where it is None.

    Of a Responses request, `input` must hold all of the conversation: what came before is the
    caller's to put there. Raises `Invalid`, naming the field, for what cannot be translated.
    """
    reader = _READERS.get(client)
    if reader is None or client == provider or provider not in ("chat", "messages"):
        raise Invalid(f"A request of {client} cannot be sent as one of {provider}.")
    ignored: list[str] = []
    try:
        request = members_of(raw)
        asked = reader(Fields(request, "", ignored))
        if provider == "chat":
            body = chat_body.write(
                asked, model=model, max_tokens_field=max_tokens_field, ignored=ignored
            )
        else:
            body = messages_body.write(
                asked, model=model, default_max_tokens=default_max_tokens, ignored=ignored
            )
    except RecursionError:
        raise Invalid("The request body nests too deep.") from None
    except (msgspec.EncodeError, UnicodeError, OverflowError):
        raise Invalid("The request body holds what JSON cannot carry.") from None
    stamp = Stamp(
        model=model,
        created=SystemClock().now() // 1000 if created is None else created,
        call_id=new_id("call"),
        prompt_bytes=len(body) - asked.media_bytes,
    )
    writer = _writer(client, stamp, asked, request)
    replies = chat_reply if provider == "chat" else messages_reply
    return Translator(
        body,
        ignored=_told(ignored),
        provider=chat_reply.ChatReply() if provider == "chat" else messages_reply.MessagesReply(),
        client=writer,
        refusals=replies.refusal,
    )


def conversation(client: Operation, raw: bytes) -> tuple[Conversation, tuple[str, ...]]:
    """What a client asks for, in no format, and the fields that were left out.

    For whoever answers without a provider. Raises `Invalid`, naming the field.
    """
    ignored: list[str] = []
    try:
        asked = _READERS[client](Fields(members_of(raw), "", ignored))
    except RecursionError:
        raise Invalid("The request body nests too deep.") from None
    return asked, _told(ignored)


def reply_to(
    client: Operation, asked: Conversation, *, model: str, call_id: str, created: int, size: int
) -> ClientFormat:
    """What writes the reply to a `conversation` of `size` bytes; `created` is in seconds."""
    stamp = Stamp(model=model, created=created, call_id=call_id, prompt_bytes=size)
    return _writer(client, stamp, asked, {})


def _writer(
    client: Operation, stamp: Stamp, asked: Conversation, request: Mapping[str, Any]
) -> ClientFormat:
    if client == "chat":
        return ChatClient(stamp, include_usage=asked.include_usage)
    if client == "messages":
        return MessagesClient(stamp)
    return ResponsesClient(stamp, request)


def _told(ignored: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_INDEX.sub("[]", path) for path in ignored))
