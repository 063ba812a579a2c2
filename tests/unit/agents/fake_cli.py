"""A stand-in for the CLI that misbehaves as its variable BEHAVIOUR says; run by its path."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ASKED: list[str] = []


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    sys.stderr.write(line + "\n")


def send(frame: dict[str, Any]) -> None:
    say(json.dumps(frame))


def start_up(behaviour: str) -> None:
    if behaviour == "exit":
        complain("cannot go on: " + "x" * 10_000 + " the last words")
        sys.exit(3)
    if behaviour == "garbage":
        say("Segmentation fault, or so")
    if behaviour == "hang":
        time.sleep(600)
    if behaviour == "stubborn":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    if behaviour == "daemon":
        subprocess.Popen(
            ["/bin/sh", "-c", "sleep 600 & sleep 600"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )


def answer(behaviour: str, request: dict[str, Any]) -> None:
    asked = request["request"]["subtype"]
    ASKED.append(asked)
    response: dict[str, Any] = {"subtype": "success", "request_id": request["request_id"]}
    if behaviour == "ignorant" and asked == "get_context_usage":
        response |= {"subtype": "error", "error": "Unsupported control request."}
    elif behaviour == "dies-asked" and asked == "get_context_usage":
        sys.exit(5)
    else:
        response["response"] = {}
    send({"type": "control_response", "response": response})


def take_turn(behaviour: str) -> None:
    if behaviour == "exit-later":
        complain("out of luck")
        sys.exit(7)
    if behaviour == "garbage-later":
        say('{"type": "system", "subtype"')
    if behaviour == "huge":
        say('{"type": "system", "filler": "' + "x" * 300_000 + '"}')
    if behaviour == "shapeless":
        send({"type": "assistant", "message": "not what it should be"})
    if behaviour == "silent-end":
        sys.exit(0)
    send({"type": "something_new", "from": "a later version"})
    send({"type": "system", "subtype": "init", "session_id": "s", "tools": ["Read"]})
    send({"type": "system", "subtype": "not_known_yet"})
    send(
        {
            "type": "assistant",
            "message": {"model": "m", "content": [{"type": "text", "text": str(Path.cwd())}]},
        }
    )
    send(
        {
            "type": "result",
            "subtype": "success",
            "duration_ms": 1,
            "duration_api_ms": 1,
            "is_error": False,
            "num_turns": 1,
            "session_id": "s",
            "result": json.dumps({"env": dict(os.environ), "argv": sys.argv, "asked": ASKED}),
        }
    )


def main() -> None:
    behaviour = os.environ.get("BEHAVIOUR", "")
    start_up(behaviour)
    while line := sys.stdin.readline():
        frame = json.loads(line)
        if frame["type"] == "control_request":
            answer(behaviour, frame)
        elif frame["type"] == "user":
            take_turn(behaviour)
    while behaviour == "stubborn":
        time.sleep(600)


if __name__ == "__main__":
    main()
