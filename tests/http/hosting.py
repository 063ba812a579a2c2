"""What the tests of self-hosted environments share: an environment, its key, a session in it."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import anthropic

from tests.http.managed import MODEL, Talk
from tests.support.sdk import check


def as_worker(client: anthropic.AsyncAnthropic, key: str) -> anthropic.AsyncAnthropic:
    """The SDK as a worker uses it, on the same connections: with a bearer, and no API key."""
    return client.copy(auth_token=key)


@dataclass(frozen=True)
class Hosted:
    """A self-hosted environment, with a key of its own."""

    client: anthropic.AsyncAnthropic
    id: str
    key_id: str
    key: str

    def worker(self, credential: str | None = None) -> anthropic.AsyncAnthropic:
        return as_worker(self.client, credential or self.key)

    async def talk(self, *tools: Any, **session: Any) -> Talk:
        agent = await self.client.beta.agents.create(name="a", model=MODEL, tools=list(tools))
        made = await self.client.beta.sessions.create(
            agent=agent.id, environment_id=self.id, **session
        )
        return Talk(self.client, made.id)


async def hosted(client: anthropic.AsyncAnthropic, **key: Any) -> Hosted:
    made = check(
        await client.beta.environments.create(name="There", config={"type": "self_hosted"})
    )
    assert made.config.type == "self_hosted"
    answer = await new_key(client, made.id, **key)
    return Hosted(client, made.id, answer["id"], answer["key"])


async def new_key(client: anthropic.AsyncAnthropic, environment_id: str, **fields: Any) -> Any:
    path = f"/v1/environments/{environment_id}/keys"
    return await client.post(path, body=fields, cast_to=object)


def token_of(secret: str | None) -> str:
    """What the SDK's worker reads out of a secret."""
    assert secret is not None
    return str(json.loads(base64.urlsafe_b64decode(secret))["sessions_token"])
