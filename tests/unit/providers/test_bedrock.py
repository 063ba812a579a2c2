import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.providers.base import Headers, Operation, ProviderRequest
from stationmaster.providers.bedrock import BedrockProvider, Credentials
from stationmaster.providers.bedrock.answers import MessageStream
from stationmaster.providers.bedrock.event_stream import EventStream
from stationmaster.providers.bedrock.factory import provider as made
from stationmaster.providers.conformance import events_of, whole
from stationmaster.providers.upstream import Timeouts
from tests.support import vendor_answers as wire
from tests.support.vendor_upstream import Answer, Call, VendorUpstream

MODEL = "us.anthropic.claude-haiku-5-5-v1:0"
MESSAGES = b'[{"role": "user",\n"content": "Say x."}]'
BODY = b'{"model": "%b", "max_tokens": 5,  "unknown": 1e2, "messages": ' + MESSAGES + b"%b}"
KEYS = Credentials("AKIDEXAMPLE", "secret", "session")


def request(
    *,
    stream: bool = False,
    operation: Operation = "messages",
    headers: Headers = (),
    model: str = MODEL,
) -> ProviderRequest:
    body = BODY % (model.encode(), b', "stream": true' if stream else b"")
    return ProviderRequest(operation, model, body, headers, stream, "beta=true")


def bedrock(url: str, credentials: Credentials | str = KEYS) -> BedrockProvider:
    return BedrockProvider(
        region="us-east-1", credentials=credentials, base_url=url, clock=ManualClock()
    )


async def called(asked: ProviderRequest, credentials: Credentials | str = KEYS) -> Call:
    async with VendorUpstream() as upstream:
        provider = bedrock(upstream.url, credentials)
        await whole(await provider.send(asked))
        await provider.aclose()
    return upstream.calls[0]


async def answered(answer: Answer, *, stream: bool = True) -> tuple[int, bytes]:
    async with VendorUpstream() as upstream:
        upstream.answers = [answer]
        provider = bedrock(upstream.url)
        reply = await provider.send(request(stream=stream))
        body = await whole(reply)
        await provider.aclose()
    return reply.status, body


async def test_the_model_goes_into_the_path_and_every_other_value_keeps_its_bytes() -> None:
    betas = (("anthropic-beta", "one, two"), ("Anthropic-Beta", "three"))
    call = await called(request(stream=True, headers=betas))
    assert call.path == f"/model/{MODEL}/invoke-with-response-stream"
    assert call.query == ""
    assert set(call.json) == {
        "anthropic_version",
        "anthropic_beta",
        "max_tokens",
        "unknown",
        "messages",
    }
    assert call.json["anthropic_version"] == "bedrock-2023-05-31"
    assert call.json["anthropic_beta"] == ["one", "two", "three"]
    assert b'"unknown":1e2' in call.raw
    assert MESSAGES in call.raw


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_same_request_as_anthropics_own_library_sends(stream: bool) -> None:
    messages: Any = [{"role": "user", "content": "Say x."}]
    async with VendorUpstream() as upstream:
        theirs = anthropic.AsyncAnthropicBedrock(
            aws_access_key="AKIDEXAMPLE",
            aws_secret_key="secret",
            aws_session_token="session",
            aws_region="us-east-1",
            base_url=upstream.url,
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
        await theirs.close()
        ours = bedrock(upstream.url)
        sent = {"model": MODEL, "max_tokens": 5, "messages": messages, "stream": stream}
        reply = await ours.send(
            ProviderRequest(
                "messages",
                MODEL,
                json.dumps(sent).encode(),
                (("anthropic-beta", "one"),),
                stream,
            )
        )
        body = await whole(reply)
        await ours.aclose()
    one, other = upstream.calls
    assert (one.path, one.query) == (other.path, other.query)
    # The version is a matter of its own: theirs follows the library's release.
    assert {**one.json, "anthropic_version": 0} == {**other.json, "anthropic_version": 0}
    for name in ("content-type", "x-amz-security-token"):
        assert one.headers[name] == other.headers[name]
    scope = "Credential=AKIDEXAMPLE/"
    assert scope in one.headers["authorization"]
    assert scope in other.headers["authorization"]
    assert told == [event["type"] for event in (events_of(body) if stream else [json.loads(body)])]


async def test_a_key_of_bedrocks_own_is_sent_as_it_is() -> None:
    call = await called(request(), "bedrock-key")
    assert call.headers["authorization"] == "Bearer bedrock-key"
    assert "x-amz-date" not in call.headers


async def test_a_token_count_wraps_the_call_that_it_is_about() -> None:
    async with VendorUpstream() as upstream:
        provider = bedrock(upstream.url)
        asked = request(operation="count_tokens")
        body = asked.body.replace(b'"max_tokens": 5,', b"")
        counted = await whole(
            await provider.send(ProviderRequest("count_tokens", MODEL, body, (), False))
        )
        await provider.aclose()
    assert json.loads(counted) == {"input_tokens": 40}
    inner = json.loads(base64.b64decode(upstream.calls[0].json["input"]["invokeModel"]["body"]))
    assert inner["max_tokens"] == 1
    assert inner["anthropic_version"] == "bedrock-2023-05-31"
    assert "model" not in inner


@pytest.mark.parametrize("model", ["", ".", "..", "..;x", ";"])
async def test_a_model_that_would_lead_elsewhere_is_not_sent(model: str) -> None:
    provider = bedrock("http://127.0.0.1:9")
    with pytest.raises(Invalid):
        await provider.send(request(model=model))


async def test_an_arn_is_one_step_of_the_path() -> None:
    arn = "arn:aws:bedrock:us-east-1:123:application-inference-profile/ab12"
    call = await called(request(model=arn))
    assert call.path == f"/model/{arn.replace('/', '%2F')}/invoke"


@pytest.mark.parametrize("body", [b"[]", b"no", b'"x"'])
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    provider = bedrock("http://127.0.0.1:9")
    with pytest.raises(Invalid):
        await provider.send(ProviderRequest("messages", MODEL, body, (), False))


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (404, 404, "not_found_error"),
        (408, 504, "timeout_error"),
        (424, 500, "api_error"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (503, 529, "overloaded_error"),
    ],
)
async def test_errors_have_anthropics_shape(status: int, told: int, kind: str) -> None:
    for value in ({"message": "Why not."}, {"Message": "Why not."}):
        answered_status, body = await answered(Answer(value, status))
        assert answered_status == told
        error = {"type": kind, "message": "Why not."}
        assert json.loads(body) == {"type": "error", "error": error}
    _, body = await answered(Answer(["what"], status))
    assert json.loads(body)["error"]["type"] == kind


