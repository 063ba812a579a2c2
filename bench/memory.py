"""Resident memory of the server: idle, with a hundred readers, and after many gateway calls.

Agents are processes of their own (about 210 MB each) and do not count here. Needs nginx and wrk
for the calls.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench import stub
from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.load import wrk
from bench.nginx import fixed_upstream
from bench.process import end, rss_mib
from bench.programs import require
from bench.server import KEY, Server, server
from bench.upstream import upstream

IDLE_MIB = 120.0
READERS = 100
CALLS = 200_000
QUICK_CALLS = 20_000
WARM_CALLS = 5_000
SETTLE_SECONDS = 2.0
SILENT_SECONDS = 600  # longer than the readers are there
READ_SECONDS = 30.0


def measure(plan: Plan) -> list[Figure]:
    """Three figures, each of fresh servers; the last one once, for it takes long."""
    require("nginx")
    require("wrk")
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        directory = Path(name)
        interpreter: list[float] = []
        servers: list[tuple[float, float, float]] = []
        for turn in range(plan.rounds):
            plan.progress.say(f"idle and with readers, round {turn + 1} of {plan.rounds}")
            interpreter.append(_interpreter())
            servers.append(_readers(directory / f"readers-{turn}"))
        warm, worked, calls = _calls(plan, directory)
    idle, working, reading = (median(values) for values in zip(*servers, strict=True))
    return [
        Figure(
            "idle server, without agents",
            idle,
            median(interpreter),
            "bare interpreter",
            "MiB",
            Goal("at most", IDLE_MIB, on="ours"),
        ),
        Figure("while its first agent works", working, idle, "idle", "MiB"),
        Figure(f"with {READERS} readers of that", reading, working, "without readers", "MiB"),
        Figure(
            f"after {calls:,} gateway calls",
            worked,
            warm,
            f"after {WARM_CALLS:,}",
            "MiB",
            Goal("at most", 1.05),
        ),
    ]


def _interpreter() -> float:
    code = "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.read(1)
        return rss_mib(process.pid)
    finally:
        end(process)


def _readers(directory: Path) -> tuple[float, float, float]:
    """Memory idle, with an agent at work, and with a hundred readers of what it does."""
    log = directory.with_suffix(".log")
    env = {"SHUTDOWN_TIMEOUT": "0s"}
    with (
        upstream("bench.stub", f"--delay={SILENT_SECONDS}", log=log) as provider,
        server(directory, upstream=provider, env=env) as ours,
        ExitStack() as connections,
    ):
        time.sleep(SETTLE_SECONDS)
        idle = ours.rss()
        task = ours.post("/v1/tasks", {"description": "Say hello."})["task_id"]
        while not ours.get("/health")["services"]["agents"]["alive"]:
            time.sleep(0.05)
        time.sleep(SETTLE_SECONDS)
        working = ours.rss()
        for _ in range(READERS):
            connections.enter_context(_follow(ours, task))
        time.sleep(SETTLE_SECONDS)
        return idle, working, ours.rss()


def _follow(ours: Server, task: str) -> socket.socket:
    """A connection that reads the task's events; returns when the answer has begun."""
    reader = socket.create_connection(("127.0.0.1", ours.port), timeout=READ_SECONDS)
    request = (
        f"GET /v1/tasks/{task}/events HTTP/1.1\r\nhost: bench\r\nx-api-key: {KEY}\r\n"
        "accept: text/event-stream\r\n\r\n"
    )
    reader.sendall(request.encode())
    seen = reader.recv(65536)
    if not seen.startswith(b"HTTP/1.1 200"):
        reader.close()
        raise RuntimeError(f"A reader was refused: {seen[:500].decode()}")
    return reader


def _calls(plan: Plan, directory: Path) -> tuple[float, float, int]:
    """Memory after the first calls and after all of them, and how many those were."""
    body = directory / "body.json"
    message = {"role": "user", "content": "Say hello."}
    body.write_text(
        json.dumps({"model": "claude-sonnet-4-5", "max_tokens": 1024, "messages": [message]})
    )
    wanted = QUICK_CALLS if plan.quick else CALLS
    with (
        fixed_upstream(directory / "upstream", stub.answer()) as provider,
        server(directory / "calls", upstream=provider) as ours,
    ):
        warm = 0.0
        done = 0
        while done < wanted:
            plan.progress.say(f"gateway calls: {done:,} of {wanted:,}")
            done += wrk(ours.url, body, in_flight=16, seconds=2).requests
            if not warm and done >= WARM_CALLS:
                warm = ours.rss()
        time.sleep(SETTLE_SECONDS)
        return warm, ours.rss(), done


if __name__ == "__main__":
    sys.exit(run("memory", __doc__ or "", measure))
