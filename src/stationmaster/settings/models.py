"""The settings of model calls. `Settings` has them among its own."""

from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from stationmaster.kernel.money import MicroDollars
from stationmaster.settings import forms
from stationmaster.settings.field import setting
from stationmaster.settings.forms import choice, duration, whole
from stationmaster.settings.security import SecuritySettings

_MODELS = "Models"
_CACHE = "Response cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings(SecuritySettings):
    """Durations are seconds, money micro-dollars."""

    provider: Literal["anthropic", "offline"] = setting(
        _MODELS,
        forms.automatic(choice("anthropic", "offline")),
        "auto",
        "Who answers model calls. offline is a built-in script: no account and no network needed.",
        derived="anthropic where there is an API key, else offline",
    )
    anthropic_api_key: SecretStr | None = setting(
        _MODELS,
        forms.KEY,
        None,
        "The key for Anthropic's API. It never leaves the server process.",
        secret=True,
    )
    anthropic_base_url: str = setting(
        _MODELS, forms.BASE_URL, "https://api.anthropic.com", "Where Anthropic's API is."
    )
    default_model: str = setting(
        _MODELS,
        forms.MODEL,
        "sonnet",
        "The model of a task that names none, and of a chat that names none and is neither easy nor"
        " hard.",
    )
    cost_threshold: MicroDollars | None = setting(
        _MODELS,
        forms.DOLLARS,
        None,
        "What a project may cost in a month, in dollars, until a chat that names no model gets the"
        " cheapest.",
    )
    api_timeout: float = setting(
        _MODELS, duration("1s", "1h"), "300s", "How long one model call may take in all."
    )
    connect_timeout: float = setting(
        _MODELS, duration("100ms", "5m"), "10s", "How long a connection to a provider may take."
    )
    first_byte_timeout: float = setting(
        _MODELS,
        duration("100ms", "1h"),
        "120s",
        "How long a provider may take to begin its answer.",
    )
    inactivity_timeout: float = setting(
        _MODELS, duration("100ms", "1h"), "60s", "How long a provider may pause inside an answer."
    )
    upstream_retries: int = setting(
        _MODELS,
        whole(0, 10),
        "2",
        "How often a call that a provider did not begin to answer is sent again.",
        aliases=("SDK_MAX_RETRIES",),
    )
    circuit_breaker_threshold: int = setting(
        _MODELS,
        whole(0, 1000),
        "5",
        "After so many failures in a row a provider is left alone for a while. 0: never.",
    )
    circuit_breaker_recovery: float = setting(
        _MODELS,
        duration("1s", "1h"),
        "30s",
        "For how long.",
        aliases=("CIRCUIT_BREAKER_RECOVERY_SECONDS",),
    )
    responses_retention: float = setting(
        _MODELS,
        duration("0s", "3650d"),
        "30d",
        "How long a response of /v1/responses is kept, so that a client can go on after it by"
        " previous_response_id. 0: none is kept.",
    )
    offline_delay: float = setting(
        _MODELS, duration("0s", "10s"), "15ms", "The pause between the pieces of an offline answer."
    )

    cache_enabled: bool = setting(
        _CACHE,
        forms.FLAG,
        "true",
        "Whether answers of models are kept and given again to the same question of the same"
        " project.",
    )
    cache_size_mb: int = setting(
        _CACHE,
        whole(1, 10_000_000),
        "256",
        "How many megabytes the kept answers may take: with REDIS_URL there, over all servers; else"
        " a quarter in memory and the rest in DATA_DIR/cache.",
    )
    cache_ttl: float = setting(_CACHE, duration("1s", "30d"), "15m", "How long an answer is kept.")
