"""Anthropic's and OpenAI's APIs for batches, on one free port, with what was handed to them.

    async with BatchUpstream() as upstream:
        ... call upstream.url ...
        upstream.finish()

A batch goes on when it is told to (`finish`), or at once with `prompt`. Each request is answered
with the word that it is asked for (`Say WORD.`), `Fail.` is refused. `faults` are played once each:
what is named there happens to the next request of its kind.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web

from tests.support import vendor_answers as wire
from tests.support.listening import Listening

Json = dict[str, Any]

Fault = Literal["refuse", "down", "busy", "lose", "cut"]
"""400; 503 without a deed; 429; the deed, and the connection is cut; the connection is cut."""

USAGE = {"input_tokens": 1000, "output_tokens": 200}


@dataclass
class Batch:
    """One that was taken. `state` is the vendor's own word; `results` are by `custom_id`."""

    id: str
    vendor: Literal["anthropic", "openai"]
    requests: dict[str, Json]
    headers: dict[str, str]
    created: float
    state: str = "in_progress"
    results: dict[str, tuple[str, Json | None]] = field(default_factory=dict)
    cancelled: int = 0
    endpoint: str = ""
    metadata: Json | None = None
    files: dict[str, str] = field(default_factory=dict)
    deleted: bool = False
    errors: list[Json] | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in {"ended", "completed", "cancelled", "expired", "failed"}


