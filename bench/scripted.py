"""A provider that makes the real agent work, in a process of its own.

    python -m bench.scripted --script answer

prints its port and serves until its stdin ends. `answer` says one sentence, `work` has a program
written, run and read back (four model calls), `busy` has a command run that does not end, and says
a sentence when it is told that the turn was lost in its middle.
"""

import argparse
import asyncio
import json
import sys

from tests.support.wire_upstream import (
    Json,
    Reply,
    Script,
    Text,
    Tool,
    WireUpstream,
    fixed,
    text,
    write_run_read,
)


def busy(request: Json) -> Reply:
    """A long command; one sentence for the agent that takes it over."""
    if "was lost in the middle" in json.dumps(request["messages"]):
        return Reply((Text("It goes on. There is nothing else to do."),))
    if not request.get("tools"):
        return Reply((Text("A title."),))
    return Reply((Tool("Bash", {"command": "sleep 600", "timeout": 600_000}),))


SCRIPTS: dict[str, Script] = {
    "answer": fixed(text("Hello. There is nothing else to do.")),
    "work": write_run_read,
    "busy": busy,
}


async def _serve(script: Script) -> None:
    async with WireUpstream(script) as upstream:
        print(upstream.url.rpartition(":")[2], flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scripted", description=__doc__)
    parser.add_argument("--script", choices=sorted(SCRIPTS), default="answer")
    options = parser.parse_args()
    asyncio.run(_serve(SCRIPTS[options.script]))


if __name__ == "__main__":
    main()
