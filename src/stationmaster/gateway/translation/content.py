"""What the formats write in the same way: data URLs, arguments, how much to think."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from stationmaster.gateway.translation.conversation import (
    EFFORTS,
    Document,
    Image,
    Reasoning,
)
from stationmaster.gateway.translation.fields import Fields

PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
PDF = "application/pdf"

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,")
_SPELLINGS = {"image/jpg": "image/jpeg"}


def image_of(fields: Fields, name: str) -> Image:
    """A picture behind an OpenAI image URL: a data URL, or one of the web."""
    url = fields.word(name)
    if url.startswith(("https://", "http://")):
        return Image(url=url)
    media_type, data = _data_of(fields, name, url)
    if media_type not in PICTURES:
        raise fields.refuse(name, "The picture must be one of " + ", ".join(PICTURES) + ".")
    return Image(media_type=media_type, data=data)


def document_of(fields: Fields) -> Document:
    """A PDF in OpenAI's `file_data`. A file by its id is not the provider's to read."""
    for other in ("file_id", "file_url"):
        if fields.take(other) is not None:
            raise fields.refuse(other, "Only files given in file_data can be translated.")
    name = fields.text("filename")
    media_type, data = _data_of(fields, "file_data", fields.word("file_data"))
    if media_type != PDF:
        raise fields.refuse("file_data", "Only PDF files can be translated.")
    return Document(data, name)


def data_url(media_type: str, data: str) -> str:
    """Base64 data as a URL."""
    return f"data:{media_type};base64,{data}"


def _data_of(fields: Fields, name: str, url: str) -> tuple[str, str]:
    head = _DATA_URL.match(url)
    if head is None:
        raise fields.refuse(name, "Must be a URL with http, https, or base64 data.")
    return _SPELLINGS.get(head[1], head[1]), url[head.end() :]


def arguments_of(fields: Fields) -> Mapping[str, Any]:
    """The arguments of an earlier call: the JSON text of an object. None at all is an empty one."""
    text = fields.word("arguments")
    try:
        value = msgspec.json.decode(text) if text.strip() else {}
    except msgspec.DecodeError:
        value = None
    if not isinstance(value, dict):
        raise fields.refuse("arguments", "Must be the JSON text of an object.")
    return value


def reasoning_of(fields: Fields, name: str) -> Reasoning | None:
    """OpenAI's word for how much to think."""
    effort = fields.one_of(name, EFFORTS)
    return None if effort is None else Reasoning(effort=effort)