class BatchUpstream(Listening):
    """Takes batches, and keeps them whatever becomes of their maker."""

    def __init__(self, *, prompt: bool = False) -> None:
        self.prompt = prompt
        self.batches: list[Batch] = []
        self.files: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.calls: list[Json] = []
        self.faults: dict[str, list[Fault]] = {}
        self.before: Callable[[str], bool] = lambda _step: False  # whether it is lost on its way
        self.after: Callable[[str], object] = lambda _step: None
        self.taken = asyncio.Event()

    def routes(self, app: web.Application) -> None:
        """Whatever is asked."""
        app.router.add_route("*", "/{rest:.*}", self._serve)

    # --- what tests do ------------------------------------------------------------------------

    def finish(self, state: str = "", *, done: int | None = None) -> None:
        """End every batch that is not over; of each only the first `done` requests are answered."""
        for batch in self.batches:
            if not batch.over:
                self._end(batch, state, done)

    def foreign(self, size: int) -> Batch:
        """A batch of Anthropic's that somebody else with the same account has made."""
        requests: dict[str, Json] = {f"theirs-{number}": {} for number in range(size)}
        return self._add("anthropic", requests, {})

    def _end(self, batch: Batch, state: str, done: int | None) -> None:
        rest = {"expired": "expired", "cancelled": "canceled", "ended": "canceled"}.get(state)
        for place, (custom_id, body) in enumerate(batch.requests.items()):
            if state == "failed":
                continue
            if done is not None and place >= done:
                batch.results[custom_id] = (rest or "expired", None)
            elif "Fail." in json.dumps(body):
                batch.results[custom_id] = ("errored", None)
            else:
                batch.results[custom_id] = ("succeeded", self._answer(batch, body))
        batch.state = "ended" if batch.vendor == "anthropic" else state or "completed"
        if batch.vendor == "openai" and state != "failed":
            self._write(batch)

    def _answer(self, batch: Batch, body: Json) -> Json:
        model = body.get("model", "m")
        if batch.vendor == "anthropic":
            return {**wire.message(model, _text(body)), "usage": USAGE}
        if batch.endpoint == "/v1/embeddings":
            return wire.embedding_list(model, [body["input"]], packed=False)
        if batch.endpoint == "/v1/responses":
            return wire.response(model, _text(body))
        usage = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
        return {**wire.completion(model, _text(body)), "usage": usage}

    def _write(self, batch: Batch) -> None:
        lines: dict[str, list[Json]] = {"output": [], "error": []}
        for custom_id, (kind, answer) in batch.results.items():
            line: Json = {"id": f"r{custom_id}", "custom_id": custom_id}
            if kind == "succeeded":
                response = {"status_code": 200, "request_id": "q", "body": answer}
                lines["output"].append({**line, "response": response, "error": None})
            elif kind == "errored":
                body = wire.openai_error("It is refused.", "bad")
                response = {"status_code": 400, "request_id": "q", "body": body}
                lines["error"].append({**line, "response": response, "error": None})
            elif kind == "expired":
                error = {"code": "batch_expired", "message": "It was not done in time."}
                lines["error"].append({**line, "response": None, "error": error})
        for name, found in lines.items():
            if found:
                file_id = f"file-{secrets.token_hex(6)}"
                self.files[file_id] = (name, b"\n".join(wire.encoded(line) for line in found))
                batch.files[name] = file_id

    # --- the wire -----------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        step = f"{request.method} {_pattern(request.path)}"
        self.asked.append(step)
        if self.before(step):
            return _cut(request)
        queued = self.faults.get(step, [])
        fault = queued.pop(0) if queued else None
        match fault:
            case "refuse":
                return _error(400, "This is not how it is done.")
            case "down":
                return _error(503, "Down.")
            case "busy":
                return _error(429, "Too much.")
            case "cut":
                return _cut(request)
        response = self._respond(request, raw, step)
        self.after(step)
        return _cut(request) if fault == "lose" else response

    def _respond(self, request: web.Request, raw: bytes, step: str) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if request.path.startswith("/v1/messages/batches"):
            return self._anthropic(request, raw, parts[3:])
        if parts[:2] == ["v1", "files"]:
            return self._file(request, raw, parts[2:])
        if parts[:2] == ["v1", "batches"]:
            return self._openai(request, raw, parts[2:])
        return self._call(request.path, json.loads(raw) if raw else {})

    def _call(self, path: str, body: Json) -> web.Response:
        """A call that somebody waits for, at its full price."""
        if path == "/v1/messages":
            self.calls.append(body)
            return _json({**wire.message(body["model"], _text(body)), "usage": USAGE})
        if path == "/v1/messages/count_tokens":
            return _json({"input_tokens": 40})
        if path == "/v1/chat/completions":
            self.calls.append(body)
            return _json(wire.completion(body["model"], _text(body)))
        return _error(404, "There is nothing.")

    def _add(self, vendor: Any, requests: dict[str, Json], headers: dict[str, str]) -> Batch:
        made = datetime.now(UTC).timestamp()
        name = f"msgbatch_{secrets.token_hex(8)}" if vendor == "anthropic" else None
        batch = Batch(name or f"batch_{secrets.token_hex(8)}", vendor, requests, headers, made)
        self.batches.append(batch)
        self.taken.set()
        return batch

    def _of(self, batch_id: str) -> Batch | None:
        return next((b for b in self.batches if b.id == batch_id and not b.deleted), None)

    def _anthropic(self, request: web.Request, raw: bytes, parts: list[str]) -> web.Response:
        assert request.headers["x-api-key"]
        assert request.headers["anthropic-version"]
        if not parts:
            if request.method == "GET":
                there = [b for b in reversed(self.batches) if not b.deleted]
                return _json({"data": [_message_batch(b) for b in there], "has_more": False})
            asked = json.loads(raw)["requests"]
            assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", r["custom_id"]) for r in asked)
            requests = {each["custom_id"]: each["params"] for each in asked}
            assert len(requests) == len(asked)
            batch = self._add("anthropic", requests, dict(request.headers))
            if self.prompt:
                self._end(batch, "", None)
            return _json(_message_batch(batch))
        found = self._of(parts[0])
        if found is None:
            return _error(404, "There is no such batch.")
        match request.method, parts[1:]:
            case "POST", ["cancel"]:
                found.cancelled += 1
                found.state = "ended" if found.over else "canceling"
                return _json(_message_batch(found))
            case "GET", ["results"]:
                lines = [wire.encoded(_result(*each)) for each in found.results.items()]
                return web.Response(body=b"\n".join(reversed(lines)) + b"\n")
            case "DELETE", []:
                found.deleted = True
                return _json({"id": found.id, "type": "message_batch_deleted"})
        return _json(_message_batch(found))

    def _file(self, request: web.Request, raw: bytes, parts: list[str]) -> web.Response:
        assert request.headers["authorization"].startswith("Bearer ")
        if not parts:
            if request.method == "GET":
                found = [{"id": file_id, "filename": n} for file_id, (n, _) in self.files.items()]
                return _json({"object": "list", "data": found})
            name, content = _form(request.headers["content-type"], raw)
            file_id = f"file-{secrets.token_hex(6)}"
            self.files[file_id] = (name, content)
            return _json({"id": file_id, "filename": name, "purpose": "batch"})
        if parts[0] not in self.files:
            return _error(404, "There is no such file.")
        if request.method == "DELETE":
            del self.files[parts[0]]
            return _json({"id": parts[0], "deleted": True})
        return web.Response(body=self.files[parts[0]][1])

    def _openai(self, request: web.Request, raw: bytes, parts: list[str]) -> web.Response:
        if not parts:
            if request.method == "GET":
                there = [b for b in reversed(self.batches) if b.vendor == "openai"]
                return _json({"data": [_file_batch(b) for b in there], "has_more": False})
            return self._take_file(json.loads(raw), dict(request.headers))
        found = self._of(parts[0])
        if found is None:
            return _error(404, "There is no such batch.")
        if parts[1:] == ["cancel"]:
            found.cancelled += 1
            if not found.over:
                found.state = "cancelling"
        return _json(_file_batch(found))

    def _take_file(self, body: Json, headers: dict[str, str]) -> web.Response:
        lines = [json.loads(line) for line in self.files[body["input_file_id"]][1].splitlines()]
        assert all(line["url"] == body["endpoint"] for line in lines)
        assert len({line["body"]["model"] for line in lines}) == 1, "OpenAI wants one model"
        batch = self._add("openai", {line["custom_id"]: line["body"] for line in lines}, headers)
        batch.endpoint, batch.metadata = body["endpoint"], body["metadata"]
        batch.files["input"] = body["input_file_id"]
        if self.prompt:
            self._end(batch, "", None)
        return _json(_file_batch(batch))


