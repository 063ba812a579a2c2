"""What is counted here reads as what the client library counts itself."""

import re

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from stationmaster.telemetry import tally

_CREATED = re.compile(rb"(_created(?:\{[^}]*\})?) \S+")


def told(registry: CollectorRegistry) -> bytes:
    return _CREATED.sub(rb"\1 0", generate_latest(registry))


def test_it_reads_as_the_librarys_own() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    buckets = (0.005, 1, 2.5)
    mine = (
        tally.Tally("asked_total", "All.", registry=ours),
        tally.Tally("answered_total", 'A "word".', ("verb", "status"), registry=ours),
        tally.Histogram("took_seconds", "How long.", ("verb",), buckets=buckets, registry=ours),
    )
    library = (
        Counter("asked_total", "All.", registry=theirs),
        Counter("answered_total", 'A "word".', ("verb", "status"), registry=theirs),
        Histogram("took_seconds", "How long.", ("verb",), buckets=buckets, registry=theirs),
    )
    assert told(ours) == told(theirs)
    for verb, status, seconds in (("GET", "200", 0.005), ("PUT", '"\\\n', 7), ("GET", "404", 1.0)):
        mine[0].labels().value += 1
        library[0].inc()
        mine[1].labels(verb, status).value += 3
        library[1].labels(verb, status).inc(3)
        for amount in (seconds, seconds / 2, seconds * 2):
            mine[2].labels(verb).observe(amount)
            library[2].labels(verb).observe(amount)
    assert told(ours) == told(theirs)
    assert b'took_seconds_bucket{le="+Inf",verb="GET"} 6.0' in told(ours)
