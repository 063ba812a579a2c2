"""The book: streams of numbered events, appended in transactions and followed by a cursor."""

from stationmaster.events.event import Event, Live, NewEvent, Overflow
from stationmaster.events.log import EventLog, Fenced

__all__ = ["Event", "EventLog", "Fenced", "Live", "NewEvent", "Overflow"]
