"""Anthropic's own SDK as a client, and as the judge of what it was answered."""

from typing import Any, TypeVar

import anthropic
from pydantic import BaseModel, TypeAdapter

M = TypeVar("M", bound=BaseModel)


def sdk(url: str, key: str) -> anthropic.AsyncAnthropic:
    """A client that asks once and does not try again."""
    return anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0)


def check(model: M) -> M:
    """Fail unless an answer is exactly of its model: nothing missing, nothing wrong, nothing more.

    The SDK itself is lenient: it takes whatever comes and validates nothing.
    """
    raw: dict[str, Any] = model.to_dict(mode="json")  # type: ignore[attr-defined]
    _no_more(type(model).model_validate(raw), type(model).__name__)
    return model


def check_json(kind: Any, raw: Any) -> Any:
    """As `check`, for JSON and a type of the SDK's, such as a union of events."""
    found = TypeAdapter(kind).validate_python(raw)
    _no_more(found, str(raw.get("type")) if isinstance(raw, dict) else "list")
    return found


def _no_more(value: Any, at: str) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra, f"{at} has more than its model: {value.model_extra}"
        for name in type(value).model_fields:
            _no_more(getattr(value, name), f"{at}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _no_more(item, f"{at}.{index}")
