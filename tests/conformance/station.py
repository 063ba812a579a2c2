"""What every check is given: a real server, the providers behind it, and keys of three kinds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anthropic
import openai

from tests.conformance.features import AS_ANTHROPIC, PROVIDERS, Client, Provider
from tests.conformance.scenes import USAGE
from tests.conformance.upstream import Providers
from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.wire_upstream import Usage

CONFIG = """
providers:
  claude: {{type: anthropic, base_url: "{url}", api_key: sk-ant-of-the-server}}
  gpt: {{type: openai, base_url: "{url}/v1", api_key: sk-of-the-server}}
  local: {{type: ollama, base_url: "{url}"}}
  aws: {{type: bedrock, region: us-east-1, api_key_file: bedrock.key, base_url: "{url}"}}
  google: {{type: vertex, region: global, project: p, access_token: t, base_url: "{url}/vertex"}}
models:
  on-anthropic:
    targets: [{{provider: claude, model: claude-sonnet-4-5}}]
    price: {{input: 1, output: 5}}
  on-openai:
    targets: [{{provider: gpt, model: gpt-scripted}}]
    price: {{input: 1, output: 5}}
  on-ollama:
    targets: [{{provider: local, model: scripted}}]
    price: {{input: 1, output: 5}}
  on-bedrock:
    targets: [{{provider: aws, model: "anthropic.claude-sonnet-4-5-20250929-v1:0"}}]
    price: {{input: 1, output: 5}}
  on-vertex:
    targets: [{{provider: google, model: claude-sonnet-4-5@20250929}}]
    price: {{input: 1, output: 5}}
"""

# A client's own way of trying again is what is looked at, not the server's.
ENV = {"UPSTREAM_RETRIES": "0", "CIRCUIT_BREAKER_THRESHOLD": "0"}


@dataclass(frozen=True, slots=True)
class Station:
    """`poor` has a budget of nothing, `denied` no right to call models.

    One client of each vendor for all checks: to make one takes a fifth of a second.
    """

    url: str
    providers: Providers
    directory: Path
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    key: str
    poor: str
    denied: str


Cell = tuple[Client, Provider, str]
"""Who asks, which format its provider speaks, and for what."""


@dataclass(frozen=True, slots=True)
class Case:
    """One cell: who asks, by which model."""

    station: Station
    client: Client
    provider: Provider
    feature: str

    @property
    def cell(self) -> Cell:
        """Its place in the table."""
        return self.client, self.provider, self.feature

    @property
    def model(self) -> str:
        """The name of the model."""
        return f"on-{self.provider}"

    @property
    def as_anthropic(self) -> bool:
        """Whether the provider answers in Anthropic's words: signatures, counts, no vectors."""
        return self.provider in AS_ANTHROPIC

    @property
    def usage(self) -> Usage:
        """What an answer is said to have used: Ollama tells of no cache."""
        if self.provider != "ollama":
            return USAGE
        prompt = USAGE.input_tokens + USAGE.cache_creation_input_tokens
        return Usage(prompt + USAGE.cache_read_input_tokens, USAGE.output_tokens)

    @property
    def tag(self) -> str:
        """By which the providers tell this cell's calls from others."""
        return f"{self.client}-{self.provider}-{self.feature}"

    @property
    def agent(self) -> str:
        """The model's name of an agent that uses it."""
        return f"agent:by-{self.provider}"

    def ask(self, scene: str) -> str:
        """A prompt for a scene."""
        return f"[[{scene}:{self.tag}]] Go on."


@asynccontextmanager
async def station(directory: Path) -> AsyncIterator[Station]:
    """Start all of it below a directory."""
    async with Providers() as providers:
        config = directory / "config.yaml"
        (directory / "bedrock.key").write_text("key-of-the-server\n")
        config.write_text(CONFIG.format(url=providers.url))
        async with ServerProcess(directory, {"CONFIG_FILE": str(config), **ENV}) as server:
            _, denied = await _a_key(server, "read:usage")
            poor_id, poor = await _a_key(server, "write:messages")
            budget = {"subject": {"type": "key", "id": poor_id}, "limit_usd": "0"}
            (await server.client.post("/v1/budgets", json=budget)).raise_for_status()
            for provider in PROVIDERS:
                agent = {"name": f"by-{provider}", "model": f"on-{provider}"}
                headers = {"anthropic-beta": "managed-agents-2026-04-01"}
                made = await server.client.post("/v1/agents", json=agent, headers=headers)
                made.raise_for_status()
            async with (
                openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=ADMIN_KEY) as gpt,
                anthropic.AsyncAnthropic(base_url=server.url, api_key=ADMIN_KEY) as claude,
            ):
                yield Station(
                    url=server.url,
                    providers=providers,
                    directory=directory,
                    openai=gpt,
                    anthropic=claude,
                    key=ADMIN_KEY,
                    poor=poor,
                    denied=denied,
                )


async def _a_key(server: ServerProcess, *permissions: str) -> tuple[str, str]:
    body = {"name": "conformance", "permissions": list(permissions)}
    made = (await server.client.post("/api/admin/keys", json=body)).raise_for_status().json()
    return made["id"], made["key"]
