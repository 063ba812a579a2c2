"""What every provider must do, as checks that any implementation can be put through.

    for check in checks_for({"messages", "count_tokens"}):
        await check(Subject(provider=..., model=...))

A check raises `AssertionError`. The subject answers a prompt `Say WORD.` with a text that holds
the word; how is its own affair. Where it has an upstream, `ENDLESS` should make that one hang in
the middle of its stream. It must take messages or chats, whatever else it takes.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping

from stationmaster.providers.base import Operation
from stationmaster.providers.conformance import conduct, messages, openai
from stationmaster.providers.conformance.messages import assembled, events_of
from stationmaster.providers.conformance.openai import chunks_of, completed
from stationmaster.providers.conformance.subject import ENDLESS, Subject, whole

Check = Callable[[Subject], Awaitable[None]]

ALWAYS: tuple[Check, ...] = (
    conduct.says_what_it_is,
    conduct.passes_clean_headers,
    conduct.closes_the_upstream_midway,
    conduct.closes_the_upstream_when_cancelled,
    conduct.keeps_calls_apart,
    conduct.can_be_checked,
)

BY_OPERATION: Mapping[Operation, tuple[Check, ...]] = {
    "messages": (
        messages.answers_with_a_message,
        messages.streams_in_order,
        messages.streamed_and_whole_agree,
        messages.refuses_an_unknown_model,
    ),
    "count_tokens": (messages.counts_tokens,),
    "chat": (
        openai.answers_a_chat,
        openai.streams_a_chat_in_order,
        openai.tells_no_usage_unasked,
        openai.streamed_and_whole_chat_agree,
        openai.refuses_an_unknown_chat_model,
    ),
    "embeddings": (
        openai.embeds,
        openai.embeds_in_base64,
        openai.refuses_an_unknown_embedding_model,
    ),
    "responses": (openai.answers_with_a_response, openai.streams_a_response),
}


def checks_for(operations: Collection[Operation], *, listing: bool = False) -> tuple[Check, ...]:
    """The checks for a provider of these operations; with `listing` for one that lists models."""
    of_operations = [
        check for each in BY_OPERATION if each in operations for check in BY_OPERATION[each]
    ]
    return (*ALWAYS, *of_operations, *((conduct.lists_models,) if listing else ()))


__all__ = [
    "ALWAYS",
    "BY_OPERATION",
    "ENDLESS",
    "Check",
    "Subject",
    "assembled",
    "checks_for",
    "chunks_of",
    "completed",
    "events_of",
    "whole",
]
