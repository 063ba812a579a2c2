"""Taking out of a request or an answer what must not be kept.

What is looked at are the values of the JSON, not its bytes: an escape hides nothing. JSON within a
string, as in a tool call's arguments, is looked at in the same way.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from stationmaster.calls.rules import Rule

MAX_TEXT = 256 * 1024
"""Characters of one text. What is longer is cut, after redaction."""
MAX_DEPTH = 64
_LEAST_DIGITS = 12  # of a number that could be somebody's

LEFT_OUT = "[left out]"


class Redaction:
    """Rules, applied to all there is in a JSON value."""

    def __init__(self, rules: Sequence[Rule], scrub: Callable[[str], str]) -> None:
        """`scrub` takes out secrets: the server's own and those of known shapes."""
        self._rules = (scrub, *rules)

    def value(self, value: Any, depth: int = 0) -> Any:
        """The value without what the rules take out. Files and images leave a note."""
        if depth > MAX_DEPTH:
            return LEFT_OUT
        if isinstance(value, str):
            return self._string(value, depth)
        if isinstance(value, list):
            return [self.value(each, depth + 1) for each in value]
        if isinstance(value, dict):
            return self._object(value, depth)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number(value)
        return value

    def text(self, text: str) -> str:
        """A text without what the rules take out."""
        for rule in self._rules:
            text = rule(text)
        if len(text) > MAX_TEXT:
            return f"{text[:MAX_TEXT]}[{len(text) - MAX_TEXT} more characters]"
        return text

    def _string(self, text: str, depth: int) -> str:
        if text.startswith("data:") and ";base64," in text[:256]:
            return f"[{len(text)} characters of data]"
        if text[:1] in {"{", "["} and text[-1:] in {"}", "]"}:
            try:
                within = json.loads(text)
            except (ValueError, RecursionError):
                return self.text(text)
            return self.text(json.dumps(self.value(within, depth + 1), ensure_ascii=False))
        return self.text(text)

    def _object(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        carries = "media_type" in value or "format" in value or "filename" in value
        found = {}
        for name, each in value.items():
            if isinstance(each, str) and (
                (name == "data" and carries) or name in {"file_data", "b64_json"}
            ):
                found[self.text(name)] = f"[{len(each)} characters of data]"
            else:
                found[self.text(name)] = self.value(each, depth + 1)
        return found

    def _number(self, value: float) -> Any:
        text = repr(value)
        if len(text) < _LEAST_DIGITS:
            return value
        redacted = self.text(text)
        return value if redacted == text else redacted
