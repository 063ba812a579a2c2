"""The last line of defence: what looks like a secret is masked before a log line is written.

It replaces no care at the place where a line is made. Lines must not hold secrets to begin with.
"""

import json
import re
from urllib.parse import quote

MASK = "[redacted]"
_LEAST = 8  # characters; masking shorter values would mangle ordinary words

_LOOKS_SECRET = re.compile(
    r"""
    \bsm_[a-z]{2,8}_[0-9A-Za-z]{16,}             # ours: API keys and run tokens
    | \bsk-[0-9A-Za-z_-]{16,}                    # Anthropic, OpenAI and others
    | \b(?:gh[pousr]|github_pat)_[0-9A-Za-z_]{20,}
    | \bglpat-[0-9A-Za-z_-]{16,}
    | \bxox[abeoprs]-[0-9A-Za-z-]{10,}
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    | \bAIza[0-9A-Za-z_-]{30,}
    # A JSON web token. It begins where a word does, or each of many in a row would look to its end.
    | (?<![\w-])eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*
    | (?<=[Bb]earer\ )[^\s"'\\,]{8,}
    | (?<=[Bb]asic\ )[0-9A-Za-z+/=]{8,}
    | (?<=://)[^\s/:@"'\\]{0,256}:[^\s/@"'\\]{1,256}(?=@)    # user and password in a URL
    """,
    re.VERBOSE,
)


# Without one of these no pattern above can match. To look for them takes a hundredth of the time,
# and nearly no line has one.
_MARKS = (
    *("sm_", "sk-", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "glpat-", "xox"),
    *("AKIA", "ASIA", "AIza", "eyJ", "earer ", "asic ", "://"),
)


class Redactor:
    """Masks known secret values, and text in the shape of well-known secrets."""

    def __init__(self, *values: str) -> None:
        """`values` are secrets to mask wherever they appear."""
        self._values: tuple[str, ...] = ()
        self._known = re.compile("")
        self.register(*values)

    def register(self, *values: str) -> None:
        """Mask these too, also as JSON and URLs write them. Under 8 characters are ignored."""
        known = set(self._values)
        for value in values:
            if len(value) >= _LEAST:
                known |= {value, json.dumps(value)[1:-1], quote(value, safe="")}
        # The longest first: a secret that begins with another one is masked whole.
        longest = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest)))
        self._values = tuple(longest)

    def scrub(self, text: str) -> str:
        """The text with every secret replaced by `[redacted]`."""
        # There is a line for every request: to look whether there is anything to mask at all takes
        # a fraction of what the patterns take.
        for value in self._values:
            if value in text:
                text = self._known.sub(MASK, text)
                break
        for mark in _MARKS:
            if mark in text:
                return _LOOKS_SECRET.sub(MASK, text)
        return text
