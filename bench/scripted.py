"""A provider that makes the real agent work, in a process of its own.

    python -m bench.scripted --script answer

prints its port and serves until its stdin ends. `answer` says one sentence, `work` has a program
written, run and read back (four model calls).
"""

import argparse
import asyncio
import sys

from tests.support.wire_upstream import Script, WireUpstream, fixed, text, write_run_read

SCRIPTS: dict[str, Script] = {
    "answer": fixed(text("Hello. There is nothing else to do.")),
    "work": write_run_read,
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
