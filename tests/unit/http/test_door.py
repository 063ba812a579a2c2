"""The door: proxies, hosts, TLS, other origins."""

import ipaddress
from typing import Any

import pytest

from stationmaster.http.hosts import Hosts
from stationmaster.http.proxies import Proxies
from stationmaster.http.security import MAX_URL, Door, DoorOptions
from stationmaster.http.wire.exchange import Message, Receive, Scope, Send
from stationmaster.kernel import origin
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.origin import Origin

PAGE = "https://page.example"


def scope_of(*headers: tuple[str, str], **changes: Any) -> Scope:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/things",
        "raw_path": b"/v1/things",
        "query_string": b"",
        "client": ("192.0.2.1", 1234),
        "headers": raw,
        "state": {"request_id": "req_1"},
        **changes,
    }


class House:
    """A door with an app behind it that says what it was given."""

    def __init__(self, status: int = 200, **options: Any) -> None:
        self.seen: list[tuple[Scope, Origin]] = []
        self.refused: list[tuple[Origin, int]] = []
        self._status = status
        self._door = Door(
            self._app,
            DoorOptions(**options),
            render=lambda scope, error, request_id: (400, [], error.error_code.encode()),  # type: ignore[attr-defined]
            refused=lambda here, status, scope: self.refused.append((here, status)),
        )

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append((scope, origin.current()))
        headers = [(b"vary", b"accept")] if scope["path"] == "/varies" else []
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": b"in"})

    async def ask(
        self, *headers: tuple[str, str], **changes: Any
    ) -> tuple[int, dict[str, str], bytes]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        await self._door(scope_of(*headers, **changes), receive, send)
        names = [name.decode() for name, _ in sent[0].get("headers", [])]
        assert len(names) == len(set(names)), names
        found = {n.decode(): v.decode() for n, v in sent[0].get("headers", [])}
        status = sent[0].get("status", 0) or int(sent[0]["code"])
        return status, found, b"".join(m.get("body", b"") for m in sent)


HOST = ("host", "station.example")


# --- who it comes from ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::9]:443", "2001:db8::9"),
        ("10.0.0.1", "2001:db8::9", "2001:db8::9"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", ", ".join(["10.0.0.9"] * 1000 + ["203.0.113.9"]), "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9" + ", 10.0.0.9" * 1000, "10.0.0.9"),
    ],
)
def test_a_forwarded_address_is_believed_from_our_proxies_alone(
    peer: str, forwarded: str, client: str
) -> None:
    scope = scope_of(("x-forwarded-for", forwarded), client=(peer, 1))
    Proxies([ipaddress.ip_network("10.0.0.0/8")]).apply(scope)
    assert scope["client"][0] == client


def test_every_line_of_the_header_counts_and_the_last_is_the_nearest() -> None:
    scope = scope_of(
        ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9"), client=("10.0.0.1", 1)
    )
    Proxies([ipaddress.ip_network("10.0.0.0/8")]).apply(scope)
    assert scope["client"][0] == "203.0.113.9"


def test_the_other_header_is_not_believed_not_even_from_our_proxies() -> None:
    """A proxy that writes the one passes on what its client wrote in the other."""
    both = ("forwarded", "for=6.6.6.6;proto=https"), ("x-forwarded-for", "203.0.113.9")
    for headers, client in ((both, "203.0.113.9"), (both[:1], "10.0.0.1")):
        scope = scope_of(*headers, client=("10.0.0.1", 1))
        Proxies([ipaddress.ip_network("10.0.0.0/8")]).apply(scope)
        assert (scope["client"][0], scope["scheme"]) == (client, "http")


@pytest.mark.parametrize(
    ("peer", "proto", "kind", "scheme"),
    [
        ("10.0.0.1", "https", "http", "https"),
        ("192.0.2.1", "https", "http", "http"),
        ("10.0.0.1", "https, http", "http", "http"),
        ("10.0.0.1", "gopher", "http", "http"),
        ("10.0.0.1", "HTTPS", "websocket", "wss"),
    ],
)
def test_a_forwarded_scheme_is_believed_from_our_proxies_alone(
    peer: str, proto: str, kind: str, scheme: str
) -> None:
    scope = scope_of(("x-forwarded-proto", proto), client=(peer, 1), type=kind)
    Proxies([ipaddress.ip_network("10.0.0.0/8")]).apply(scope)
    assert scope["scheme"] == scheme


