"""What the gateway costs, against the same upstream called directly, nginx and LiteLLM's proxy.

The server under test has a core for itself, as nginx has; the load and the upstream share another.
Key check, hold and the durable ledger are on. Loopback, no TLS; answers of about 600 bytes,
streams of 20 events. Needs nginx and wrk; LiteLLM is left out where it is not installed.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import stub
from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.litellm import HINT, PROGRAM, litellm
from bench.load import StreamResult, WrkResult, streams, wrk
from bench.nginx import fixed_upstream, proxy
from bench.process import Cores, calm, pinned, split_cores
from bench.programs import require
from bench.rounds import interleaved, middle
from bench.server import server
from bench.upstream import upstream

IN_FLIGHT = (1, 16, 64)
LARGE_BYTES = 400_000
SLOW_SECONDS = 0.05

_RATE_GOALS = {
    "nginx": {16: Goal("at least", 0.10), 64: Goal("at least", 0.15)},
    "litellm": {1: Goal("at least", 15), 16: Goal("at least", 50), 64: Goal("at least", 90)},
}
_LITELLM_STREAMS = Goal("at least", 100)
_LITELLM_FIRST_BYTE = Goal("at most", 1 / 60)


@dataclass(frozen=True, slots=True)
class Targets:
    """The same upstream by each way; base URLs. None where there is no such way."""

    direct: str
    ours: str
    nginx: str | None = None
    litellm: str | None = None

    def ways(self) -> dict[str, str]:
        """Those that there are, by name."""
        every = {
            "direct": self.direct,
            "nginx": self.nginx,
            "litellm": self.litellm,
            "ours": self.ours,
        }
        return {name: url for name, url in every.items() if url is not None}


def measure(plan: Plan) -> list[Figure]:
    """All figures of the gateway."""
    require("nginx")
    require("wrk")
    if not PROGRAM.exists():
        print(HINT, file=sys.stderr)
    cores = split_cores()
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as name:
        directory = Path(name)
        return [
            *_fast(plan, directory, cores),
            *_slow(plan, directory, cores),
            *_streamed(plan, directory, cores),
        ]


def _fast(plan: Plan, directory: Path, cores: Cores) -> list[Figure]:
    small = _body(directory / "small.json", "Say hello.")
    large = _body(directory / "large.json", "Many words of a long conversation.\n" * 11_500)
    with (
        fixed_upstream(directory / "upstream", stub.answer(), cores=cores.load) as direct,
        proxy(directory / "proxy", direct, buffering=True, cores=cores.server) as nginx,
        litellm(directory / "litellm", direct, cores=cores.server) as peer,
        server(directory / "fast", upstream=direct, cores=cores.server) as ours,
    ):
        targets = Targets(direct, ours.url, nginx, peer)
        found = {
            count: _calls(plan, cores, targets, small, in_flight=count, what=f"{count} in flight")
            for count in IN_FLIGHT
        }
        figures = [figure for count in IN_FLIGHT for figure in _rates(found[count], count)]
        figures += _latencies(found[1])
        without = replace(targets, litellm=None)
        calls = _calls(plan, cores, without, large, in_flight=4, what="400 kB prompt")
        figures.append(
            Figure(
                "calls with a 400 kB prompt, 4 in flight",
                middle(calls["ours"], lambda result: result.rate),
                middle(calls["nginx"], lambda result: result.rate),
                "nginx",
                "/s",
                Goal("at least", 0.3),
            )
        )
        return figures


def _slow(plan: Plan, directory: Path, cores: Cores) -> list[Figure]:
    body = _body(directory / "slow.json", "Say hello.")
    log = directory / "slow.log"
    with (
        upstream("bench.stub", f"--delay={SLOW_SECONDS}", log=log, cores=cores.load) as direct,
        server(directory / "slow", upstream=direct, cores=cores.server) as ours,
    ):
        targets = Targets(direct, ours.url)
        calls = _calls(plan, cores, targets, body, in_flight=64, what="50 ms upstream")
    return [
        Figure(
            "calls to a 50 ms upstream, 64 in flight",
            middle(calls["ours"], lambda result: result.rate),
            middle(calls["direct"], lambda result: result.rate),
            "direct",
            "/s",
            Goal("at least", 0.92),
        )
    ]


def _calls(
    plan: Plan, cores: Cores, targets: Targets, body: Path, *, in_flight: int, what: str
) -> dict[str, list[WrkResult]]:
    seconds = 2 if plan.quick else 5

    def load(url: str) -> WrkResult:
        calm(cores.server)
        return wrk(url, body, in_flight=in_flight, seconds=seconds, cores=cores.load)

    ways = targets.ways()
    candidates: dict[str, Callable[[], WrkResult]] = {
        name: partial(load, url) for name, url in ways.items()
    }
    plan.progress.say(f"{what}: warming up")
    for url in ways.values():
        wrk(url, body, in_flight=in_flight, seconds=1, cores=cores.load, some=False)
    return interleaved(candidates, plan.rounds, plan.progress, what)


def _rates(calls: dict[str, list[WrkResult]], in_flight: int) -> list[Figure]:
    ours = middle(calls["ours"], lambda result: result.rate)
    return [
        Figure(
            f"calls, {in_flight} in flight",
            ours,
            middle(calls[name], lambda result: result.rate),
            name,
            "/s",
            _RATE_GOALS.get(name, {}).get(in_flight),
        )
        for name in ("nginx", "litellm", "direct")
        if name in calls
    ]


def _latencies(calls: dict[str, list[WrkResult]]) -> list[Figure]:
    goals = {"p50": Goal("at most", 15), "p99": Goal("at most", 5)}
    figures = []
    for name, goal in goals.items():
        values = {
            way: middle(results, lambda result, name=name: getattr(result, name))  # type: ignore[misc]
            for way, results in calls.items()
        }
        figures.append(
            Figure(
                f"added {name}, 1 in flight",
                values["ours"] - values["direct"],
                values["nginx"] - values["direct"],
                "nginx's added",
                "ms",
                goal,
            )
        )
    return figures


def _streamed(plan: Plan, directory: Path, cores: Cores) -> list[Figure]:
    body = _message("Say hello.", stream=True)
    log = directory / "streams.log"
    figures = []
    with (
        upstream("bench.stub", log=log, cores=cores.load) as direct,
        proxy(directory / "streams-proxy", direct, buffering=False, cores=cores.server) as nginx,
        litellm(directory / "streams-litellm", direct, cores=cores.server) as peer,
        server(directory / "streams", upstream=direct, cores=cores.server) as ours,
    ):
        urls = Targets(direct, ours.url, nginx, peer).ways()
        for in_flight in (1, 16):
            candidates = {
                name: partial(_stream_run, plan, cores, url, body, in_flight)
                for name, url in urls.items()
            }
            for candidate in candidates.values():  # the first of each is slower: it warms up
                candidate()
            what = f"streams, {in_flight} in flight"
            found = interleaved(candidates, plan.rounds, plan.progress, what)
            figures += _stream_figures(found, in_flight)
    return figures


def _stream_run(plan: Plan, cores: Cores, url: str, body: bytes, in_flight: int) -> StreamResult:
    import uvloop

    seconds = 1.0 if plan.quick else 4.0
    calm(cores.server)
    with pinned(cores.load), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(streams(url, body, in_flight=in_flight, seconds=seconds))


def _stream_figures(found: dict[str, list[StreamResult]], in_flight: int) -> list[Figure]:
    rates = {name: middle(results, lambda r: r.rate) for name, results in found.items()}
    first = {name: middle(results, lambda r: r.first_byte) for name, results in found.items()}
    at_sixteen = in_flight == 16
    figures = []
    for name in ("nginx", "litellm"):
        if name not in found:
            continue
        against_litellm = at_sixteen and name == "litellm"
        figures += [
            Figure(
                f"added time to first byte, {in_flight} in flight",
                first["ours"] - first["direct"],
                first[name] - first["direct"],
                f"{name}'s added",
                "ms",
                _LITELLM_FIRST_BYTE if against_litellm else None,
            ),
            Figure(
                f"streams, {in_flight} in flight",
                rates["ours"],
                rates[name],
                name,
                "/s",
                _LITELLM_STREAMS if against_litellm else None,
            ),
        ]
    return figures


def _body(path: Path, prompt: str) -> Path:
    path.write_bytes(_message(prompt, stream=False))
    return path


def _message(prompt: str, *, stream: bool) -> bytes:
    return json.dumps(
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 1024,
            "stream": stream,
            "messages": [{"role": "user", "content": prompt}],
        }
    ).encode()


if __name__ == "__main__":
    sys.exit(run("gateway", __doc__ or "", measure))
