"""What the server says of itself, and what every answer has."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
import structlog

from stationmaster.bootstrap.observing import look_on
from stationmaster.http.app import create_app
from stationmaster.http.health import Finding, Health
from stationmaster.http.routes.app import openapi_document
from stationmaster.http.services import Component
from stationmaster.kernel.errors import Unavailable
from stationmaster.telemetry import about
from tests.http.conftest import ADMIN, USER, House, Open

SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-xss-protection": "1; mode=block",
    "referrer-policy": "strict-origin-when-cross-origin",
    "content-security-policy": "default-src 'self'",
}


@pytest.fixture
async def anonymous(house: House) -> Any:
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as client:
        yield client


async def test_the_map_names_what_there_is(house: House, anonymous: httpx.AsyncClient) -> None:
    found = (await anonymous.get("/")).json()
    assert found["name"] == "Stationmaster"
    for name in ("docs", "openapi", "health", "ready", "live", "metrics"):
        assert (await anonymous.get(found[name])).status_code == 200
    document = openapi_document()
    named = {
        (method.lower(), path)
        for place in found["endpoints"].values()
        for methods, _, path in [place.rpartition(" ")]
        for method in methods.split(", ")
    }
    known = {(method, path) for path, ways in document["paths"].items() for method in ways}
    assert named - {("websocket", "/v1/stream")} <= known  # OpenAPI knows no sockets


PROBES = [
    "/",
    "/health",
    "/ready",
    "/live",
    "/metrics",
    "/docs",
    "/db-check",
    "/redis-check",
    "/broker-check",
]


@pytest.mark.parametrize("path", PROBES)
async def test_probes_need_no_key_and_may_ask_with_head(
    anonymous: httpx.AsyncClient, path: str
) -> None:
    whole, head = await anonymous.get(path), await anonymous.head(path)
    assert (whole.status_code, head.status_code) == (200, 200)
    assert head.content == b""
    assert head.headers["content-type"] == whole.headers["content-type"]


async def test_health_shows_the_parts(house: House, anonymous: httpx.AsyncClient) -> None:
    report = (await anonymous.get("/health")).json()
    assert report["status"] == "ok"
    assert report["uptime_seconds"] >= 0
    parts = report["services"]
    assert parts["worker_pool"] == {
        "status": "ok",
        "active_workers": 0,
        "max_workers": 2,
        "unanswered": 0,
        "queued_tasks": 0,
        "max_queue": 20,
    }
    assert parts["agents"] == {
        "status": "ok",
        "agent": "scripted",
        "alive": 0,
        "warm": 0,
        "idle": 0,
        "busy": 0,
        "waiting_memory_bytes": 0,
        "sandbox": "none",
    }
    assert parts["provider"]["name"] == "offline"
    known = (await house.client.get("/health")).json()["services"]
    assert list(known["upstreams"].pop("each")) == ["offline"]  # names are for those with a key
    assert known == parts


def with_component(house: House, component: Component) -> httpx.AsyncClient:
    app = create_app(replace(house.services, components=(component,)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


async def test_details_of_health_are_for_those_with_a_key(house: House) -> None:
    async def check() -> Mapping[str, Any]:
        return {"url": "redis://10.1.2.3", "path": "/srv/data", "kind": "redis", "free": 3}

    async with with_component(house, Component("cache", check, critical=False)) as client:
        for key, told in ((None, False), ("wrong", False), (USER, True), (ADMIN, True)):
            answer = await client.get("/health", headers=house.as_key(key) if key else {})
            part = answer.json()["services"]["cache"]
            assert part["kind"] == "redis"
            assert part["free"] == 3
            assert ("10.1.2.3" in answer.text) is told
            assert ("/srv/data" in answer.text) is told


async def test_a_part_that_is_down_shows_and_its_reason_only_to_those_with_a_key(
    house: House,
) -> None:
    async def check() -> Mapping[str, Any]:
        raise Unavailable("No route to db.internal.", code="database_unavailable")

    async with with_component(house, Component("database", check, critical=True)) as client:
        anonymous = await client.get("/health")
        assert anonymous.status_code == 200
        assert anonymous.json()["status"] == "degraded"
        assert anonymous.json()["services"]["database"] == {
            "status": "down",
            "code": "database_unavailable",
        }
        known = await client.get("/health", headers=house.as_key(ADMIN))
        assert known.json()["services"]["database"]["message"] == "No route to db.internal."
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "database_not_ready")
        assert ready.headers["retry-after"]


@pytest.mark.parametrize(("path", "name"), [("/db-check", "database"), ("/redis-check", "redis")])
async def test_one_part_can_be_asked_for(house: House, path: str, name: str) -> None:
    used = path == "/db-check"
    there = await house.client.get(path)
    assert (there.status_code, there.json()) == (200, {"status": "ok" if used else "unused"})

    async def check() -> Mapping[str, Any]:
        raise Unavailable("No route to db.internal.", code="gone")

    async with with_component(house, Component(name, check, critical=False)) as client:
        gone = await client.get(path)
        assert (gone.status_code, gone.json()) == (503, {"status": "down"})
        assert gone.headers["retry-after"]


async def test_parts_are_looked_at_by_themselves(house: House) -> None:
    state = {"up": True}

    async def check() -> Mapping[str, Any]:
        if not state["up"]:
            raise Unavailable("It is away.")
        return {}

    class Asked(Health):
        async def findings(self) -> list[Finding]:
            self._asked_at = None  # each look is a new one
            return await super().findings()

    services = replace(house.services, components=(Component("part", check, critical=False),))
    looking = asyncio.create_task(look_on(Asked(services), services.metrics, 0.001))
    try:
        async with asyncio.timeout(30):
            for up, told in ((True, b"1.0"), (False, b"0.0"), (True, b"1.0")):
                state["up"] = up
                line = b'component_up{component="part"} ' + told
                while line not in services.metrics.render()[0]:
                    await asyncio.sleep(0.005)
    finally:
        looking.cancel()


async def test_a_part_that_is_not_critical_does_not_stop_the_server(house: House) -> None:
    async def check() -> Mapping[str, Any]:
        raise RuntimeError("nobody expected this at 10.1.2.3")

    async with with_component(house, Component("cache", check, critical=False)) as client:
        report = await client.get("/health")
        assert report.json()["services"]["cache"] == {"status": "down", "code": "internal_error"}
        assert (await client.get("/ready")).json() == {"ready": True, "reason": None}


async def test_components_are_asked_once_for_many_questions(house: House) -> None:
    asked = 0

    async def check() -> Mapping[str, Any]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return {}

    health = Health(replace(house.services, components=(Component("x", check, critical=True),)))
    await asyncio.gather(*(health.findings() for _ in range(100)))
    assert asked == 1


async def test_metrics_can_be_switched_off(open_house: Open) -> None:
    async with open_house(METRICS_ENABLED="false") as house:
        assert (await house.client.get("/metrics")).status_code == 404
        assert (await house.client.get("/")).json()["metrics"] is None


async def test_metrics_know_routes_by_template(house: House) -> None:
    await house.perform()
    await house.client.get("/v1/tasks/run_nonsense")
    await house.client.get("/v1/no-such-route-a")
    await house.client.get("/v1/no-such-route-b")
    await house.client.request("MKCOL", "/v1/tasks")
    text = (await house.client.get("/metrics")).text
    assert 'endpoint="/v1/tasks/{task_id}",method="GET",status="404"' in text
    assert 'endpoint="unmatched",method="GET",status="404"} 2.0' in text
    assert 'method="other"' in text
    assert "nonsense" not in text
    assert "no-such-route" not in text


async def test_the_documentation_needs_nothing_from_elsewhere(
    anonymous: httpx.AsyncClient,
) -> None:
    document = (await anonymous.get("/openapi.json")).json()
    assert document == openapi_document()
    for path in ("/docs", "/redoc"):
        page = await anonymous.get(path)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "<script" not in page.text
        links = re.findall(r'(?:href|src)="([^"#][^"]*)"', page.text)
        assert set(links) == {"/docs", "/redoc", "/openapi.json", "/docs/style.css"}
        for operation in (way for ways in document["paths"].values() for way in ways.values()):
            assert f'id="{operation["operationId"]}"' in page.text
        for name in document["components"]["schemas"]:
            assert f'id="schema-{name}"' in page.text
        for anchor in set(re.findall(r'href="#([^"]*)"', page.text)):
            assert f'id="{anchor}"' in page.text
    style = await anonymous.get("/docs/style.css")
    assert style.headers["content-type"].startswith("text/css")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/live"),
        ("GET", "/v1/tasks"),
        ("GET", "/nothing"),
        ("PUT", "/v1/tasks"),
        ("GET", "/v1/messages"),
        ("GET", "/docs"),
    ],
)
async def test_every_answer_has_an_id_and_the_security_headers(
    house: House, anonymous: httpx.AsyncClient, method: str, path: str
) -> None:
    seen = set()
    for client in (house.client, anonymous):
        answer = await client.request(method, path)
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
        request_id = answer.headers["x-request-id"]
        assert request_id.startswith("req_")
        assert answer.headers["request-id"] == request_id
        assert len(answer.headers.get_list("x-request-id")) == 1
        seen.add(request_id)
    assert len(seen) == 2


async def test_a_clients_own_id_goes_to_the_log_if_it_can_be_one(house: House) -> None:
    with structlog.testing.capture_logs([about.merge]) as lines:
        for given in ("abc-123", "x" * 129, "a b", "a;b"):
            answer = await house.client.get("/live", headers={"x-client-request-id": given})
            assert answer.headers["x-request-id"].startswith("req_")
        await house.client.get("/v1/tasks?limit=1")
    answered = [line for line in lines if line["event"] == "A request was answered."]
    assert [line.get("client_request_id") for line in answered] == ["abc-123", *[None] * 4]
    last = answered[-1]
    assert (last["method"], last["endpoint"], last["status_code"]) == ("GET", "/v1/tasks", 200)
    assert last["principal"].startswith("key_")
    assert last["path"] == "/v1/tasks"
    assert ADMIN not in str(lines)


async def test_nothing_redirects_by_the_host_header(house: House) -> None:
    for path in ("/v1/tasks/", "//v1/tasks", "/health/"):
        answer = await house.client.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 404
        assert "location" not in answer.headers
