"""The histories of agents, kept so that a session goes on when its process or its server is gone.

A history is what the agent itself remembers: the entries of its own transcript, in their order,
of the conversation and of each sub-agent. What is kept is always a beginning of it: an entry that
cannot be kept closes the history, and nothing after it is taken.
"""

from stationmaster.transcripts.history import Fork, History, HistoryKey
from stationmaster.transcripts.sink import SessionSink
from stationmaster.transcripts.store import OwnedStore
from stationmaster.transcripts.transcripts import Transcripts

__all__ = ["Fork", "History", "HistoryKey", "OwnedStore", "SessionSink", "Transcripts"]
