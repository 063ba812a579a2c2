"""Events, as polled."""

from typing import Annotated, Any

from pydantic import Field

from stationmaster.http.shapes.base import Reply


class TaskEvent(Reply):
    """An event of the book. Amounts of money in `data` are integer micro-dollars."""

    seq: Annotated[int, Field(description="Counts from 1 in the task's session, without gaps.")]
    type: str
    version: Annotated[int, Field(description="Of the form of `data`.")]
    created_at: str
    data: dict[str, Any]


class EventPage(Reply):
    """Events that follow a cursor."""

    events: list[TaskEvent]
    next: Annotated[int, Field(description="The next page's `after`.")]
    ended: Annotated[bool, Field(description="Whether nothing can follow.")]
