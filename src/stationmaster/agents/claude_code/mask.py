"""What an agent can read of its own login must not stand in the book because it said so.

A second defence: an agent that means to can always write a secret so that nobody knows it again.
"""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from stationmaster.agents.base import AgentEvent

MASK = "[redacted]"
# The login's tokens as Anthropic writes them: a refresh makes some that nobody here has seen.
_SHAPE = r"sk-ant-o[ar]t[0-9]{2}-[A-Za-z0-9_-]+"


class Mask:
    """Replaces `secrets`, and what looks like a login's token, in everything an agent says."""

    def __init__(self, secrets: Sequence[str]) -> None:
        known = [re.escape(secret) for secret in sorted(secrets, key=len, reverse=True)]
        self._pattern = re.compile("|".join([*known, _SHAPE]))

    def event(self, event: AgentEvent) -> AgentEvent:
        """The event without them."""
        told = {each.name: getattr(event, each.name) for each in fields(event)}
        masked = {name: self.value(value) for name, value in told.items()}
        return replace(event, **masked) if masked != told else event

    def text(self, text: str) -> str:
        """The text without them."""
        return self._pattern.sub(MASK, text)

    def value(self, value: Any) -> Any:
        """The JSON value without them, its keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value
