import json
from typing import Any

import openai
import pytest

from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.providers.anthropic import AnthropicProvider
from stationmaster.providers.base import Headers, Operation, ProviderRequest
from stationmaster.providers.conformance import whole
from stationmaster.providers.openai import OpenAIProvider
from stationmaster.providers.openai.factory import provider as made
from stationmaster.providers.upstream import Timeouts
from tests.support.vendor_upstream import MODEL, Answer, Call, VendorUpstream

BODY = b'{"model": "m",  "unknown": 1e2, "messages": []}'
CLIENT: Headers = (
    ("Content-Type", "application/json; charset=utf-8"),
    ("User-Agent", "client/1"),
    ("OpenAI-Beta", "assistants=v2"),
    ("Authorization", "Bearer of-the-client"),
    ("OpenAI-Organization", "of-the-client"),
    ("OpenAI-Project", "of-the-client"),
    ("anthropic-beta", "of-the-client"),
)


def asking(
    operation: Operation = "chat", *, model: str = "m", headers: Headers = CLIENT
) -> ProviderRequest:
    return ProviderRequest(operation, model, BODY, headers, False, "api-version=of-the-client")


async def sent(options: dict[str, object], request: ProviderRequest | None = None) -> Call:
    """What the upstream is asked. `URL` in the base URL is its own."""
    async with VendorUpstream() as upstream:
        given = {"base_url": f"{upstream.url}/v1", **options}
        given["base_url"] = str(given["base_url"]).replace("URL", upstream.url)
        provider = made("name", given, Timeouts())
        upstream.answers = [Answer({})]
        await whole(await provider.send(request or asking()))
        await provider.aclose()
    return upstream.calls[0]


async def test_the_body_goes_out_byte_for_byte_with_the_servers_own_key() -> None:
    call = await sent({"api_key": "sk-upstream"})
    assert call.raw == BODY
    assert (call.path, call.query) == ("/v1/chat/completions", "")
    assert call.headers["authorization"] == "Bearer sk-upstream"
    assert call.headers["content-type"] == "application/json; charset=utf-8"
    assert call.headers["user-agent"] == "client/1"
    assert call.headers["openai-beta"] == "assistants=v2"
    assert "of-the-client" not in str(call.headers)


async def test_no_key_is_no_header() -> None:
    call = await sent({}, asking(headers=()))
    assert "authorization" not in call.headers
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"] == "stationmaster"


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("chat", "/v1/chat/completions"),
        ("embeddings", "/v1/embeddings"),
        ("responses", "/v1/responses"),
    ],
)
async def test_each_operation_has_its_path(operation: Operation, path: str) -> None:
    assert (await sent({}, asking(operation))).path == path


async def test_azure_names_the_deployment_in_the_path_and_the_version_in_the_query() -> None:
    options: dict[str, object] = {
        "base_url": "URL/openai",
        "api_key": "azure-key",
        "auth": "api-key",
        "deployments": True,
        "api_version": "2024-10-21",
    }
    call = await sent(options, asking(model="my gpt/4"))
    assert call.path == "/openai/deployments/my%20gpt%2F4/chat/completions"
    assert call.query == "api-version=2024-10-21"
    assert call.headers["api-key"] == "azure-key"
    assert "authorization" not in call.headers


@pytest.mark.parametrize("model", ["", ".", ".."])
async def test_a_model_that_would_lead_elsewhere_is_not_sent(model: str) -> None:
    provider = OpenAIProvider(base_url="http://127.0.0.1:9", deployments=True)
    with pytest.raises(Invalid):
        await provider.send(asking(model=model))


async def test_headers_of_the_operator_go_with_every_call_and_count_once() -> None:
    extra = {"X-Title": "Stationmaster", "User-Agent": "ours", "Authorization": "Basic abc"}
    call = await sent({"headers": extra})
    assert call.headers["x-title"] == "Stationmaster"
    assert call.headers["user-agent"] == "ours"
    assert call.headers["authorization"] == "Basic abc"


