"""Batches: many calls that nobody waits for, made between those that somebody does."""

from stationmaster.batches.batch import Batch, Counts, Item
from stationmaster.batches.batches import BATCH_JOB, Batches
from stationmaster.batches.executor import Executor
from stationmaster.batches.ports import Answer, Caller
from stationmaster.batches.traffic import Traffic

__all__ = [
    "BATCH_JOB",
    "Answer",
    "Batch",
    "Batches",
    "Caller",
    "Counts",
    "Executor",
    "Item",
    "Traffic",
]
