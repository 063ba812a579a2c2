"""The door of a real server: origins, names, proxies, TLS."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest

from tests.http.conftest import House, Open
from tests.support.certificates import authority, server_context
from tests.support.identity_provider import free_port

PAGE = "https://page.example"
ENTRANCE = ("request-id", "x-content-type-options", "content-security-policy")


async def test_a_listed_page_may_use_every_kind_of_route(open_house: Open) -> None:
    async with open_house(BACKEND_CORS_ORIGINS=f'["{PAGE}"]') as house:
        for path in ("/v1/tasks", "/v1/messages", "/v1/agents", "/health", "/nothing"):
            asked = {
                "origin": PAGE,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization",
            }
            answer = await house.client.options(path, headers={**asked, **house.as_key(None)})
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == PAGE
            answer = await house.client.get(path, headers={"origin": PAGE})
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["access-control-allow-credentials"] == "true"
            for name in ENTRANCE:
                assert name in answer.headers
            answer = await house.client.get(path, headers={"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in answer.headers


async def test_no_page_may_by_default(house: House) -> None:
    answer = await house.client.get("/v1/tasks", headers={"origin": PAGE})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/v1/tasks", "application/problem+json"), ("/v1/messages", "application/json")],
)
async def test_another_name_is_refused_in_the_routes_own_shape(
    open_house: Open, path: str, media_type: str
) -> None:
    async with open_house(ALLOWED_HOSTS="station.example") as house:
        answer = await house.client.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 400
        assert answer.headers["content-type"] == media_type
        assert len(answer.headers.get_list("content-length")) == 1
        for name in ENTRANCE:
            assert name in answer.headers
        assert (await house.client.get("/v1/tasks")).status_code == 200  # loopback
        answer = await house.client.get("/v1/tasks", headers={"host": "station.example"})
        assert answer.status_code == 200


async def test_a_forwarded_address_is_what_the_record_says(open_house: Open) -> None:
    headers = {"x-forwarded-for": "6.6.6.6, 203.0.113.9"}
    async with open_house() as house:
        await house.client.post("/api/admin/keys", json={"name": "one"}, headers=headers)
        found = (await house.client.get("/v1/audit", params={"action": "key.create"})).json()
        assert found["entries"][0]["address"] == "127.0.0.1"
    async with open_house(TRUSTED_PROXIES="127.0.0.1") as house:
        await house.client.post("/api/admin/keys", json={"name": "two"}, headers=headers)
        found = (await house.client.get("/v1/audit", params={"action": "key.create"})).json()
        assert found["entries"][0]["address"] == "203.0.113.9"


async def test_behind_a_proxy_with_tls_plain_http_is_sent_there(open_house: Open) -> None:
    async with open_house(TRUSTED_PROXIES="127.0.0.1", HTTPS_REDIRECT="true") as house:
        answer = await house.client.get("/v1/tasks?limit=1", headers={"host": "localhost"})
        assert (answer.status_code, answer.headers["location"]) == (
            308,
            "https://localhost/v1/tasks?limit=1",
        )
        answer = await house.client.get("/v1/tasks", headers={"x-forwarded-proto": "https"})
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert (await house.client.get("/health")).status_code == 200


async def test_own_tls_with_a_port_that_redirects(open_house: Open, tmp_path: Path) -> None:
    server_context(tmp_path)
    plain = free_port()
    env = {
        "SSL_CERTFILE": str(authority(tmp_path)),
        "SSL_KEYFILE": str(tmp_path / "key.pem"),
        "HTTP_REDIRECT_PORT": str(plain),
    }
    async with open_house(**env) as house:
        assert house.url.startswith("https://127.0.0.1:")
        port = house.url.rpartition(":")[2]
        context = ssl.create_default_context(cafile=str(authority(tmp_path)))
        async with httpx.AsyncClient(
            verify=context, base_url=f"https://localhost:{port}", headers=house.client.headers
        ) as client:
            answer = await client.get("/v1/tasks")
            assert answer.status_code == 200
            assert "strict-transport-security" in answer.headers
            task = await client.post("/v1/task", json={"description": "x"}, timeout=30)
            assert task.json()["status"] == "completed"
        async with httpx.AsyncClient(base_url=f"http://localhost:{plain}") as client:
            answer = await client.get("/v1/tasks")
            assert answer.status_code == 308
            assert answer.headers["location"] == f"https://localhost:{port}/v1/tasks"
            assert (await client.get("/live")).status_code == 200
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("localhost", int(port), ssl=ssl.create_default_context())


async def test_a_certificate_that_cannot_be_used_stops_the_start(
    open_house: Open, tmp_path: Path
) -> None:
    from stationmaster.bootstrap.tls import CertificateError

    env = {"SSL_CERTFILE": str(tmp_path / "no.pem"), "SSL_KEYFILE": str(tmp_path / "no.key")}
    with pytest.raises(CertificateError):
        async with open_house(**env):
            pass
