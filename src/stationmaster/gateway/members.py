"""A JSON object read member by member: the few that matter are decoded, the rest stays bytes."""

import re
from typing import TypeVar

import msgspec

from stationmaster.kernel.errors import Invalid

MAX_MODEL_LENGTH = 256

# What is between two values: the end of one, and the name of the next.
_MEMBER = re.compile(
    rb'[ \t\r\n]*+[{,][ \t\r\n]*+"([^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+)"'
    rb"[ \t\r\n]*+:[ \t\r\n]*+"
)
_CLOSE = re.compile(rb"[ \t\r\n]*+\}")
_UNICODE_ESCAPE = re.compile(rb"\\u")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
# An escape that spells a letter or a slash of a name: no encoder writes them, a trickster may.
_SPELLED = re.compile(rb"\\u(00(?:2[fF]|[46][1-9a-fA-F]|[57][0-9aA]))")
_HIGH_HALVES = range(0xD800, 0xDC00)
_LOW_HALVES = range(0xDC00, 0xE000)

Span = tuple[int, int]
Members = dict[str, msgspec.Raw]
T = TypeVar("T")

_members = msgspec.json.Decoder(Members)
_string = msgspec.json.Decoder(str)


def decode(raw: bytes) -> Members:
    """The top-level members. Raises `Invalid` for what is not one JSON object in UTF-8."""
    try:
        # The parser skips over members it does not read without looking at their encoding.
        if not raw.isascii():
            raw.decode("utf-8")
        members = _members.decode(raw)
    except UnicodeDecodeError:
        raise Invalid("The request body is not valid UTF-8.") from None
    except RecursionError:
        raise Invalid("The request body nests too deep.") from None
    except msgspec.ValidationError:
        raise Invalid("The request body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        raise Invalid(f"The request body is not valid JSON: {error}.") from None
    return members


def escaping(raw: bytes) -> bool:
    r"""Whether a `\u` is in it.

    Where there is any backslash, by a pattern, which finds so short a thing in half of the time.
    """
    return b"\\" in raw and _UNICODE_ESCAPE.search(raw) is not None


def refuse_lone_surrogates(raw: bytes) -> None:
    """A half of a surrogate pair is valid JSON to some parsers, but no text in UTF-8."""
    if b"\\ud" not in raw and b"\\uD" not in raw:
        return
    high_ended_at = -1
    for match in _ESCAPE.finditer(raw):
        unit = int(match[1], 16) if match[1] else 0
        paired = match.start() == high_ended_at
        if paired != (unit in _LOW_HALVES) or (high_ended_at >= 0 and not paired):
            break
        high_ended_at = match.end() if unit in _HIGH_HALVES else -1
    else:
        if high_ended_at < 0:
            return
    raise Invalid("The request body contains half of a surrogate pair.")


def check_once(raw: bytes, members: Members) -> None:
    """Raise `Invalid` where a name comes twice.

    Two members of one name would be read differently here and by the provider: the price of one
    model, the answer of another. The parser keeps the last value of each name. Where all that it
    kept, written again as most encoders do, is the object to the byte, nothing comes twice.
    """
    names = "".join(members)
    if '"' in names or "\\" in names or _again(raw, members) != raw:
        locate(raw, members)


def _again(raw: bytes, members: Members) -> bytes:
    """The members in their order, with blanks after commas and colons where the first has one."""
    first = next(iter(members), "")
    blank = " " if raw.startswith(b" ", len(first) + len('{"":')) else ""
    before, after = '{"', f'":{blank}'
    parts: list[bytes] = []
    for name, value in members.items():
        parts += (f"{before}{name}{after}".encode(), value)
        before = f',{blank}"'
    parts.append(b"}")
    return b"".join(parts)


def locate(raw: bytes, members: Members) -> dict[str, Span]:
    """Find where each top-level value lies. Raises `Invalid` where a name comes twice.

    Walking over the object with the known values in hand costs one comparison of memory a member.
    """
    spans: dict[str, Span] = {}
    name, at = "", 0
    match = _MEMBER.match
    while member := match(raw, at):
        name = member[1].decode()
        if "\\" in name:
            name = _string.decode(b'"%b"' % member[1])
        value = bytes(members[name])
        start = member.end()
        if name in spans or not raw.startswith(value, start):
            raise _twice(name)
        at = start + len(value)
        spans[name] = (start, at)
    if members and _CLOSE.match(raw, at) is None:  # the last value goes on: it is another one
        raise _twice(name)
    return spans


def _twice(name: str) -> Invalid:
    return Invalid(f"The member {name[:64]!r} comes twice.", param=name[:64])


def read(members: Members, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """One member's value; None where it is absent. Raises `Invalid` for one of another type."""
    value = members.get(name)
    if value is None:
        return None
    try:
        return decoder.decode(value)
    except msgspec.DecodeError as error:
        raise Invalid(f"{name}: {error}.", param=name) from None


def model_of(members: Members) -> str:
    """The name in `model`. Raises `Invalid` where there is none, or it cannot be a name."""
    model = read(members, "model", _string)
    if model is None:
        raise Invalid("model: Field required.", param="model")
    if not 0 < len(model) <= MAX_MODEL_LENGTH or not model.isprintable():
        raise Invalid("model: This is not the name of a model.", param="model")
    return model


def unspelled(raw: bytes) -> bytes:
    """The body with letters and slashes that are written as escapes written as themselves."""
    if _SPELLED.search(raw) is None:
        return raw
    return _SPELLED.sub(lambda spelled: bytes.fromhex(spelled[1].decode())[1:], raw)
