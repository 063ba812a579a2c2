"""The `bedrock` kind, as an operator configures it."""

import re
from collections.abc import Mapping

from stationmaster.kernel.errors import Invalid
from stationmaster.providers.bedrock.provider import BedrockProvider
from stationmaster.providers.bedrock.signature import Credentials
from stationmaster.providers.options import HttpOptions, read_options, sendable
from stationmaster.providers.upstream import Timeouts

_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+){1,4}")


class BedrockOptions(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either the two keys to sign with, perhaps with a session's token, or `api_key`."""

    region: str
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    api_key: str | None = None
    base_url: str | None = None


def provider(name: str, options: Mapping[str, object], timeouts: Timeouts) -> BedrockProvider:
    """See `registry.Factory`."""
    given = read_options(BedrockOptions, options)
    if not _REGION.fullmatch(given.region):
        raise Invalid("region is not the name of a region.", param="region")
    return BedrockProvider(
        name=name,
        region=given.region,
        credentials=_credentials(given),
        base_url=given.base_url,
        timeouts=given.patience(timeouts),
        tls=given.tls(),
    )


def _credentials(given: BedrockOptions) -> Credentials | str:
    keys = (given.access_key_id, given.secret_access_key)
    if given.api_key and not any((*keys, given.session_token)):
        return given.api_key
    if given.api_key or not given.access_key_id or not given.secret_access_key:
        raise Invalid(
            "Either access_key_id and secret_access_key are needed, or api_key.",
            param="access_key_id",
        )
    for name in ("access_key_id", "session_token"):
        if (value := getattr(given, name)) is not None:
            sendable(name, value)
    return Credentials(given.access_key_id, given.secret_access_key, given.session_token)
