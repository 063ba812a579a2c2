"""What a check of `doctor` finds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from stationmaster.bootstrap.configuration import Settings

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is. `advice` says what to do about it; empty where there is nothing to do."""

    name: str
    status: Status
    detail: str
    advice: str = ""


Check = Callable[["Settings"], Awaitable[Finding]]
