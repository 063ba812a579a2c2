from prometheus_client.parser import text_string_to_metric_families

from stationmaster.telemetry import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, _ = metrics.render()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_a_request_is_counted_under_its_route() -> None:
    metrics = Metrics()
    metrics.http_request(method="GET", endpoint="/v1/tasks/{id}", status=200, seconds=0.2)
    metrics.http_request(method="GET", endpoint="/v1/tasks/{id}", status=200, seconds=0.4)
    found = samples(metrics)
    route = (("endpoint", "/v1/tasks/{id}"), ("method", "GET"))
    assert found["http_requests_total", (*route, ("status", "200"))] == 2
    assert found["http_request_duration_seconds_count", route] == 2
    assert found["claude_code_requests_total", ()] == 2


def test_a_call_is_counted_with_its_tokens_and_cost() -> None:
    metrics = Metrics()
    metrics.model_call(
        provider="offline",
        model="sonnet",
        outcome="complete",
        tokens={"input": 3, "output": 5},
        cost_micros=7,
        first_byte_seconds=0.1,
    )
    found = samples(metrics)
    labels = (("model", "sonnet"), ("outcome", "complete"), ("provider", "offline"))
    assert found["model_calls_total", labels] == 1
    assert found["model_tokens_total", (("class", "output"),)] == 5
    assert found["model_cost_micro_dollars_total", ()] == 7
    assert found["model_call_first_byte_seconds_count", (("provider", "offline"),)] == 1


def test_a_run_is_counted_with_its_outcome() -> None:
    metrics = Metrics()
    metrics.run_ended(outcome="cost_exceeded", seconds=3)
    found = samples(metrics)
    assert found["runs_total", (("outcome", "cost_exceeded"),)] == 1
    assert found["run_duration_seconds_sum", ()] == 3


def test_gauges_may_ask_when_they_are_read() -> None:
    metrics = Metrics()
    alive = [1, 2]
    metrics.agents_alive.set_function(lambda: len(alive))
    assert samples(metrics)["agents_alive", ()] == 2
    alive.clear()
    assert samples(metrics)["agents_alive", ()] == 0


def test_clients_cannot_make_series_without_end() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.http_request(method=f"M{number}", endpoint=f"/{number}", status=404, seconds=0)
        metrics.model_call(
            provider="offline",
            model=f"model-{number}",
            outcome="error",
            tokens={},
            cost_micros=0,
            first_byte_seconds=None,
        )
    found = samples(metrics)
    assert sum(name == "http_requests_total" for name, _ in found) == 301
    assert sum(name == "model_calls_total" for name, _ in found) == 51
    other = (("model", "other"), ("outcome", "error"), ("provider", "offline"))
    assert found["model_calls_total", other] == 950


def test_two_servers_do_not_share_counters() -> None:
    one, other = Metrics(), Metrics()
    one.events_appended.inc()
    assert samples(other)["events_appended_total", ()] == 0


def test_the_process_is_measured_too() -> None:
    assert samples(Metrics())["process_resident_memory_bytes", ()] > 1_000_000
