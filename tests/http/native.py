"""A server whose providers take batches, and what is asked of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import yaml
from sqlalchemy import select, update

from stationmaster.budgets.tables import ledger
from stationmaster.storage import open_database
from tests.http.conftest import House, Open
from tests.support.batch_upstream import BatchUpstream
from tests.support.sdk import check

PATIENCE = 30.0
HAIKU = "claude-haiku-4-5"
GPT = "gpt-4o-mini"
# 1000 tokens in and 200 out, at half of 1 and 5 dollars a million.
HALF_HAIKU = 1000
# The same, at half of 0.15 and 0.60 dollars a million.
HALF_GPT = 135


class Peer:
    """A house whose providers take batches, and the upstream behind them."""

    def __init__(self, house: House, upstream: BatchUpstream) -> None:
        self.house = house
        self.upstream = upstream

    async def rows(self, *columns: Any) -> list[Any]:
        database = open_database(self.house.settings.database_url.get_secret_value())
        found = await database.read(lambda tx: list(tx.execute(select(*columns)).all()))
        await database.close()
        return found

    async def set(self, table: Any, **values: Any) -> None:
        """Change every row of a table behind the server's back."""
        database = open_database(self.house.settings.database_url.get_secret_value())
        await database.write(lambda tx: tx.execute(update(table).values(values)))
        await database.close()

    async def costs(self) -> dict[str, int]:
        return {row[0]: row[1] for row in await self.rows(ledger.c.call_id, ledger.c.cost)}

    async def taken(self, batches: int) -> None:
        """Until so many batches have been handed over, and their ids are written down."""
        async with asyncio.timeout(PATIENCE):
            while len(self.upstream.batches) < batches:
                await asyncio.sleep(0.01)

    async def progress(self, batch_id: str) -> list[Any]:
        answer = await self.house.client.get(f"/v1/batches/{batch_id}/submissions")
        assert answer.status_code == 200, answer.text
        found: list[Any] = answer.json()["data"]
        return found

    async def said(self, batch_id: str, state: str) -> list[Any]:
        """The submissions of a batch, once the first is in a state."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.progress(batch_id)
                if found and found[0]["state"] == state:
                    return found
                await asyncio.sleep(0.01)


def catalogue(url: str, **more: Any) -> dict[str, Any]:
    claude = {"type": "anthropic", "api_key": "sk-a", "base_url": url, "batches": "native"}
    gpt = {
        "type": "openai",
        "api_key": "sk-o",
        "base_url": f"{url}/v1",
        "batches": "native",
        "operations": ["chat", "embeddings", "responses"],
    }
    plain = {"type": "anthropic", "api_key": "sk-p", "base_url": url}
    return {
        "providers": {
            "claude": {**claude, "default": True, **more},
            "gpt": gpt,
            "plain": plain,
        },
        "models": {
            GPT: {"targets": [{"provider": "gpt"}]},
            "claude-sonnet-4-5": {"targets": [{"provider": "plain"}, {"provider": "claude"}]},
        },
        "aliases": {"small": HAIKU},
    }


@asynccontextmanager
async def opened(
    open_house: Open,
    tmp_path: Path,
    upstream: BatchUpstream,
    *,
    env: Mapping[str, str] | None = None,
    **more: Any,
) -> AsyncIterator[Peer]:
    """A server with `env`; `more` is said of the provider of Claude."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(catalogue(upstream.url, **more)))
    async with open_house(BATCH_POLL_INTERVAL="100ms", **(env or {})) as house:
        yield Peer(house, upstream)


def request(custom_id: str, words: str = "Say yes.", **more: Any) -> Any:
    message = {"role": "user", "content": words}
    params = {"model": HAIKU, "max_tokens": 300, "messages": [message], **more}
    return {"custom_id": custom_id, "params": params}


async def ended(client: anthropic.AsyncAnthropic, batch_id: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            batch = check(await client.messages.batches.retrieve(batch_id))
            if batch.processing_status == "ended":
                return batch
            await asyncio.sleep(0.01)


async def results(client: anthropic.AsyncAnthropic, batch_id: str) -> dict[str, Any]:
    decoder = await client.messages.batches.results(batch_id)
    return {line.custom_id: check(line).result async for line in decoder}
