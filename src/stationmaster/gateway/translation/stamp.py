"""What a reply carries that the provider does not tell."""

import hashlib
from dataclasses import dataclass

from stationmaster.gateway.translation.reply import Begun, CallBegin

_ID_PREFIXES = ("chatcmpl-", "msg_", "resp_")
_LONGEST_ID = 128
_BYTES_PER_TOKEN = 4
"""For an estimate that is neither high nor low: English has about 4, code 3."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Of one call: the `model` that was asked for, when (seconds since 1970, UTC), its own id.

    `prompt_bytes`, without pictures and files, are for an estimate of the prompt where a stream
    must begin with a number that its provider tells only at the end.
    """

    model: str
    created: int
    call_id: str
    prompt_bytes: int

    def reply_id(self, begun: Begun, prefix: str) -> str:
        """A reply's id as another format writes it; its core stays, so that logs can be joined."""
        core = begun.id[:_LONGEST_ID] or self.call_id
        for known in _ID_PREFIXES:
            core = core.removeprefix(known)
        return prefix + core

    def tool_id(self, begun: Begun, call: CallBegin, number: int) -> str:
        """The id of the reply's call number `number`, made up where the provider gives none."""
        if call.id:
            return call.id
        seed = f"{begun.id or self.call_id} {number}".encode()
        return "call_" + hashlib.sha256(seed).hexdigest()[:24]

    def model_of(self, begun: Begun) -> str:
        """The model that answered."""
        return begun.model or self.model

    @property
    def prompt_estimate(self) -> int:
        """About how many tokens the prompt has."""
        return max(1, self.prompt_bytes // _BYTES_PER_TOKEN)
