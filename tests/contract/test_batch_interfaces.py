"""Every provider's interface for batches, over HTTP against a peer that speaks it."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.anthropic import AnthropicProvider
from stationmaster.providers.batches import (
    BatchInterface,
    NewCall,
    NotTaken,
    Orphan,
    Result,
    Submission,
    Unsure,
)
from stationmaster.providers.openai import OpenAIProvider
from tests.support.batch_upstream import BatchUpstream, Fault
from tests.support.raw_upstream import RawUpstream

KEY = "sk-upstream"
OURS = "bsub_01k0000000000000000000000a"
MAKING = {"anthropic": "POST /v1/messages/batches", "openai": "POST /v1/batches"}
HOUR_MS = 3_600_000


class Peer:
    """A provider and its interface, and the upstream behind it."""

    def __init__(self, kind: str, upstream: BatchUpstream) -> None:
        self.kind = kind
        self.upstream = upstream
        self.provider: AnthropicProvider | OpenAIProvider
        if kind == "anthropic":
            self.provider = AnthropicProvider(base_url=upstream.url, api_key=KEY)
        else:
            auth = (("authorization", f"Bearer {KEY}"),)
            self.provider = OpenAIProvider(base_url=upstream.url + "/v1", headers=auth)
        assert self.provider.batches is not None
        self.batches: BatchInterface = self.provider.batches

    def fault(self, *faults: Fault) -> None:
        self.upstream.faults[MAKING[self.kind]] = list(faults)

    def submission(self, *words: str, ours: str = OURS) -> Submission:
        calls = [
            # With line ends between the members, as a client may write it.
            NewCall(f"{ours}-{number}", json.dumps(self.body(word), indent=1).encode())
            for number, word in enumerate(words)
        ]
        operation: Any = "messages" if self.kind == "anthropic" else "chat"
        return Submission(ours, operation, calls, (("user-agent", "someone"),))

    @staticmethod
    def body(words: str) -> dict[str, Any]:
        message = {"role": "user", "content": words}
        return {"model": "m", "max_tokens": 50, "messages": [message], "top_p": 1.0}

    def orphan(self, size: int = 1, **more: Any) -> Orphan:
        return Orphan(OURS, size, round(time.time() * 1000), **more)

    async def results(self, batch_id: str) -> dict[str, Result]:
        return {found.custom_id: found async for found in self.batches.results(batch_id)}


@pytest.fixture(params=["anthropic", "openai"])
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    async with BatchUpstream() as upstream:
        made = Peer(request.param, upstream)
        yield made
        await made.provider.aclose()


async def test_what_is_handed_over_comes_back(peer: Peer) -> None:
    batch_id = await peer.batches.submit(peer.submission("Say one.", "Fail.", "Say three."))
    taken = peer.upstream.batches[0]
    assert taken.id == batch_id
    assert taken.requests[f"{OURS}-0"] == peer.body("Say one.")
    standing = await peer.batches.status(batch_id)
    assert (standing.state, standing.counts["processing"]) == ("in_progress", 3)

    peer.upstream.finish()
    standing = await peer.batches.status(batch_id)
    assert (standing.state, standing.rest) == ("ended", None)
    assert (standing.counts["succeeded"], standing.counts["errored"]) == (2, 1)
    found = await peer.results(batch_id)
    assert {each: found[each].outcome for each in found} == {
        f"{OURS}-0": "succeeded",
        f"{OURS}-1": "errored",
        f"{OURS}-2": "succeeded",
    }
    assert "one" in str(found[f"{OURS}-0"].body)
    assert found[f"{OURS}-1"].status == 400
    assert json.loads(found[f"{OURS}-1"].body or b"")["error"]["message"] == "It is refused."


async def test_nothing_is_left_there_once_it_is_cleared(peer: Peer) -> None:
    batch_id = await peer.batches.submit(peer.submission("Say one.", "Fail."))
    peer.upstream.finish()
    for _ in range(2):
        if peer.kind == "openai" or not peer.upstream.batches[0].deleted:
            await peer.batches.clear(batch_id)
    assert peer.upstream.files == {}
    assert peer.upstream.batches[0].deleted is (peer.kind == "anthropic")


async def test_a_cancelled_one_tells_what_was_done(peer: Peer) -> None:
    batch_id = await peer.batches.submit(peer.submission("Say one.", "Say two."))
    await peer.batches.cancel(batch_id)
    assert (await peer.batches.status(batch_id)).state == "canceling"
    peer.upstream.finish("cancelled", done=1)
    standing = await peer.batches.status(batch_id)
    found = await peer.results(batch_id)
    assert found[f"{OURS}-0"].outcome == "succeeded"
    if peer.kind == "anthropic":
        assert found[f"{OURS}-1"].outcome == "canceled"
    else:
        assert (len(found), standing.rest) == (1, "canceled")
    await peer.batches.cancel(batch_id)  # it has ended: nothing to complain of


async def test_an_expired_one_tells_what_was_done(peer: Peer) -> None:
    batch_id = await peer.batches.submit(peer.submission("Say one.", "Say two."))
    peer.upstream.finish("expired", done=1)
    outcomes = {key: each.outcome for key, each in (await peer.results(batch_id)).items()}
    assert outcomes == {f"{OURS}-0": "succeeded", f"{OURS}-1": "expired"}


@pytest.mark.parametrize(
    ("fault", "surely"),
    [("refuse", True), ("busy", True), ("down", False), ("cut", False), ("lose", False)],
)
async def test_only_what_surely_was_not_taken_is_said_to_be_so(
    peer: Peer, fault: Fault, surely: bool
) -> None:
    peer.fault(fault)
    with pytest.raises(Upstream) as raised:
        await peer.batches.submit(peer.submission("Say one."))
    assert isinstance(raised.value, NotTaken) is surely
    # Whatever became of it, it went out once.
    assert peer.upstream.asked.count(MAKING[peer.kind]) == 1


async def test_it_goes_out_once_over_a_connection_that_had_been_kept(peer: Peer) -> None:
    await peer.batches.find(peer.orphan())
    peer.fault("lose")
    with pytest.raises(Upstream):
        await peer.batches.submit(peer.submission("Say one."))
    assert len(peer.upstream.batches) == 1


async def test_where_nobody_listens_it_was_not_taken(peer: Peer) -> None:
    await peer.upstream.runner.cleanup()
    with pytest.raises(NotTaken) as raised:
        await peer.batches.submit(peer.submission("Say one."))
    assert raised.value.error_code == "upstream_unreachable"


async def test_one_whose_answer_was_lost_is_found(peer: Peer) -> None:
    peer.fault("lose")
    with pytest.raises(Upstream):
        await peer.batches.submit(peer.submission("Say one."))
    other = await peer.batches.submit(peer.submission("Say two.", ours=OURS[:-1] + "b"))
    if peer.kind == "anthropic":
        with pytest.raises(Unsure):
            await peer.batches.find(peer.orphan(known={other}))
        peer.upstream.finish()
    assert await peer.batches.find(peer.orphan(known={other})) == peer.upstream.batches[0].id


async def test_one_that_did_not_arrive_is_not_found(peer: Peer) -> None:
    other = await peer.batches.submit(peer.submission("Say one.", ours=OURS[:-1] + "b"))
    if peer.kind == "anthropic":
        peer.upstream.foreign(2)  # of another size
        old = peer.upstream.foreign(1)
        old.created -= 3600
    assert await peer.batches.find(peer.orphan(known={other})) is None


async def test_anothers_batch_is_not_taken_for_ours() -> None:
    async with BatchUpstream() as upstream:
        peer = Peer("anthropic", upstream)
        upstream.foreign(1)
        with pytest.raises(Unsure):
            await peer.batches.find(peer.orphan())
        for custom_id in upstream.batches[0].requests:
            upstream.batches[0].results[custom_id] = ("expired", None)
        upstream.batches[0].state = "ended"
        assert await peer.batches.find(peer.orphan()) is None
        await peer.provider.aclose()


async def test_a_file_that_no_batch_was_made_of_is_deleted() -> None:
    async with BatchUpstream() as upstream:
        peer = Peer("openai", upstream)
        peer.fault("cut")
        with pytest.raises(Upstream):
            await peer.batches.submit(peer.submission("Say one."))
        assert [name for name, _ in upstream.files.values()] == [f"{OURS}.jsonl"]
        assert await peer.batches.find(peer.orphan()) is None
        assert upstream.files == {}
        await peer.provider.aclose()


async def test_a_file_that_is_refused_says_why() -> None:
    async with BatchUpstream() as upstream:
        peer = Peer("openai", upstream)
        batch_id = await peer.batches.submit(peer.submission("Say one."))
        upstream.batches[0].errors = [{"code": "bad_line", "message": "Line 1 is wrong."}]
        upstream.finish("failed")
        standing = await peer.batches.status(batch_id)
        assert (standing.state, standing.rest, standing.error) == (
            "ended",
            "errored",
            "Line 1 is wrong.",
        )
        assert await peer.results(batch_id) == {}
        await peer.provider.aclose()


async def test_a_refused_credential_is_the_operators_to_mend(peer: Peer) -> None:
    async def behaviour(reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()

    async with RawUpstream(behaviour) as refusing:
        other = Peer(peer.kind, refusing)  # type: ignore[arg-type]
        with pytest.raises(NotTaken) as raised:
            await other.batches.submit(other.submission("Say one."))
        assert raised.value.error_code == "upstream_credentials"
        await other.provider.aclose()


async def test_results_that_break_off_are_no_end(peer: Peer) -> None:
    batch_id = await peer.batches.submit(peer.submission("Say one."))
    peer.upstream.finish()
    ask = "/v1/messages/batches/ID/results" if peer.kind == "anthropic" else "/v1/files/ID/content"
    peer.upstream.faults[f"GET {ask}"] = ["cut", "cut"]  # a second time where it was kept
    with pytest.raises(Upstream):
        await peer.results(batch_id)
    assert len(await peer.results(batch_id)) == 1
