"""Our store of histories keeps what the agent's SDK asks of any."""

from claude_agent_sdk import (
    SessionKey,
    fork_session_via_store,
    get_session_messages_from_store,
    project_key_for_directory,
)
from claude_agent_sdk.testing import run_session_store_conformance

from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database
from stationmaster.transcripts import OwnedStore, Transcripts
from tests.support.histories import conversation


def _store(database: Database) -> OwnedStore:
    """For an owner of its own: nothing of another contract's is there."""
    transcripts = Transcripts(database, ManualClock(), max_size=1024**2)
    return OwnedStore(transcripts, Owner(new_id("org"), new_id("proj")))


async def test_it_conforms_with_every_optional_method(database: Database) -> None:
    await run_session_store_conformance(lambda: _store(database))


async def test_the_sdks_own_readers_and_fork_work_on_it(database: Database) -> None:
    store = _store(database)
    history, entries = conversation(turns=2)
    key = SessionKey(project_key=project_key_for_directory("/"), session_id=history)
    await store.append(key, entries)  # type: ignore[arg-type]
    messages = await get_session_messages_from_store(store, history, "/")
    assert [each.uuid for each in messages] == [each["uuid"] for each in entries]
    forked = await fork_session_via_store(store, history, "/")
    copied = await get_session_messages_from_store(store, forked.session_id, "/")
    assert [each.message for each in copied] == [each.message for each in messages]
