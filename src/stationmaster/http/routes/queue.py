"""How much there is to do: what scalers of workers read."""

from fastapi import FastAPI

from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.server import QueuedRuns, QueueReport


async def get_queue(services: Given, caller: Caller) -> QueueReport:
    """How many runs wait and work, and for how long they have waited."""
    caller.require("admin:server")
    depth, waiting = await services.runs.depth(), await services.runs.waiting()
    now = services.clock.now()
    priorities = {
        name: QueuedRuns(queued=each.queued, oldest_seconds=each.seconds(now))
        for name, each in waiting.items()
    }
    return QueueReport(
        queued=depth.queued,
        running=depth.running,
        unfinished=depth.queued + depth.running,
        oldest_seconds=max(each.oldest_seconds for each in priorities.values()),
        priorities=priorities,
    )


def install(api: FastAPI) -> None:
    """Put the route into the app."""
    add(api, "GET", "/v1/queue", get_queue, tag="server", summary="What waits for workers",
        reply=QueueReport)  # fmt: skip
