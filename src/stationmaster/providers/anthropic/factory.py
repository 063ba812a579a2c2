"""The `anthropic` kind, as an operator configures it."""

from collections.abc import Mapping

from stationmaster.providers.anthropic.provider import DEFAULT_BASE_URL, AnthropicProvider
from stationmaster.providers.options import HttpOptions, read_options
from stationmaster.providers.upstream import Timeouts


class AnthropicOptions(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`base_url` is without `/v1`."""

    api_key: str
    base_url: str = DEFAULT_BASE_URL


def provider(name: str, options: Mapping[str, object], timeouts: Timeouts) -> AnthropicProvider:
    """See `registry.Factory`."""
    given = read_options(AnthropicOptions, options)
    return AnthropicProvider(
        name=name,
        base_url=given.base_url,
        api_key=given.api_key,
        timeouts=given.patience(timeouts),
        tls=given.tls(),
    )