def test_a_socket_of_the_file_system_has_no_address_to_trust() -> None:
    scope = scope_of(("x-forwarded-for", "203.0.113.9"), client=None)
    Proxies([ipaddress.ip_network("0.0.0.0/0")]).apply(scope)
    assert scope["client"] is None


async def test_what_goes_on_knows_where_it_comes_from() -> None:
    house = House(trusted_proxies=[ipaddress.ip_network("10.0.0.0/8")])
    await house.ask(HOST, ("x-forwarded-for", "203.0.113.9"), client=("10.0.0.1", 1))
    ((_, here),) = house.seen
    assert (here.address, here.request_id) == ("203.0.113.9", "req_1")
    assert origin.current().address is None


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_access_is_noted(status: int) -> None:
    house = House(status)
    await house.ask(HOST)
    assert [(here.address, noted) for here, noted in house.refused] == [("192.0.2.1", status)]


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_what_is_no_refusal_is_not(status: int) -> None:
    house = House(status)
    await house.ask(HOST)
    assert house.refused == []


# --- which name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "station.example",
        "STATION.example:8443",
        "a.sub.example",
        "localhost:1",
        "127.0.0.1",
        "[::1]:80",
    ],
)
def test_our_names_are_let_in(host: str) -> None:
    Hosts(["station.example", "*.sub.example"]).check([(b"host", host.encode())])


@pytest.mark.parametrize(
    ("hosts", "code"),
    [
        (["evil.example"], "unknown_host"),
        (["station.example.evil.example"], "unknown_host"),
        (["evilsub.example"], "unknown_host"),
        (["sub.example"], "unknown_host"),
        ([], "invalid_host"),
        (["station.example", "station.example"], "invalid_host"),
        ([""], "invalid_host"),
        (["station.example/../x"], "invalid_host"),
        (["station.example?x"], "invalid_host"),
        (["a@station.example"], "invalid_host"),
        (["station.example:port"], "invalid_host"),
        (["station.example:123456"], "invalid_host"),
        (["station.example#"], "invalid_host"),
        (["stat\xefon.example"], "invalid_host"),
    ],
)
def test_other_names_are_refused(hosts: list[str], code: str) -> None:
    headers = [(b"host", host.encode("latin-1")) for host in hosts]
    with pytest.raises(Invalid) as refused:
        Hosts(["station.example", "*.sub.example"]).check(headers)
    assert refused.value.error_code == code


async def test_a_malformed_host_is_refused_even_where_any_is_allowed() -> None:
    house = House()
    for host in ("a/b", "a?b", "a@b", "a b"):
        status, _, body = await house.ask(("host", host))
        assert (status, body) == (400, b"invalid_host")
    assert house.seen == []


async def test_probes_are_asked_by_any_name() -> None:
    house = House(allowed_hosts=["station.example"], https_redirect=True)
    for path in ("/health", "/live", "/ready", "/metrics"):
        assert (await house.ask(("host", "10.1.2.3:8080"), path=path))[0] == 200
    assert (await house.ask(("host", "10.1.2.3:8080")))[0] == 400


async def test_a_long_url_is_refused() -> None:
    house = House()
    fits = b"/" + b"x" * (MAX_URL - 1)
    assert (await house.ask(HOST, raw_path=fits))[0] == 200
    status, _, body = await house.ask(HOST, raw_path=fits, query_string=b"y")
    assert (status, body) == (400, b"url_too_long")


# --- TLS --------------------------------------------------------------------------------------


async def test_plain_http_is_sent_to_tls() -> None:
    house = House(https_redirect=True)
    status, headers, _ = await house.ask(
        ("host", "station.example:8080"), raw_path=b"/v1/a%20b", query_string=b"c=d"
    )
    assert (status, headers["location"]) == (308, "https://station.example/v1/a%20b?c=d")
    status, headers, _ = await house.ask(("host", "[::1]:8080"))
    assert headers["location"] == "https://[::1]/v1/things"
    assert house.seen == []
    status, headers, _ = await house.ask(HOST, scheme="https")
    assert status == 200
    assert headers["strict-transport-security"] == "max-age=31536000"


