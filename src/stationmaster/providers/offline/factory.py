"""The `offline` kind, as an operator configures it."""

from collections.abc import Mapping

from stationmaster.kernel.errors import Invalid
from stationmaster.providers.offline.provider import DELAY, OfflineProvider
from stationmaster.providers.options import Options, read_options
from stationmaster.providers.upstream import Timeouts


class OfflineOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`delay` is in seconds, between two pieces of a stream."""

    delay: float = DELAY


def provider(name: str, options: Mapping[str, object], timeouts: Timeouts) -> OfflineProvider:
    """See `registry.Factory`."""
    given = read_options(OfflineOptions, options)
    if not 0 <= given.delay <= 60:
        raise Invalid("delay must be between 0 and 60 seconds.", param="delay")
    return OfflineProvider(delay=given.delay, name=name)