async def test_what_tells_the_account_stays_here() -> None:
    async with VendorUpstream() as upstream:
        provider = OpenAIProvider(base_url=f"{upstream.url}/v1")
        told = {"openai-organization": "ours", "openai-project": "p", "x-request-id": "r"}
        upstream.answers = [Answer({}, headers=told)]
        reply = await provider.send(asking())
        await whole(reply)
        await provider.aclose()
    names = {name for name, _ in reply.headers}
    assert "request-id" in names
    assert not names & {"openai-organization", "openai-project"}


async def test_openais_own_library_reads_what_passes() -> None:
    """Its request passes through, and its answer comes back, as if nobody stood between."""
    async with VendorUpstream() as upstream:
        client = openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k")
        messages: Any = [{"role": "user", "content": "Say x."}]
        direct = await client.chat.completions.create(model=MODEL, messages=messages)
        await client.close()
        provider = OpenAIProvider(base_url=f"{upstream.url}/v1")
        request = ProviderRequest("chat", MODEL, upstream.calls[0].raw, (), False)
        passed = await whole(await provider.send(request))
        await provider.aclose()
    assert json.loads(passed) == direct.to_dict()


@pytest.mark.parametrize(
    "answer",
    [Answer({"data": {}}), Answer("no"), Answer({"data": [{"id": "m"}]}, 401)],
    ids=["shape", "text", "refused"],
)
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_models_that_are_not_listed_are_an_upstream_error(kind: str, answer: Answer) -> None:
    async with VendorUpstream() as upstream:
        upstream.answers = [answer]
        provider = (
            OpenAIProvider(base_url=f"{upstream.url}/v1")
            if kind == "openai"
            else AnthropicProvider(base_url=upstream.url, api_key="k")
        )
        with pytest.raises(Upstream):
            await provider.models()
        await provider.aclose()


async def test_a_list_of_models_without_an_end_is_not_read_to_it() -> None:
    async with VendorUpstream() as upstream:
        upstream.answers = [Answer(frames=[b" " * (1024 * 1024)] * 100)]
        provider = OpenAIProvider(base_url=f"{upstream.url}/v1")
        with pytest.raises(Upstream, match="too large"):
            await provider.models()
        await upstream.closed()
        await provider.aclose()


async def test_anthropics_models_are_listed_with_its_key_and_version() -> None:
    async with VendorUpstream() as upstream:
        provider = AnthropicProvider(base_url=upstream.url, api_key="k")
        assert await provider.models() == (MODEL,)
        await provider.aclose()
    (call,) = upstream.calls
    assert (call.method, call.path, call.query) == ("GET", "/v1/models", "limit=1000")
    assert call.headers["x-api-key"] == "k"
    assert call.headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"api_kye": "k"}, "api_kye"),
        ({"auth": "basic"}, "auth"),
        ({"operations": []}, "operations"),
        ({"operations": ["messages"]}, "operations"),
        ({"headers": {"Content-Length": "1"}}, "content-length"),
        ({"headers": {"Host": "x"}}, "host"),
        ({"headers": {"x-a": "b\r\nx-c: d"}}, "characters"),
        ({"headers": {"x a": "b"}}, "characters"),
        ({"api_key": "SECRET\n"}, "characters"),
        ({"base_url": "https://host/?a=b"}, "URL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_without_sense_are_refused_by_name(options: dict[str, object], named: str) -> None:
    with pytest.raises(Invalid, match=named) as caught:
        made("openai", options, Timeouts())
    assert "SECRET" not in str(caught.value)


def test_options_make_a_provider() -> None:
    provider = made("vllm", {"operations": ["chat", "responses"]}, Timeouts())
    assert provider.name == "vllm"
    assert provider.operations == {"chat", "responses"}
    assert provider._endpoint.authority == "api.openai.com"
