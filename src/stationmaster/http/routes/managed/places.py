"""Which requests are for this app. Asked of every request, so nothing heavy is imported here."""

from stationmaster.http.wire.exchange import Scope

SERVED = (
    "/v1/agents",
    "/v1/environments",
    "/v1/files",
    "/v1/messages/batches",
    "/v1/organizations",
    "/v1/sessions",
)

# What the SDKs know and this server does not have: 404 in the shape that they understand.
ABSENT = (
    "/v1/deployment_runs",
    "/v1/deployments",
    "/v1/dreams",
    "/v1/memory_stores",
    "/v1/skills",
    "/v1/tunnels",
    "/v1/user_profiles",
    "/v1/vaults",
)


def is_managed(scope: Scope) -> bool:
    """Whether a request is for this app."""
    path: str = scope["path"]
    return any(_below(path, place) for place in (*SERVED, *ABSENT))


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(place + "/")
