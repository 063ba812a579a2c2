"""Answers of models that are kept, so that the same question is not paid for twice."""

from stationmaster.cache.answer import Answer, Place
from stationmaster.cache.cache import AnswerCache, Cleared, Kind, Stats
from stationmaster.cache.disk import DiskTier
from stationmaster.cache.flight import Flight
from stationmaster.cache.memory import MemoryTier
from stationmaster.cache.tier import Size, Tier

__all__ = [
    "Answer",
    "AnswerCache",
    "Cleared",
    "DiskTier",
    "Flight",
    "Kind",
    "MemoryTier",
    "Place",
    "Size",
    "Stats",
    "Tier",
]
