"""The owner's subscription login: the real agent, a stand-in for Anthropic, and nothing else."""

import json
import os
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from stationmaster.agents.base import LaunchSpec, Limits, LiveAgent
from stationmaster.agents.claude_code import (
    ClaudeCodeAgent,
    EgressProxy,
    OwnLogin,
    SubscriptionLogin,
)
from stationmaster.agents.claude_code.launcher import AgentProcess
from stationmaster.agents.claude_code.provider import ClaudeCodeProvider
from stationmaster.kernel.principal import ALL, Principal
from stationmaster.migrations import migrate
from stationmaster.providers.conformance import Subject, whole
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.executor import Execution, Surroundings
from stationmaster.sessions.runs.record import Run
from stationmaster.storage import open_database
from tests.support import wire_upstream as wire
from tests.support.certificates import authority, server_context
from tests.support.core import ALICE, OWNER, TIMERS, Core
from tests.support.server import ServerProcess

ADMIN = Principal("key", "key_admin", OWNER, "key_admin", frozenset({ALL}))
TOKEN = "sk-ant-oat01-canary-5d0e1f7a9c3b2846"
REFRESH = "sk-ant-ort01-canary-8b2f4c6d1e9a7350"
LOGIN: dict[str, Any] = {
    "accessToken": TOKEN,
    "refreshToken": REFRESH,
    "expiresAt": 4102444800000,  # 2100-01-01: nothing needs a refresh
    "scopes": ["user:inference", "user:profile"],
    "subscriptionType": "max",
}
_UID_BASE = 64600

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        shutil.which("bwrap") is None and os.environ.get("CI") != "true",
        reason="bubblewrap is not installed",
    ),
]


@dataclass(frozen=True)
class Trusting:
    """The real agent, which trusts the stand-in's certificate as well."""

    real: ClaudeCodeAgent
    certificate: Path
    name: str = ClaudeCodeAgent.name
    default_tools: tuple[str, ...] = ClaudeCodeAgent.default_tools
    known_tools: frozenset[str] = ClaudeCodeAgent.known_tools

    async def launch(self, spec: LaunchSpec) -> LiveAgent:
        trusted = {"NODE_EXTRA_CA_CERTS": str(self.certificate)}
        return await self.real.launch(replace(spec, add_env=trusted))

    async def reap(self) -> int:
        return await self.real.reap()

    def alive(self) -> int:
        return self.real.alive()

    async def aclose(self) -> None:
        await self.real.aclose()


@dataclass(slots=True)
class Stand:
    """The core of a server with a login, Anthropic's stand-in behind TLS, and the gateway's."""

    core: Core
    directory: Path
    anthropic: wire.WireUpstream
    gateway: wire.WireUpstream

    def execution(self, claim: Claim) -> Execution:
        core = self.core
        assert self.gateway.socket_path is not None
        seats = core.seating(
            Surroundings(self.gateway.socket_path, self.gateway.url, Limits(), owners_login=True)
        )
        return core.execution(claim, timers=TIMERS, seats=seats)

    async def carry_out(self, by: Principal, **options: Any) -> tuple[Run, list[Any]]:
        """A run of `by`, once it has ended, and its book."""
        run = await self.core.start(by=by, model="claude-sonnet-4-5", **options)
        claim = await self.core.claims.next()
        assert claim is not None
        await self.execution(claim).run()
        return await self.core.checked(run), [e.data for e in await self.core.book(run)]

    def home(self, run: Run) -> Path:
        return self.core.files.home(run.session_id)


