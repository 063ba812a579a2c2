"""Names and descriptions from outside."""

import re

from stationmaster.kernel.errors import Invalid

MAX_EMAIL = 254  # RFC 5321: what fits between the angle brackets
# What a mail server must be able to take, and nothing that could end a header's line.
_EMAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
)


def checked_text(value: str, param: str, limit: int, *, empty: bool = False) -> str:
    """Return a text that people read, of up to `limit` characters. Raises `Invalid`."""
    if len(value) > limit or not (empty or value.strip()):
        raise Invalid(f"{param} must have 1 to {limit} characters.", param=param)
    if any(not (char.isprintable() or char in "\n\t") for char in value):
        raise Invalid(f"{param} holds characters that cannot be shown.", param=param)
    return value


def checked_email(value: str, *, param: str = "email") -> str:
    """Return an address in lower case, as it is kept and compared. Raises `Invalid`."""
    if len(value) > MAX_EMAIL or _EMAIL.fullmatch(value) is None or ".." in value:
        raise Invalid(f"{param} must be an email address.", param=param)
    return value.lower()
