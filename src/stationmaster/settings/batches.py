"""The settings of batches. `Settings` has them among its own."""

from dataclasses import dataclass

from stationmaster.settings import forms
from stationmaster.settings.database import DatabaseSettings
from stationmaster.settings.field import setting
from stationmaster.settings.forms import whole

_BATCHES = "Batches"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings(DatabaseSettings):
    """How much of the server batches may take."""

    batch_concurrency: int = setting(
        _BATCHES,
        whole(0, 1000),
        "4",
        "How many requests of batches each server makes at once. With 0 it makes none.",
    )
    batch_workers: int = setting(
        _BATCHES,
        whole(1, 1000),
        "8",
        "How many prompts of /v1/batch each server answers at once. Ten times as many may wait; one"
        " more is refused with 503.",
    )
    batch_yield_at: int = setting(
        _BATCHES,
        whole(1, 100_000),
        "16",
        "While as many other model calls are under way in a server, it begins no request of a"
        " batch.",
    )
    batch_poll_interval: float = setting(
        _BATCHES,
        forms.duration("100ms", "1h"),
        "30s",
        "How often a provider is asked how far a batch of its own is, where batches go there. Less"
        " often after failures.",
    )
    batch_retention: float = setting(
        _BATCHES,
        forms.duration("1d", "3650d"),
        "29d",
        "How long the results of a batch are kept after it was made.",
    )
