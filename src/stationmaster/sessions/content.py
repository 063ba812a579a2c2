"""What may be said to an agent: text, images and documents, looked at before they are kept."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from stationmaster.kernel.errors import Invalid, TooLarge
from stationmaster.sessions.checks import bounded, refuse_unknown
from stationmaster.sessions.images import dimensions

MAX_BLOCKS = 100
MAX_TEXT_BYTES = 1_000_000
MAX_IMAGE_BYTES = 5 * 1024**2  # what the Messages API takes
MAX_IMAGE_SIDE = 8000  # pixels
MAX_DOCUMENT_BYTES = 10 * 1024**2
MAX_MESSAGE_BYTES = 16 * 1024**2  # of all blocks, decoded
IMAGE_TYPES = ("image/gif", "image/jpeg", "image/png", "image/webp")


def check_content(content: Any, param: str, *, empty: bool = False) -> list[dict[str, Any]]:
    """Content blocks of a message, checked. Raises `Invalid` and `TooLarge` with `param`."""
    if not isinstance(content, list) or (not content and not empty):
        raise Invalid(f"{param} is not a list of content blocks.", param=param)
    if len(content) > MAX_BLOCKS:
        raise TooLarge(f"{param} has more than {MAX_BLOCKS} blocks.", param=param)
    made, total = [], 0
    for index, block in enumerate(content):
        checked, size = _block(block, f"{param}.{index}")
        made.append(checked)
        total += size
        if total > MAX_MESSAGE_BYTES:
            raise TooLarge(f"{param} is larger than {MAX_MESSAGE_BYTES} bytes.", param=param)
    return made


def _block(block: Any, at: str) -> tuple[dict[str, Any], int]:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind == "text":
        refuse_unknown(block, {"type", "text"}, at)
        text = bounded(block.get("text"), MAX_TEXT_BYTES, f"{at}.text", least=1)
        return {"type": "text", "text": text}, len(text.encode())
    if kind == "image":
        refuse_unknown(block, {"type", "source"}, at)
        source, size = _image(block.get("source"), f"{at}.source")
        return {"type": "image", "source": source}, size
    if kind == "document":
        return _document(block, at)
    raise Invalid(f"There is no content of type {str(kind)[:64]!r} here.", param=f"{at}.type")


def _image(source: Any, at: str) -> tuple[dict[str, Any], int]:
    if not isinstance(source, Mapping) or source.get("type") != "base64":
        raise Invalid(f"{at}.type must be base64.", code="unsupported", param=f"{at}.type")
    refuse_unknown(source, {"type", "media_type", "data"}, at)
    media_type = source.get("media_type")
    if media_type not in IMAGE_TYPES:
        raise Invalid(
            f"{at}.media_type must be one of {', '.join(IMAGE_TYPES)}.", param=f"{at}.media_type"
        )
    data = _decoded(source.get("data"), MAX_IMAGE_BYTES, f"{at}.data")
    size = dimensions(data, str(media_type))
    if size is None:
        raise Invalid(
            f"{at}.data is not an image of type {media_type}.",
            code="not_an_image",
            param=f"{at}.data",
        )
    if not all(1 <= side <= MAX_IMAGE_SIDE for side in size):
        raise TooLarge(f"{at} has a side of more than {MAX_IMAGE_SIDE} pixels.", param=f"{at}.data")
    return {"type": "base64", "media_type": media_type, "data": source["data"]}, len(data)


def _document(block: Mapping[str, Any], at: str) -> tuple[dict[str, Any], int]:
    refuse_unknown(block, {"type", "source", "title", "context"}, at)
    made: dict[str, Any] = {"type": "document"}
    for name in ("title", "context"):
        if block.get(name) is not None:
            made[name] = bounded(block[name], MAX_TEXT_BYTES, f"{at}.{name}")
    source = block.get("source")
    kind = source.get("type") if isinstance(source, Mapping) else None
    if not isinstance(source, Mapping) or kind not in {"base64", "text"}:
        raise Invalid(
            f"{at}.source.type must be base64 or text.",
            code="unsupported",
            param=f"{at}.source.type",
        )
    refuse_unknown(source, {"type", "media_type", "data"}, f"{at}.source")
    wanted = "text/plain" if kind == "text" else "application/pdf"
    if source.get("media_type") != wanted:
        raise Invalid(f"{at}.source.media_type must be {wanted}.", param=f"{at}.source.media_type")
    if kind == "text":
        text = bounded(source.get("data"), MAX_TEXT_BYTES, f"{at}.source.data")
        size = len(text.encode())
    else:
        data = _decoded(source.get("data"), MAX_DOCUMENT_BYTES, f"{at}.source.data")
        if not data.startswith(b"%PDF-"):
            raise Invalid(f"{at}.source.data is not a PDF.", param=f"{at}.source.data")
        size = len(data)
    made["source"] = {"type": kind, "media_type": wanted, "data": source["data"]}
    return made, size


def _decoded(data: Any, limit: int, at: str) -> bytes:
    if not isinstance(data, str):
        raise Invalid(f"{at} is not text.", param=at)
    if len(data) > limit * 4 // 3 + 4:
        raise TooLarge(f"{at} is larger than {limit} bytes.", param=at)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(f"{at} is not base64.", param=at) from None
