"""The `vertex` kind, as an operator configures it."""

import re
from collections.abc import Mapping

import msgspec

from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.errors import Invalid
from stationmaster.providers.options import HttpOptions, read_options, sendable
from stationmaster.providers.upstream import Timeouts
from stationmaster.providers.vertex.provider import VertexProvider
from stationmaster.providers.vertex.token import AccessTokens, FixedToken, ServiceAccount

_REGION = re.compile(r"[a-z]+(-[a-z]+[0-9]+)?")


class VertexOptions(HttpOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`service_account` is the text of the account's key file; else `access_token` is needed."""

    region: str
    project: str | None = None
    service_account: str | None = None
    access_token: str | None = None
    base_url: str | None = None


def provider(name: str, options: Mapping[str, object], timeouts: Timeouts) -> VertexProvider:
    """See `registry.Factory`."""
    given = read_options(VertexOptions, options)
    patience, tls = given.patience(timeouts), given.tls()
    if not _REGION.fullmatch(given.region):
        raise Invalid("region is not the name of a region.", param="region")
    if bool(given.service_account) == bool(given.access_token):
        raise Invalid("Either service_account is needed, or access_token.", param="service_account")
    account = _account(given.service_account) if given.service_account else None
    project = given.project or (account.project_id if account else "")
    if not project:
        raise Invalid("project is needed.", param="project")
    return VertexProvider(
        name=name,
        project=project,
        region=given.region,
        tokens=AccessTokens(account, clock=SystemClock(), timeouts=patience)
        if account
        else FixedToken(sendable("access_token", given.access_token or "")),
        base_url=given.base_url,
        timeouts=patience,
        tls=tls,
    )


def _account(text: str) -> ServiceAccount:
    try:
        return msgspec.json.decode(text, type=ServiceAccount)
    except (msgspec.DecodeError, ValueError):
        # Not the decoder's words: they could repeat what was given.
        raise Invalid(
            "service_account is not the key file of a service account.", param="service_account"
        ) from None
