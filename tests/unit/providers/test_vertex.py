import asyncio
import json
from typing import Any

import anthropic
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.providers.base import Headers, Operation, ProviderRequest
from stationmaster.providers.conformance import events_of, whole
from stationmaster.providers.upstream import Timeouts
from stationmaster.providers.vertex import AccessTokens, ServiceAccount, VertexProvider
from stationmaster.providers.vertex.factory import provider as made
from stationmaster.providers.vertex.token import FixedToken
from tests.support.vendor_upstream import Answer, Call, VendorUpstream

MODEL = "claude-haiku-5-5@20261001"
MESSAGES = b'[{"role": "user", "content": "Say x."}]'
BODY = b'{"model": "%b", "max_tokens": 5,  "unknown": 1e2, "messages": ' + MESSAGES + b"%b}"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()


def request(
    *,
    stream: bool = False,
    operation: Operation = "messages",
    headers: Headers = (),
    model: str = MODEL,
) -> ProviderRequest:
    body = BODY % (model.encode(), b', "stream": true' if stream else b"")
    return ProviderRequest(operation, model, body, headers, stream, "beta=true")


def vertex(url: str, *, region: str = "global") -> VertexProvider:
    return VertexProvider(
        project="a-project", region=region, tokens=FixedToken("t"), base_url=f"{url}/v1"
    )


def account(url: str, *, key: str = PEM) -> ServiceAccount:
    return ServiceAccount("us@x.example", key, "key-1", "a-project", f"{url}/token")


def granting(url: str, clock: ManualClock) -> AccessTokens:
    return AccessTokens(account(url), clock=clock, timeouts=Timeouts())


async def called(asked: ProviderRequest) -> Call:
    async with VendorUpstream() as upstream:
        provider = vertex(upstream.url)
        await whole(await provider.send(asked))
        await provider.aclose()
    return upstream.calls[0]


@pytest.mark.parametrize(("stream", "verb"), [(False, "rawPredict"), (True, "streamRawPredict")])
async def test_the_same_request_as_anthropics_own_library_sends(stream: bool, verb: str) -> None:
    messages: Any = [{"role": "user", "content": "Say x."}]
    async with VendorUpstream() as upstream:
        theirs = anthropic.AsyncAnthropicVertex(
            region="global",
            project_id="a-project",
            access_token="t",
            base_url=f"{upstream.url}/v1",
            max_retries=0,
        )
        answer: Any = await theirs.messages.create(
            model=MODEL,
            max_tokens=5,
            messages=messages,
            stream=stream,
            extra_headers={"anthropic-beta": "one"},
        )
        told = [event.type async for event in answer] if stream else [answer.type]
        await theirs.messages.count_tokens(model=MODEL, messages=messages)
        await theirs.close()
        ours = vertex(upstream.url)
        sent = upstream.calls[0].json | {"model": MODEL}
        asked = json.dumps({k: v for k, v in sent.items() if k != "anthropic_version"}).encode()
        betas = (("anthropic-beta", "one"),)
        reply = await ours.send(ProviderRequest("messages", MODEL, asked, betas, stream))
        body = await whole(reply)
        counting = json.dumps({"model": MODEL, "messages": messages}).encode()
        await whole(await ours.send(ProviderRequest("count_tokens", MODEL, counting, (), False)))
        await ours.aclose()
    for one, other in zip(upstream.calls[:2], upstream.calls[2:], strict=True):
        assert one.path == other.path
        # The version is a matter of its own: theirs follows the library's release.
        assert {**one.json, "anthropic_version": 0} == {**other.json, "anthropic_version": 0}
        for name in ("content-type", "authorization"):
            assert one.headers[name] == other.headers[name]
    assert upstream.calls[2].headers["anthropic-beta"] == "one"
    assert upstream.calls[2].path.endswith(f"/models/{MODEL}:{verb}")
    assert told == [event["type"] for event in (events_of(body) if stream else [json.loads(body)])]


async def test_every_value_keeps_its_bytes_and_the_body_its_own_version() -> None:
    call = await called(request(stream=True))
    assert b'"unknown":1e2' in call.raw
    assert call.json["stream"] is True
    assert call.json["anthropic_version"] == "vertex-2023-10-16"
    assert call.query == ""
    own = request().body.replace(b'"unknown"', b'"anthropic_version": "mine", "unknown"')
    again = await called(ProviderRequest("messages", MODEL, own, (), False))
    assert again.json["anthropic_version"] == "mine"


@pytest.mark.parametrize("model", ["", "..", ".;x"])
async def test_a_model_that_would_lead_elsewhere_is_not_sent(model: str) -> None:
    with pytest.raises(Invalid):
        await vertex("http://127.0.0.1:9").send(request(model=model))


async def test_a_model_cannot_choose_another_verb_or_publisher() -> None:
    call = await called(request(model="../../google/models/x:predict?a"))
    assert call.path.endswith("/models/..%2F..%2Fgoogle%2Fmodels%2Fx%3Apredict%3Fa:rawPredict")


