"""Calls of tools that wait for somebody: a person's word, or a client's answer.

pending ──▶ allowed | denied      by a confirmation
   ├──────▶ answered              by the result of a custom tool, or of one that a worker runs
   ├──────▶ expired               nobody came in time: denied
   └──────▶ cancelled             the turn ended first

A call of a tool that a worker runs, in a self-hosted environment, is pending again once it is
allowed: from `confirmation` it becomes one of kind `tool`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from stationmaster.kernel.clock import Millis

Kind = Literal["confirmation", "custom_tool", "tool"]
State = Literal["pending", "allowed", "denied", "answered", "expired", "cancelled"]


@dataclass(frozen=True, slots=True)
class Approval:
    """One call that waits or waited. `event_id` is the id of its `agent.tool_use` event.

    `answer` is what was decided: `message`, `input`, `always`, or `content` and `is_error`.
    """

    id: str
    session_id: str
    run_id: str
    kind: Kind
    event_id: str
    name: str
    input: dict[str, Any]
    state: State
    created_at: Millis
    expires_at: Millis
    answer: dict[str, Any] | None = None
    decided_by: str | None = None
    decided_at: Millis | None = None
