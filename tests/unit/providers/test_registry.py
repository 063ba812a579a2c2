import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.providers.anthropic import AnthropicProvider
from stationmaster.providers.conformance import Subject, whole
from stationmaster.providers.members import read_members, reshaped
from stationmaster.providers.offline import OfflineProvider
from stationmaster.providers.openai.factory import provider as openai_provider
from stationmaster.providers.registry import GROUP, OURS, kinds, make
from stationmaster.providers.upstream import Timeouts
from tests.support.certificates import authority, server_context
from tests.support.raw_upstream import RawUpstream, writes

OPTIONS: dict[str, dict[str, object]] = {
    "anthropic": {"api_key": "k"},
    "bedrock": {"region": "us-east-1", "api_key": "k"},
    "offline": {},
    "ollama": {},
    "openai": {},
    "vertex": {"region": "global", "project": "p", "access_token": "t"},
}

PLUGIN = """
from stationmaster.providers.offline import OfflineProvider

def provider(name, options, timeouts):
    if options.get("fail"):
        raise RuntimeError("the moon is full")
    return OfflineProvider(delay=0, name=name)

def half(name, options, timeouts):
    return object()

nothing = 3
"""


class Site:
    """A directory of installed packages."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def install(self, package: str, points: dict[str, str]) -> None:
        info = self._path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{kind} = {value}" for kind, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "a_plugin.py").write_text(PLUGIN)
    (tmp_path / "a_broken_plugin.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    yield Site(tmp_path)
    for name in ("a_plugin", "a_broken_plugin"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("kind", sorted(OURS))
def test_each_of_ours_can_be_made_under_any_name(kind: str) -> None:
    provider = make(kind, "mine", OPTIONS[kind], Timeouts())
    assert provider.name == "mine"
    assert provider.operations


def test_there_are_options_for_each_of_ours() -> None:
    assert set(OPTIONS) == set(OURS) == set(kinds())


@pytest.mark.parametrize("kind", sorted(OURS))
def test_an_unknown_option_is_refused_by_its_name_and_the_providers(kind: str) -> None:
    with pytest.raises(Invalid, match=f"mine.*{kind}.*bogus"):
        make(kind, "mine", {**OPTIONS[kind], "bogus": 1}, Timeouts())


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(Invalid, match=r"'mine'.*'opneai'.*anthropic, bedrock"):
        make("opneai", "mine", {}, Timeouts())


async def test_another_package_brings_a_kind(site: Site) -> None:
    site.install("a-plugin", {"other": "a_plugin:provider"})
    assert "other" in kinds()
    provider = make("other", "mine", {}, Timeouts())
    subject = Subject(provider)
    assert b"signal" in await whole(await provider.send(subject.request()))


def test_another_package_cannot_take_the_place_of_ours(site: Site) -> None:
    site.install("a-plugin", {"anthropic": "a_plugin:provider"})
    assert isinstance(make("anthropic", "a", {"api_key": "k"}, Timeouts()), AnthropicProvider)
    assert isinstance(make("offline", "o", {}, Timeouts()), OfflineProvider)


@pytest.mark.parametrize(
    ("target", "options", "why"),
    [
        ("a_broken_plugin:provider", {}, "other.*a-plugin 1.0.*no_such_library"),
        ("no_such_module:provider", {}, "other.*a-plugin 1.0.*no_such_module"),
        ("a_plugin:missing", {}, "other.*a-plugin 1.0.*missing"),
        ("a_plugin:nothing", {}, "other.*not a factory"),
        ("a_plugin:half", {}, "other.*has no 'name'"),
        ("a_plugin:provider", {"fail": True}, "other.*the moon is full"),
    ],
    ids=["import", "module", "member", "number", "half", "raises"],
)
def test_a_broken_plugin_says_which_and_why(
    site: Site, target: str, options: dict[str, object], why: str
) -> None:
    site.install("a-plugin", {"other": target})
    with pytest.raises(Invalid, match=why):
        make("other", "mine", options, Timeouts())


def test_two_packages_with_one_kind_are_refused_by_name(site: Site) -> None:
    site.install("a-plugin", {"other": "a_plugin:provider"})
    site.install("b-plugin", {"other": "a_plugin:provider"})
    with pytest.raises(Invalid, match=r"a-plugin 1\.0, b-plugin 1\.0"):
        make("other", "mine", {}, Timeouts())


def test_members_keep_their_bytes_and_their_order() -> None:
    raw = b'{ "b" : 1e2 , "a":"\\u00fc", "c": {"x" :  [1,\n2]} }'
    changed = reshaped(read_members(raw), without=("a",), defaults={"v": "1", "b": 3})
    assert changed == b'{"v":"1","b":1e2,"c":{"x" :  [1,\n2]}}'


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "not"])
async def test_an_upstream_with_a_certificate_of_the_operators_own(
    trusted: bool, tmp_path: Path
) -> None:
    body = b'{"data": [{"id": "m"}]}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with RawUpstream(writes(answer), tls=server_context(tmp_path)) as upstream:
        options: dict[str, object] = {"base_url": upstream.url}
        if trusted:
            options["ca_file"] = str(authority(tmp_path))
        provider = openai_provider("house", options, Timeouts())
        if trusted:
            assert await provider.models() == ("m",)
        else:
            with pytest.raises(Upstream):
                await provider.models()
        await provider.aclose()