@pytest.mark.parametrize(
    ("status", "value", "told", "kind", "words"),
    [
        (
            404,
            {"error": {"code": 404, "message": "Not there."}},
            404,
            "not_found_error",
            "Not there.",
        ),
        (429, [{"error": {"message": "Quota."}}], 429, "rate_limit_error", "Quota."),
        (503, "what", 529, "overloaded_error", "Vertex answered 503."),
        (500, [], 500, "api_error", "Vertex answered 500."),
        (
            400,
            {"type": "error", "error": {"type": "invalid_request_error", "message": "m"}},
            400,
            "invalid_request_error",
            "m",
        ),
    ],
    ids=["google's", "a list", "neither", "empty", "anthropic's"],
)
async def test_errors_have_anthropics_shape(
    status: int, value: Any, told: int, kind: str, words: str
) -> None:
    async with VendorUpstream() as upstream:
        upstream.answers = [Answer(value, status)]
        provider = vertex(upstream.url)
        reply = await provider.send(request())
        body = json.loads(await whole(reply))
        await provider.aclose()
    assert reply.status == told
    assert body == {"type": "error", "error": {"type": kind, "message": words}}


async def test_a_refusal_does_not_name_the_project() -> None:
    async with VendorUpstream() as upstream:
        words = "Permission denied on resource projects/a-project"
        upstream.answers = [Answer({"error": {"message": words}}, 403)]
        provider = vertex(upstream.url)
        reply = await provider.send(request())
        body = await whole(reply)
        await provider.aclose()
    assert reply.status == 403
    assert b"a-project" not in body


async def test_the_service_account_states_who_it_is_and_for_how_long() -> None:
    clock = ManualClock()
    async with VendorUpstream() as upstream:
        tokens = granting(upstream.url, clock)
        assert await tokens.token() == "token-1"
        await tokens.aclose()
    (call,) = upstream.calls
    form = dict(pair.split("=") for pair in call.raw.decode().split("&"))
    assert form["grant_type"] == "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"
    claims = jwt.decode(
        form["assertion"],
        KEY.public_key(),
        ["RS256"],
        audience=f"{upstream.url}/token",
        options={"verify_exp": False, "verify_iat": False},
    )
    now = clock.now() // 1000
    assert claims["iss"] == "us@x.example"
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert (claims["iat"], claims["exp"]) == (now, now + 3600)
    assert jwt.get_unverified_header(form["assertion"])["kid"] == "key-1"


async def test_a_token_serves_until_shortly_before_its_end() -> None:
    clock = ManualClock()
    async with VendorUpstream() as upstream:
        tokens = granting(upstream.url, clock)
        first = await asyncio.gather(*(tokens.token() for _ in range(20)))
        clock.advance(3290)
        second = await tokens.token()
        clock.advance(20)
        third = await tokens.token()
        await tokens.aclose()
    assert {*first, second} == {"token-1"}
    assert third == "token-2"


async def test_an_old_token_serves_to_its_end_where_no_new_one_comes() -> None:
    clock = ManualClock()
    async with VendorUpstream() as upstream:
        tokens = granting(upstream.url, clock)
        await tokens.token()
        upstream.answers = [Answer({"error": "us@x.example is gone"}, 400)] * 2
        clock.advance(3400)
        assert await tokens.token() == "token-1"
        clock.advance(300)
        with pytest.raises(Upstream) as caught:
            await tokens.token()
        await tokens.aclose()
    assert "us@x.example" not in str(caught.value)


async def test_a_token_that_is_not_taken_is_asked_for_anew() -> None:
    async with VendorUpstream() as upstream:
        provider = VertexProvider(
            project="p",
            region="global",
            tokens=granting(upstream.url, ManualClock()),
            base_url=f"{upstream.url}/v1",
        )
        grant = Answer({"access_token": "old", "expires_in": 3600})
        upstream.answers = [grant, Answer({}, 401)]
        statuses = []
        for _ in range(2):
            reply = await provider.send(request())
            await whole(reply)
            statuses.append(reply.status)
        await provider.aclose()
    assert statuses == [401, 200]
    sent = [call.headers.get("authorization") for call in upstream.calls]
    assert sent == [None, "Bearer old", None, "Bearer token-2"]


def test_a_key_that_cannot_sign_is_refused_at_once() -> None:
    for key in ("no key", PEM[:200]):
        with pytest.raises(Invalid) as caught:
            AccessTokens(
                account("http://x.example", key=key), clock=ManualClock(), timeouts=Timeouts()
            )
        assert key not in str(caught.value)


def test_the_key_is_not_shown() -> None:
    assert PEM[60:90] not in repr(account("http://x.example"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"region": "global", "project": "p"}, "service_account"),
        (
            {"region": "global", "project": "p", "access_token": "t", "service_account": "{}"},
            "service_account",
        ),
        ({"region": "global", "service_account": '{"private_key": "SECRET"'}, "service_account"),
        ({"region": "global", "access_token": "t"}, "project"),
        ({"region": "evil.com/", "project": "p", "access_token": "t"}, "region"),
        ({"region": "global", "projcet": "p"}, "projcet"),
        ({"region": "global", "project": "p", "access_token": "SECRET\n"}, "access_token"),
    ],
)
def test_options_without_sense_are_refused_by_name(options: dict[str, object], named: str) -> None:
    with pytest.raises(Invalid, match=named) as caught:
        made("vertex", options, Timeouts())
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("us-east5", "us-east5-aiplatform.googleapis.com"),
    ],
)
def test_a_region_has_its_host_and_the_account_its_project(region: str, host: str) -> None:
    key_file = json.dumps(
        {
            "type": "service_account",
            "project_id": "a-project",
            "private_key": PEM,
            "client_email": "us@x.example",
        }
    )
    provider = made("v", {"region": region, "service_account": key_file}, Timeouts())
    assert provider._endpoint.authority == host
    assert "/projects/a-project/" in provider._models
