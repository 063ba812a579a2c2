"""What three API servers do together, against one: model calls that wait for the provider.

The calls go through nginx to servers of one PostgreSQL and one Redis; the provider answers after
50 ms. Where cores are fewer than servers, the cores bound what three can do. Needs nginx, wrk,
PostgreSQL's programs and Redis.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.cluster import shared
from bench.command import Plan, run
from bench.figure import Figure
from bench.load import wrk
from bench.nginx import proxy
from bench.rounds import interleaved, middle
from bench.server import server
from bench.upstream import upstream

SERVERS = 3
IN_FLIGHT = 64
DELAY_S = 0.05
BODY = {
    "model": "claude-haiku-4-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Say hello."}],
}


def measure(plan: Plan) -> list[Figure]:
    """Calls a second."""
    seconds = 3 if plan.quick else 10
    with _place() as (urls, body):
        candidates = {
            name: partial(wrk, url, body, in_flight=IN_FLIGHT, seconds=seconds)
            for name, url in urls.items()
        }
        for candidate in candidates.values():  # connections, statements
            candidate()
        found = interleaved(candidates, plan.rounds, plan.progress, "calls")
    cores = len(os.sched_getaffinity(0))
    what = f"calls to a 50 ms upstream, {SERVERS} servers on {cores} cores, {IN_FLIGHT} in flight"
    return [
        Figure(
            what,
            middle(found["three"], lambda result: result.rate),
            middle(found["one"], lambda result: result.rate),
            "one server",
            "/s",
        )
    ]


@contextmanager
def _place() -> Iterator[tuple[dict[str, str], Path]]:
    with ExitStack() as stack:
        common = stack.enter_context(shared("replicas"))
        place = common.place
        slow = upstream("bench.stub", f"--delay={DELAY_S}", log=place / "stub.log")
        env = {
            **common.env,
            "ROLE": "api",
        }
        provider = stack.enter_context(slow)
        made = [
            stack.enter_context(server(place / str(number), upstream=provider, env=env))
            for number in range(SERVERS)
        ]
        all_of = [each.url for each in made]
        urls = {
            name: stack.enter_context(proxy(place / name, *behind, buffering=False))
            for name, behind in (("one", all_of[:1]), ("three", all_of))
        }
        (body := place / "body.json").write_text(json.dumps(BODY))
        yield urls, body


if __name__ == "__main__":
    sys.exit(run("replicas", __doc__ or "", measure))
