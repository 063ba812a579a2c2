"""What stands in a stream, and what only passes by."""

from dataclasses import dataclass, field
from typing import Any

from stationmaster.kernel.clock import Millis


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no number yet. `data` is a JSON object; `version` is its form's."""

    type: str
    data: dict[str, Any] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """An event in the book. `seq` counts from 1 within its stream, without gaps.

    `size` is how many bytes its data has in the book; 0 where it was not read from there.
    """

    stream_id: str
    seq: int
    at: Millis
    type: str
    version: int
    data: dict[str, Any]
    size: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Live:
    """News that is not kept, such as a piece of a message being written. It has no number."""

    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Overflow:
    """The reader fell too far behind and is dropped; it resumes after `after`."""

    after: int
