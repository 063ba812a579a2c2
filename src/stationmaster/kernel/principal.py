"""Who is asking."""

import ipaddress
from dataclasses import dataclass
from typing import Literal

from stationmaster.kernel.errors import Denied
from stationmaster.kernel.profile import Profile, matches

ALL = "*"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Owner:
    """The organisation and project that an object belongs to. Every query is by owner."""

    organization_id: str
    project_id: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast one subject may go. None is whatever the server's settings say for its level."""

    requests_per_minute: int | None = None
    burst: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    concurrent_calls: int | None = None
    concurrent_runs: int | None = None
    sockets: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: an API key, a signed-in user, a run by its run token, or a worker.

    `id` is the key's, the user's or the token's id, safe to log. `key_id` is the key behind it:
    its own, for a run what started the run, for a signed-in user the user's id. `user_id` is the
    person that the credential belongs to, `service_account_id` the service account; many belong
    to neither.

    `limits` are the key's own, `project_limits` and `organization_limits` those of the levels
    above it. `models` are the names, and beginnings (`claude-haiku-*`), of models that it may use,
    `profile` what its runs may use, `networks` where it may come from: empty is from anywhere.
    A run has the limits, the models and the profile of what started it, and `tags`: what its calls
    are counted under besides their owner. `hint` is the last four
    characters of its secret, for the audit log.

    With `environment_id` it is a worker of that self-hosted environment, and is good for nothing
    else: its environment key, or with `work_id` the secret of one piece of work, which is about
    `session_id` alone.
    """

    kind: Literal["key", "user", "run", "work"]
    id: str
    owner: Owner
    key_id: str
    scopes: frozenset[str]
    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    service_account_id: str | None = None
    limits: Limits | None = None
    project_limits: Limits | None = None
    organization_limits: Limits | None = None
    profile: Profile | None = None
    models: frozenset[str] | None = None
    networks: tuple[Network, ...] = ()
    hint: str = ""
    tags: tuple[str, ...] = ()
    environment_id: str | None = None
    work_id: str | None = None

    def may(self, scope: str) -> bool:
        """Whether `action:resource` is granted: by name, `*`, `action:*` or `*:resource`."""
        if scope in self.scopes or ALL in self.scopes:
            return True
        action, _, resource = scope.partition(":")
        return f"{action}:*" in self.scopes or f"*:{resource}" in self.scopes

    def require(self, scope: str) -> None:
        """Raise `Denied` where the scope is not granted."""
        if not self.may(scope):
            raise Denied(f"This credential lacks the scope {scope}.", scope=scope)

    @property
    def actor_id(self) -> str:
        """Who acts: the user or service account behind the credential, else the key."""
        return self.user_id or self.service_account_id or self.key_id

    def require_model(self, *names: str) -> None:
        """Raise `Denied` unless one of the names of a model is among those it may use."""
        if self.models is not None and not any(matches(name, self.models) for name in names):
            raise Denied(
                "This credential may not use this model.", code="model_not_allowed", param="model"
            )

    def require_address(self, address: str | None) -> None:
        """Raise `Denied` where the peer's address is not one that it may come from.

        None is a peer without an address: a socket of this machine's file system.
        """
        if self.networks and not any(_within(address, network) for network in self.networks):
            raise Denied(
                "This credential may not be used from this address.", code="address_not_allowed"
            )


def _within(address: str | None, network: Network) -> bool:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found) in network