@asynccontextmanager
async def _behind_tls(upstream: wire.WireUpstream, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve `upstream` over TLS as well; the port."""
    site = web.TCPSite(upstream.runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    yield upstream.runner.addresses[-1][1]


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    # Not below pytest's own directory, which no other user id may enter.
    top = Path(tempfile.mkdtemp(prefix="stand-")).resolve()
    trust, sockets = top / "trust", top / "s"
    for path in (trust, sockets):
        path.mkdir()
    url = f"sqlite:///{top / 'stationmaster.db'}"
    await migrate(url)
    database = open_database(url)
    context = server_context(trust, "api.anthropic.com")
    certificate = top / "public" / "authority.pem"
    certificate.parent.mkdir()
    shutil.copy(authority(trust), certificate)
    (top / "public").chmod(0o755)
    certificate.chmod(0o644)
    kept = SubscriptionLogin(
        json.dumps({"claudeAiOauth": LOGIN}), top / "state" / "subscription", learned=lambda _: None
    )
    async with (
        wire.WireUpstream() as anthropic,
        wire.WireUpstream(unix=True) as gateway,
        _behind_tls(anthropic, context) as port,
        EgressProxy(
            sockets / "egress.sock", instead={"api.anthropic.com:443": ("127.0.0.1", port)}
        ) as egress,
    ):
        real = ClaudeCodeAgent(
            state_dir=top / "state",
            sandbox="require",
            readonly_paths=[certificate.parent],
            agent_uid_base=_UID_BASE,
            own_login=OwnLogin(kept, egress.path),
        )
        core = Core(database, top / "core", agent=Trusting(real, certificate))
        await core.instances.register()
        yield Stand(core, top, anthropic, gateway)
        await real.aclose()
        assert real.alive() == 0
    await database.close()
    shutil.rmtree(top)


SNOOP = (
    "echo base=${ANTHROPIC_BASE_URL:-none} token=${ANTHROPIC_AUTH_TOKEN:-none};"
    " curl -sS -m 10 https://example.org; echo by-proxy=$?;"
    " curl -sS -m 10 --noproxy '*' https://example.org; echo directly=$?;"
    " curl -sS -m 10 -p telnet://api.anthropic.com:22 -x $HTTPS_PROXY; echo other-port=$?;"
    " cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c sk-an[t]-;"
    " cat $CLAUDE_CONFIG_DIR/.credentials.json"
)


def _results(book: list[Any]) -> str:
    return "".join(str(each["content"]) for each in book if "is_error" in each)


async def test_the_owners_run_calls_anthropic_itself_and_reaches_nothing_else(
    stand: Stand,
) -> None:
    stand.anthropic.script = wire.steps(
        wire.Reply((wire.Tool("Bash", {"command": SNOOP}),), wire.Usage(1000, 100, 20, 3)),
        wire.text("All done.", wire.Usage(500, 50)),
    )
    with capture_logs() as lines:
        run, book = await stand.carry_out(ADMIN)
    assert run.state.state == "completed", run.state.error
    assert run.state.result == "All done."
    calls = stand.anthropic.message_calls
    assert len(calls) >= 2
    assert {call.headers["Authorization"] for call in calls} == {f"Bearer {TOKEN}"}
    assert stand.gateway.calls == []

    said = _results(book)
    assert "base=none token=none" in said
    assert "CONNECT tunnel failed, response 403" in said
    assert "by-proxy=56" in said
    assert "directly=6" in said
    assert "other-port=56" in said
    assert '"accessToken": "[redacted]"' in said
    assert "other-port=56\n0\n" in said, "a token stands in a command line"
    refused = {line["host"] for line in lines if "refused" in line["event"]}
    assert refused == {"example.org:443", "api.anthropic.com:22"}
    for secret in (TOKEN, REFRESH):
        assert secret not in json.dumps(book) + str(lines)

    # The ledger has metered nothing; the agent's own word stands beside it.
    assert run.state.agent is not None
    assert run.state.agent["login"] == "subscription"
    assert (run.state.cost, run.state.model_calls) == (0, 0)
    served = stand.anthropic.served
    reported = dict(run.state.usage["reported"])
    assert reported.pop("cost") > 0
    assert reported == {
        "input_tokens": served.input_tokens,
        "output_tokens": served.output_tokens,
        "cache_write_tokens": served.cache_creation_input_tokens,
        "cache_read_tokens": served.cache_read_input_tokens,
    }
    assert not (stand.home(run) / ".claude" / ".credentials.json").exists()


async def test_a_refreshed_login_is_kept_for_the_next_run(stand: Stand) -> None:
    new = LOGIN | {"accessToken": f"{TOKEN}-2", "expiresAt": LOGIN["expiresAt"] + 1}
    login = json.dumps({"claudeAiOauth": new})
    stand.anthropic.script = wire.steps(
        wire.Reply(
            (
                wire.Tool(
                    "Bash",
                    {"command": f"echo '{login}' > $CLAUDE_CONFIG_DIR/.credentials.json"},
                ),
            )
        ),
        wire.text("Refreshed."),
    )
    first, _ = await stand.carry_out(ADMIN)
    assert first.state.state == "completed", first.state.error
    kept = stand.directory / "state" / "subscription" / "credentials.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700

    before = len(stand.anthropic.calls)
    stand.anthropic.script = wire.fixed(wire.text("Again."))
    second, _ = await stand.carry_out(ADMIN)
    assert second.state.state == "completed", second.state.error
    used = {call.headers["Authorization"] for call in stand.anthropic.calls[before:]}
    assert used == {f"Bearer {TOKEN}-2"}


async def test_everybody_elses_run_goes_through_the_gateway(stand: Stand) -> None:
    look = "ls -a $CLAUDE_CONFIG_DIR; grep -rc canary $HOME | grep -v ':0'; echo proxy=$HTTPS_PROXY"
    stand.gateway.script = wire.steps(
        wire.Reply((wire.Tool("Bash", {"command": look}),)), wire.text("Through the gateway.")
    )
    run, book = await stand.carry_out(ALICE)
    assert run.state.state == "completed", run.state.error
    assert run.state.result == "Through the gateway."
    assert run.state.agent is not None
    assert run.state.agent["login"] == "gateway"
    assert "reported" not in run.state.usage
    assert stand.anthropic.calls == []
    said = _results(book)
    assert "proxy=\n" in said + "\n"
    assert ".credentials.json" not in said
    assert all(TOKEN not in str(call.headers) for call in stand.gateway.calls)


async def test_the_budget_is_given_to_the_agent_as_far_as_it_keeps_it(stand: Stand) -> None:
    stand.anthropic.script = wire.steps(
        wire.Reply((wire.Tool("Bash", {"command": "echo on"}),), wire.Usage(1000, 1000)),
        wire.text("Never said."),
    )
    run, _ = await stand.carry_out(ADMIN, max_cost=1000)
    assert run.state.state == "cost_exceeded", run.state.error
    assert run.state.error is not None
    assert run.state.error["code"] == "budget_exceeded"
    assert run.state.usage["reported"]["cost"] > 1000


async def test_a_server_with_a_login_says_what_that_means(tmp_path: Path) -> None:
    env = {"CLAUDE_CODE_CREDENTIALS_JSON": json.dumps({"claudeAiOauth": LOGIN})}
    async with ServerProcess(tmp_path, env) as server:
        made = await server.client.post("/api/admin/keys", json={"name": "somebody-else"})
        assert made.status_code == 201, made.text
        task = await server.client.post(
            "/v1/task",
            json={"description": "Write a program."},
            headers={"authorization": f"Bearer {made.json()['key']}"},
        )
        assert task.json()["status"] == "completed", task.text
        assert task.json()["usage"]["reported"] is None
        assert await server.stop() == 0
        assert "do not allow serving others" in server.output
        assert "sk-ant-" not in server.output


async def test_a_server_that_cannot_confine_it_does_not_start(tmp_path: Path) -> None:
    env = {
        "CLAUDE_CODE_CREDENTIALS_JSON": json.dumps({"claudeAiOauth": LOGIN}),
        "SANDBOX": "off",
    }
    server = ServerProcess(tmp_path, env)
    with pytest.raises(AssertionError):
        await server.start()
    await server.client.aclose()
    assert "full sandbox alone" in server.output
    assert "sk-ant-" not in server.output


async def test_a_model_call_by_the_login_goes_the_same_way_and_leaves_nothing(
    stand: Stand,
) -> None:
    told = wire.Reply((wire.Text("Here it is: lantern."),), wire.Usage(40, 20))
    stand.anthropic.script = lambda _: told
    trusting = stand.core.agent
    assert isinstance(trusting, Trusting)

    def asked(spec: LaunchSpec, words: Sequence[str]) -> AbstractAsyncContextManager[AgentProcess]:
        trusted = {**spec.add_env, "NODE_EXTRA_CA_CERTS": str(trusting.certificate)}
        return trusting.real.asked(replace(spec, add_env=trusted), words)

    provider = ClaudeCodeProvider(asked, directory=stand.directory / "calls")
    subject = Subject(provider)
    message = json.loads(await subject.asked(subject.request("lantern")))
    assert message["content"] == [{"type": "text", "text": "Here it is: lantern."}]
    assert message["usage"]["output_tokens"] == 20
    (call,) = stand.anthropic.message_calls
    assert call.headers["Authorization"] == f"Bearer {TOKEN}"
    assert stand.gateway.calls == []
    await provider.aclose()
    assert trusting.real.alive() == 0
    assert list((stand.directory / "calls").iterdir()) == []


async def test_a_model_call_by_the_login_never_tells_the_login(stand: Stand) -> None:
    """Not to the model, not in an answer, not in an error, not on a command line."""
    trusting = stand.core.agent
    assert isinstance(trusting, Trusting)
    said: list[Sequence[str]] = []

    def asked(spec: LaunchSpec, words: Sequence[str]) -> AbstractAsyncContextManager[AgentProcess]:
        said.append(words)
        trusted = {**spec.add_env, "NODE_EXTRA_CA_CERTS": str(trusting.certificate)}
        return trusting.real.asked(replace(spec, add_env=trusted), words)

    def repeat(request: dict[str, Any]) -> wire.Reply:
        if "refuse" in json.dumps(request["messages"]):
            return wire.Reply(status=401, message=f"The token {TOKEN} is not valid.")
        return wire.Reply((wire.Text(json.dumps(request["messages"])),), wire.Usage(40, 20))

    stand.anthropic.script = repeat
    provider = ClaudeCodeProvider(asked, directory=stand.directory / "calls")
    subject = Subject(provider)
    file = "~/.claude/.credentials.json"
    with capture_logs() as lines:
        told = b"".join(
            [
                await subject.asked(subject.request(f"this: @{file} @../home/.claude/{file[10:]}")),
                await whole(await provider.send(subject.request("refuse"))),
            ]
        )
    assert b".credentials.json" in told
    for secret in (TOKEN, REFRESH):
        assert secret not in told.decode() + str(lines) + str(said)
        assert all(secret not in json.dumps(call.body) for call in stand.anthropic.calls)
    await provider.aclose()
