"""An HTTP server on a free loopback port that answers from a script, and keeps what it was asked.

with ScriptedServer() as server:
    server.answers = [Answer(503, headers={"retry-after": "0"}), Answer.json({"ok": True})]
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    """`headers` have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """`cut` closes the connection before the body has all come."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> "Answer":
        """A JSON body."""
        return cls(status, json.dumps(value).encode(), headers)

    @classmethod
    def problem(cls, status: int, code: str, detail: str = "No.", **headers: str) -> "Answer":
        """An error as the server describes it."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps({"code": code, "detail": detail}).encode(), names)

    @classmethod
    def events(cls, *frames: str, cut: bool = False) -> "Answer":
        """An event stream."""
        return cls(200, "".join(frames).encode(), {"content-type": "text/event-stream"}, cut)


Respond = Callable[[Request], Answer]


class ScriptedServer:
    """Answers in order from `answers`, then by `otherwise`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        self.otherwise: Respond = lambda _: Answer(404)
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(length)
                request = Request(self.command, self.path, headers, body)
                script.requests.append(request)
                given = script.answers.pop(0) if script.answers else script.otherwise(request)
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(given.body) + given.cut))
                self.end_headers()
                self.wfile.write(given.body)
                self.close_connection = self.close_connection or given.cut

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - names of the base class

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def sse(seq: int, kind: str, data: dict[str, Any] | None = None) -> str:
    """A numbered event as the server sends it."""
    record = {"seq": seq, "type": kind, "version": 1, "created_at": "", "data": data or {}}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(record)}\n\n"