async def test_a_redirect_may_lead_to_another_port() -> None:
    house = House(https_redirect=True, https_port=8443)
    _, headers, _ = await house.ask(("host", "station.example:8080"))
    assert headers["location"] == "https://station.example:8443/v1/things"


async def test_a_socket_in_plain_text_is_refused_where_tls_is_asked_for() -> None:
    house = House(https_redirect=True)
    status, _, _ = await house.ask(HOST, type="websocket", scheme="ws")
    assert status == 1008
    assert house.seen == []


async def test_plain_http_says_nothing_of_tls() -> None:
    _, headers, _ = await House().ask(HOST)
    assert headers == {}


# --- other origins ----------------------------------------------------------------------------


async def test_a_listed_origin_may_use_the_api_with_credentials() -> None:
    house = House(cors_origins=[PAGE])
    status, headers, _ = await house.ask(HOST, ("origin", PAGE))
    assert status == 200
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["vary"] == "origin"
    _, headers, _ = await house.ask(HOST, ("origin", PAGE), path="/varies")
    assert headers["vary"] == "accept, origin"


@pytest.mark.parametrize(
    "other",
    [
        "https://evil.example",
        "http://page.example",
        "https://page.example:444",
        "null",
        "",
        "*",
        "https://page.example.evil.example",
        "https://PAGE.example",
    ],
)
async def test_any_other_origin_is_told_nothing(other: str) -> None:
    house = House(cors_origins=[PAGE])
    for headers in ([("origin", other)], [("origin", PAGE), ("origin", other)]):
        _, answer, _ = await house.ask(HOST, *headers)
        assert not [name for name in answer if name.startswith("access-control")]
        assert answer["vary"] == "origin"


async def test_errors_can_be_read_by_a_listed_origin_too() -> None:
    house = House(401, cors_origins=[PAGE])
    status, headers, _ = await house.ask(HOST, ("origin", PAGE))
    assert (status, headers["access-control-allow-origin"]) == (401, PAGE)
    status, headers, _ = await house.ask(("host", "a b"), ("origin", PAGE))
    assert (status, headers["access-control-allow-origin"]) == (400, PAGE)


async def test_a_question_before_a_request_needs_no_credential() -> None:
    house = House(401, cors_origins=[PAGE])
    asked = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-stainless-os"),
    ]
    status, headers, _ = await house.ask(HOST, ("origin", PAGE), *asked, method="OPTIONS")
    assert status == 204
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert "DELETE" in headers["access-control-allow-methods"]
    status, headers, _ = await house.ask(
        HOST, ("origin", "https://evil.example"), *asked, method="OPTIONS"
    )
    assert (status, headers) == (204, {"vary": "origin"})
    assert house.seen == []
    await house.ask(HOST, method="OPTIONS")
    assert len(house.seen) == 1


async def test_asked_headers_that_are_none_are_not_repeated() -> None:
    house = House(cors_origins=[PAGE])
    _, headers, _ = await house.ask(
        HOST,
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "a b: c"),
        method="OPTIONS",
    )
    assert "access-control-allow-headers" not in headers


@pytest.mark.parametrize(
    ("origins", "status"),
    [
        ([], 200),
        ([PAGE], 200),
        (["http://station.example"], 200),
        (["https://station.example"], 200),
        (["https://evil.example"], 1008),
        (["https://station.example.evil.example"], 1008),
        (["https://station.example:444"], 1008),
        (["null"], 1008),
        ([""], 1008),
        ([PAGE, "https://evil.example"], 1008),
    ],
)
async def test_a_page_opens_a_socket_where_it_is_listed_or_ours(
    origins: list[str], status: int
) -> None:
    house = House(cors_origins=[PAGE])
    headers = [("origin", name) for name in origins]
    found, _, _ = await house.ask(HOST, *headers, type="websocket", scheme="ws")
    assert found == status
    assert len(house.seen) == (status == 200)


async def test_without_a_list_no_origin_is_allowed() -> None:
    _, headers, _ = await House().ask(HOST, ("origin", PAGE))
    assert headers == {}
