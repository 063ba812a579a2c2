"""The Python client: `Client` for plain code, `AsyncClient` for asyncio.

    with Client("http://127.0.0.1:8080", "sm_…") as client:
        task = client.submit("Write a haiku into haiku.txt", TaskOptions(max_cost=0.5))
        for event in client.follow(task.id):
            print(event.type, event.data)
        print(client.get(task.id).summary)

It needs httpx and nothing else of Stationmaster.
"""

from stationmaster.client.asynchronous import AsyncClient
from stationmaster.client.errors import (
    ApiError,
    AuthenticationFailed,
    BudgetExceeded,
    ClientError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    LimitReached,
    NotFound,
    PermissionDenied,
    ServerFailed,
    UnexpectedAnswer,
)
from stationmaster.client.models import (
    ApiKey,
    Artifact,
    EventPage,
    Page,
    Task,
    TaskEvent,
    TaskOptions,
)
from stationmaster.client.synchronous import Client

__all__ = [
    "ApiError",
    "ApiKey",
    "Artifact",
    "AsyncClient",
    "AuthenticationFailed",
    "BudgetExceeded",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionFailed",
    "EventPage",
    "InvalidRequest",
    "LimitReached",
    "NotFound",
    "Page",
    "PermissionDenied",
    "ServerFailed",
    "Task",
    "TaskEvent",
    "TaskOptions",
    "UnexpectedAnswer",
]
