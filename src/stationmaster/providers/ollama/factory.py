"""The `ollama` kind, as an operator configures it."""

from collections.abc import Mapping

import msgspec

from stationmaster.kernel.errors import Invalid
from stationmaster.providers.ollama.context import ContextSizes
from stationmaster.providers.ollama.presets import PRESETS, Preset
from stationmaster.providers.ollama.provider import (
    DEFAULT_BASE_URL,
    OllamaProvider,
    Retries,
    Settings,
)
from stationmaster.providers.options import HttpOptions, read_options, sendable
from stationmaster.providers.upstream import Timeouts

_RETRIES = Retries()
_SIZES = ContextSizes()


class OllamaOptions(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`retry_attempts` counts the first try; `presets` replace those of the same name."""

    base_url: str = DEFAULT_BASE_URL
    api_key: str | None = None
    keep_alive: str | int | None = None
    num_ctx: int = _SIZES.least
    max_num_ctx: int = _SIZES.most
    retry_attempts: int = _RETRIES.attempts
    retry_delay: float = _RETRIES.delay
    fallback_model: str | None = None
    presets: dict[str, Preset] = msgspec.field(default_factory=dict)


def provider(name: str, options: Mapping[str, object], timeouts: Timeouts) -> OllamaProvider:
    """See `registry.Factory`."""
    given = read_options(OllamaOptions, options)
    if not 1 <= given.retry_attempts <= 10:
        raise Invalid("retry_attempts must be between 1 and 10.", param="retry_attempts")
    if not 0 <= given.retry_delay <= 60:
        raise Invalid("retry_delay must be between 0 and 60 seconds.", param="retry_delay")
    fallback = given.fallback_model
    if fallback is not None:
        sendable("fallback_model", fallback)
    settings = Settings(
        keep_alive=_keep_alive(given.keep_alive),
        sizes=ContextSizes(given.num_ctx, given.max_num_ctx),
        retries=Retries(given.retry_attempts, given.retry_delay),
        fallback_model=fallback,
        presets={**PRESETS, **given.presets},
    )
    return OllamaProvider(
        name=name,
        base_url=given.base_url,
        api_key=given.api_key,
        settings=settings,
        timeouts=given.patience(timeouts),
        tls=given.tls(),
    )


def _keep_alive(given: str | int | None) -> str | int | None:
    """Seconds as a number: in words Ollama wants a unit with them."""
    return int(given) if isinstance(given, str) and given.lstrip("-").isdecimal() else given