def _pattern(path: str) -> str:
    return re.sub(r"/(msgbatch_|batch_|file-)[0-9a-f]+", "/ID", path)


def _form(content_type: str, raw: bytes) -> tuple[str, bytes]:
    """The name and the content of the file in a form whose purpose is `batch`."""
    mark = content_type.partition("boundary=")[2].encode()
    fields: dict[str, tuple[str, bytes]] = {}
    for part in raw.split(b"--" + mark)[1:-1]:
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        names = dict(re.findall(r'(\w+)="([^"]*)"', head.decode()))
        fields[names["name"]] = (names.get("filename", ""), value.removesuffix(b"\r\n"))
    assert fields["purpose"][1] == b"batch"
    return fields["file"]


def _result(custom_id: str, found: tuple[str, Json | None]) -> Json:
    kind, answer = found
    result: Json = {"type": kind}
    if kind == "succeeded":
        result["message"] = answer
    elif kind == "errored":
        error = {"type": "invalid_request_error", "message": "It is refused."}
        result["error"] = {"type": "error", "error": error, "request_id": None}
    return {"custom_id": custom_id, "result": result}


def _message_batch(batch: Batch) -> Json:
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    if batch.over:
        for kind, _ in batch.results.values():
            counts[kind] += 1
    counts["processing"] = len(batch.requests) - sum(counts.values())
    made = datetime.fromtimestamp(batch.created, UTC).isoformat()
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": batch.state,
        "request_counts": counts,
        "created_at": made,
        "expires_at": made,
        "ended_at": made if batch.over else None,
        "archived_at": None,
        "cancel_initiated_at": made if batch.cancelled else None,
        "results_url": f"http://127.0.0.2:1/v1/messages/batches/{batch.id}/results",
    }


def _file_batch(batch: Batch) -> Json:
    kinds = [kind for kind, _ in batch.results.values()]
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "input_file_id": batch.files.get("input"),
        "completion_window": "24h",
        "status": batch.state,
        "created_at": int(batch.created),
        "output_file_id": batch.files.get("output"),
        "error_file_id": batch.files.get("error"),
        "request_counts": {
            "total": len(batch.requests),
            "completed": kinds.count("succeeded"),
            "failed": kinds.count("errored"),
        },
        "metadata": batch.metadata,
        "errors": None if batch.errors is None else {"object": "list", "data": batch.errors},
    }


def _text(body: Json) -> str:
    asked = body.get("messages") or body.get("input", "")
    said = asked if isinstance(asked, str) else asked[-1]["content"]
    return "Here it is: " + re.sub(r"^Say |\.$", "", str(said))


def _json(value: Json) -> web.Response:
    return web.Response(body=wire.encoded(value), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    error = {"type": "invalid_request_error", "message": message}
    body = wire.encoded({"type": "error", "error": error})
    return web.Response(body=body, status=status, content_type="application/json")


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
