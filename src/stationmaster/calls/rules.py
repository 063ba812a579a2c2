"""Rules of redaction: those that have names, and the operators' own.

All run on RE2, which takes time in proportion to the text whatever the pattern is: neither a
pattern nor a text can hold the server up. It refuses what it cannot run so, such as references
back to a group.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2

from stationmaster.calls.policy import Policy
from stationmaster.calls.policy import Rule as Named
from stationmaster.kernel.errors import Invalid

MAX_PROGRAM_BYTES = 1024 * 1024
"""Of one compiled pattern."""

Rule = Callable[[str], str]

_BLOCK = r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\z)"
_EMAIL = r"(?i)[a-z0-9._%+-]{1,64}@(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}"
_CARD = r"(?:\d[ -]?){12,18}\d"
_IBAN = r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"
_PHONE = r"\+\d{1,3}(?:[ ()./-]{0,2}\d){6,14}"
_IP = r"(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}"


def compiled(pattern: str) -> Any:
    """The pattern, ready to use. Raises `Invalid` for one that RE2 refuses."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PROGRAM_BYTES
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeError) as error:
        said = error.args[0] if error.args else ""
        why = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise Invalid(f"A pattern cannot be used: {why[:200]}.", param="patterns") from None


@lru_cache(maxsize=256)
def rules_of(policy: Policy) -> tuple[Rule, ...]:
    """What a policy takes out, in the order in which it does."""
    found = [_every("private_key", _BLOCK)]
    found += [_NAMED[name]() for name in policy.rules]
    found += [_every(each.name, each.pattern) for each in policy.patterns]
    return tuple(found)


def _every(name: str, pattern: str) -> Rule:
    return _where(name, pattern, None)


def _where(name: str, pattern: str, is_one: Callable[[str], bool] | None) -> Rule:
    """Replace each match for which `is_one` holds by `[name]`."""
    expression, mark = compiled(pattern), f"[{name}]"

    def replace(found: Any) -> str:
        text: str = found.group(0)
        return mark if text and (is_one is None or is_one(text)) else text

    def rule(text: str) -> str:
        replaced: str = expression.sub(replace, text)
        return replaced

    return rule


def _is_card(text: str) -> bool:
    """Whether the digits add up as those of cards do: most long numbers' do not."""
    digits = [int(sign) for sign in text if sign.isdigit()]
    doubled = (each * 2 - 9 * (each > 4) for each in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    number = "".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])
    return 15 <= len(plain) <= 34 and int(number) % 97 == 1


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_NAMED: dict[Named, Callable[[], Rule]] = {
    "card_number": lambda: _where("card_number", _CARD, _is_card),
    "email": lambda: _every("email", _EMAIL),
    "iban": lambda: _where("iban", _IBAN, _is_iban),
    "ip_address": lambda: _where("ip_address", _IP, _is_address),
    "phone_number": lambda: _every("phone_number", _PHONE),
}
