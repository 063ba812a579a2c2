"""Names of files: bytes on the disk, text on the wire, and the way between that loses nothing.

A name on Linux is any bytes without NUL and slash. On the wire a path is text that is always valid
Unicode: bytes that are not UTF-8 become the private characters U+F780 to U+F7FF (U+F700 plus the
byte), and so do the bytes of those characters themselves, so that every name has one text and
every text leads back to it. Control characters stay: whoever shows a name must escape it.
"""

import re

from stationmaster.kernel.errors import Invalid

Parts = tuple[bytes, ...]

MAX_NAME = 255  # bytes; NAME_MAX of every common Linux file system
MAX_PATH = 4095  # bytes; PATH_MAX without the final NUL

_PRIVATE = 0xF700
_STRANGE = re.compile("[\udc80-\udcff\uf780-\uf7ff]")
_ESCAPED = re.compile("[\uf780-\uf7ff]")


def to_text(raw: bytes) -> str:
    """Write a name or path from the disk as text. Never fails, and is undone by `to_raw`."""
    text = raw.decode("utf-8", "surrogateescape")
    return text if text.isascii() else _STRANGE.sub(_escape, text)


def to_raw(text: str) -> bytes:
    """Read back what `to_text` wrote. Raises `UnicodeEncodeError` for a lone surrogate."""
    if text.isascii():
        return text.encode()
    text.encode()  # refuses surrogates, before the next line makes some
    text = _ESCAPED.sub(lambda match: chr(ord(match[0]) - _PRIVATE + 0xDC00), text)
    return text.encode("utf-8", "surrogateescape")


def split(text: str, *, code: str = "path_invalid", param: str | None = "path") -> Parts:
    """Split a relative path from outside into its parts; `()` is the directory itself.

    Slashes separate; `.` and empty parts vanish. Raises `Invalid` with `code` for an absolute
    path, `..`, NUL, a lone surrogate, and a part or path over the file system's limits.
    """
    if "\0" in text:
        raise Invalid("A path cannot contain NUL.", code=code, param=param)
    if text.startswith("/"):
        raise Invalid("The path must be relative to the workspace.", code=code, param=param)
    try:
        raw = to_raw(text)
    except UnicodeEncodeError:
        raise Invalid("The path is not valid Unicode.", code=code, param=param) from None
    return split_raw(raw, code=code, param=param)


def split_raw(raw: bytes, *, code: str, param: str | None = None) -> Parts:
    """Split a relative path of bytes, as `split` does for text."""
    if b"\0" in raw or raw.startswith(b"/"):
        raise Invalid("The path must be relative and without NUL.", code=code, param=param)
    parts = tuple(part for part in raw.split(b"/") if part not in {b"", b"."})
    if b".." in parts:
        raise Invalid("The path must not contain '..'.", code=code, param=param)
    if len(raw) > MAX_PATH or any(len(part) > MAX_NAME for part in parts):
        raise Invalid("The path is too long.", code=code, param=param)
    return parts


def join(parts: Parts) -> str:
    """Write parts as one path in text."""
    return to_text(b"/".join(parts))


def _escape(match: re.Match[str]) -> str:
    raw = match[0].encode("utf-8", "surrogateescape")
    return "".join(chr(_PRIVATE + byte) for byte in raw)
