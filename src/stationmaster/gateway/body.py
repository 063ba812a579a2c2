"""A model call's request as the gateway sees it: parsed once, for routing and counting only.

The bytes themselves go to the provider. A value that must change is spliced in place, so that
unknown fields, number formats, key order and thinking signatures survive untouched.
"""

from collections.abc import Collection, Mapping

import msgspec

from stationmaster.gateway.members import Members, locate
from stationmaster.providers.base import Operation

MAX_TOKENS_BOUND = 2**31
"""No model writes as much; above it, the product with a price would only be noise."""


class CallBody(msgspec.Struct, frozen=True):
    r"""What routing and counting need to know of a request, and the request itself.

    `operation` is its format, `members` are its top-level values as they came. `max_tokens` is what
    may be written for each of `choices` answers, None where the request does not bound it, 0 where
    nothing is written; `limit` names the member that says so. `other_models` are models that the
    provider may call on its own behalf while answering (fallbacks, an advisor). `web_searches` is
    how many the request allows, None where it allows them without a bound. `elsewhere` tells that
    the prompt names content that it does not carry; None where that has not been looked for yet.
    `escaped` tells that some string is written with `\u`, so that a word not found may be there all
    the same; `cached` that the provider is to keep parts of it, `long_lived` that it is to keep
    them for an hour.
    """

    operation: Operation
    raw: bytes
    members: Members
    model: str
    max_tokens: int | None
    stream: bool
    thinking_budget: int
    speed: str | None
    inference_geo: str | None
    other_models: tuple[str, ...]
    web_searches: int | None
    escaped: bool
    cached: bool
    long_lived: bool
    limit: str = "max_tokens"
    choices: int = 1
    elsewhere: bool | None = None
    usage_asked_for: bool = True

    def with_model(self, model: str) -> bytes:
        """The body asking for another model; every other byte as it came."""
        return self.spliced({"model": msgspec.json.encode(model)})

    def spliced(self, values: Mapping[str, bytes]) -> bytes:
        """The body with the JSON values of some top-level members replaced, and nothing else."""
        parts: list[bytes] = []
        at, spans = 0, locate(self.raw, self.members)
        for (start, end), value in sorted((spans[name], new) for name, new in values.items()):
            parts += (self.raw[at:start], value)
            at = end
        parts.append(self.raw[at:])
        return b"".join(parts)

    def with_member(self, name: str, value: bytes) -> bytes:
        """The body with one more top-level member, which it does not have yet, at its end."""
        at = self.raw.rindex(b"}")
        comma = b"," if self.members else b""
        return self.raw[:at] + comma + msgspec.json.encode(name) + b":" + value + self.raw[at:]

    def renamed(self, old: str, new: str) -> bytes:
        """The body with another name for one of its top-level members; every value as it came."""
        told = [
            msgspec.json.encode(new if name == old else name) + b":" + bytes(value)
            for name, value in self.members.items()
        ]
        return b"{" + b",".join(told) + b"}"

    def without(self, names: Collection[str]) -> bytes:
        """The body without some of its top-level members; every other value as it came."""
        kept = [
            msgspec.json.encode(name) + b":" + bytes(value)
            for name, value in self.members.items()
            if name not in names
        ]
        return b"{" + b",".join(kept) + b"}"
