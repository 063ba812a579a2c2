"""A scripted model in this process: no account, no network, no language model."""

from stationmaster.providers.offline.provider import OfflineProvider

__all__ = ["OfflineProvider"]
