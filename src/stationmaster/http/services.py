"""What the routes are given: the verbs, and the operator's decisions that concern HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stationmaster.access import Keys, Resolver, Rotation
from stationmaster.access.clients import Clients
from stationmaster.access.directory import Directory
from stationmaster.access.jwt_keys import SigningKeys
from stationmaster.access.oidc import OidcSignIns
from stationmaster.access.signin import SignIns
from stationmaster.access.tickets import Tickets
from stationmaster.audit import Audit, Refusals
from stationmaster.batches import Batches
from stationmaster.batches.prompts import PromptPool
from stationmaster.budgets import Definitions, Reports, SpendRequests
from stationmaster.cache import AnswerCache
from stationmaster.calls import Calls
from stationmaster.files import Files
from stationmaster.gateway import Gateway
from stationmaster.http.security import DoorOptions
from stationmaster.http.sockets.places import Places
from stationmaster.idempotency import IdempotencyKeys
from stationmaster.jobs.inventory import Inventory
from stationmaster.kernel.clock import Clock
from stationmaster.limits import Failures, Limiter
from stationmaster.responses import Responses
from stationmaster.sessions.agents import Agents
from stationmaster.sessions.approvals import Approvals
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.hosting import Hosting
from stationmaster.sessions.resources import Resources
from stationmaster.sessions.runs.files import RunFiles
from stationmaster.sessions.runs.one_job import OneJob
from stationmaster.sessions.runs.runs import Runs
from stationmaster.sessions.sessions import Sessions
from stationmaster.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Durations in seconds, sizes in bytes. Without `api_key_enabled` every caller is the admin."""

    api_key_enabled: bool
    keepalive: float
    max_request_size: int
    max_upload_size: int
    metrics_enabled: bool
    default_model: str
    cost_threshold: int | None = None
    """Micro-dollars that a project may cost in a month until it gets the cheapest model."""
    max_file_size: int = 500 * 1024**2
    keyless_anywhere: bool = False
    """Without keys, whether other names of this server than local ones work."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the server that can be down.

    `check` returns details for `/health`, and raises a `StationmasterError` where the part is
    down. Without a `critical` part the server is not ready; without another it is degraded.
    """

    name: str
    check: Callable[[], Awaitable[Mapping[str, Any]]]
    critical: bool


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may use."""

    options: HttpOptions
    clock: Clock
    resolver: Resolver
    keys: Keys
    rotation: Rotation
    directory: Directory
    clients: Clients
    runs: Runs
    jobs: Inventory
    files: RunFiles
    agents: Agents
    hosting: Hosting
    sessions: Sessions
    resources: Resources
    approvals: Approvals
    offers: Catalogue
    stored_files: Files
    batches: Batches
    prompts: PromptPool
    idempotency: IdempotencyKeys
    responses: Responses
    reports: Reports
    budgets: Definitions
    spend_requests: SpendRequests
    gateway: Gateway
    cache: AnswerCache | None
    """Of answers of models, where it is on."""
    calls: Calls
    """That projects keep, with what was said in them."""
    audit: Audit
    refusals: Refusals
    sign_ins: SignIns
    signing_keys: SigningKeys
    oidc: OidcSignIns | None
    tickets: Tickets
    door: DoorOptions
    limiter: Limiter
    failures: Failures
    """Of credentials, by address."""
    metrics: Metrics
    components: tuple[Component, ...]
    not_ready_because: Callable[[], str | None]
    """Why new work is refused: `starting`, `shutting_down`; None where it is not."""
    sockets: Places
    one_job: OneJob | None
    """Of a server that takes one job and ends."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when open streams must end; running work has ended by then."""