async def test_a_refused_signature_does_not_repeat_what_was_signed() -> None:
    words = "The Canonical String should have been 'x-amz-security-token:session'"
    status, body = await answered(Answer({"message": words}, 403))
    assert status == 403
    assert json.loads(body)["error"]["type"] == "permission_error"
    assert b"session" not in body


@pytest.mark.parametrize(
    ("exception", "kind"),
    [
        ("throttlingException", "rate_limit_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("modelTimeoutException", "timeout_error"),
        ("validationException", "invalid_request_error"),
        ("modelStreamErrorException", "api_error"),
        ("somethingNewException", "api_error"),
    ],
)
async def test_an_exception_in_the_stream_is_an_error_event(exception: str, kind: str) -> None:
    events = wire.message_events("m", "text")[:3]
    frames = [*wire.aws_frames(events), wire.aws_exception(exception, "Too much.")]
    _, body = await answered(Answer(frames=frames))
    *_, last = events_of(body)
    assert last == {"type": "error", "error": {"type": kind, "message": "Too much."}}


def test_an_event_with_line_breaks_stays_one_event() -> None:
    payload = base64.b64encode(b'{"type":"ping",\n\n"a":\r1}').decode()
    headers = {":event-type": "chunk", ":message-type": "event"}
    frame = wire.aws_message(headers, json.dumps({"bytes": payload}).encode())
    assert events_of(MessageStream().feed(frame)) == [{"type": "ping", "a": 1}]


def test_what_is_no_chunk_is_passed_over() -> None:
    headers = {":event-type": "somethingNew", ":message-type": "event"}
    assert MessageStream().feed(wire.aws_message(headers, b"{}")) == b""


STREAM = b"".join(wire.aws_frames(wire.message_events("m", "It is a text — ü.")))


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_cut_gives_the_same_messages(cuts: list[int]) -> None:
    def pieces() -> Iterator[bytes]:
        at = 0
        for cut in [*sorted(cuts), len(STREAM)]:
            yield STREAM[at:cut]
            at = cut

    cut_up, at_once = MessageStream(), MessageStream()
    told = b"".join(cut_up.feed(piece) for piece in pieces()) + cut_up.finish()
    assert told == at_once.feed(STREAM)


def read_whole(raw: bytes) -> None:
    stream = EventStream()
    assert all(stream.feed(raw))
    stream.finish()


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_any_wrong_byte_is_found(at: int, change: int) -> None:
    broken = bytearray(STREAM)
    broken[at] ^= change
    with pytest.raises(Upstream):
        read_whole(bytes(broken))


@given(st.binary(max_size=200))
def test_garbage_is_an_upstream_error_or_unfinished(raw: bytes) -> None:
    stream = MessageStream()
    try:
        assert stream.feed(raw) == b""
        stream.finish()
    except Upstream:
        return
    assert raw == b""


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"region": "us-east-1"}, "access_key_id"),
        ({"region": "us-east-1", "access_key_id": "a"}, "access_key_id"),
        ({"region": "us-east-1", "session_token": "a", "api_key": "k"}, "access_key_id"),
        ({"region": "evil.com/", "api_key": "k"}, "region"),
        ({"api_key": "k"}, "region"),
        ({"region": "us-east-1", "api_key": "k", "regoin": "x"}, "regoin"),
        ({"region": "us-east-1", "api_key": "k\r\nx: y"}, "key"),
        (
            {
                "region": "us-east-1",
                "access_key_id": "a",
                "secret_access_key": "b",
                "session_token": "c\r\nx: y",
            },
            "session_token",
        ),
    ],
)
def test_options_without_sense_are_refused_by_name(options: dict[str, object], named: str) -> None:
    with pytest.raises(Invalid, match=named):
        made("bedrock", options, Timeouts())


async def test_options_make_a_provider() -> None:
    options = {"region": "eu-west-1", "access_key_id": "a", "secret_access_key": "b"}
    provider = made("eu", options, Timeouts())
    assert provider.name == "eu"
    assert provider._endpoint.authority == "bedrock-runtime.eu-west-1.amazonaws.com"
