"""Who asks. There is one way to find it out, for every route and every header."""

import ipaddress
import re
from urllib.parse import urlsplit

from stationmaster.access import ApiKey, Bounds
from stationmaster.access.keys import DEFAULT_OWNER
from stationmaster.access.resolver import Reference
from stationmaster.http.limiting import address_of
from stationmaster.http.services import Services
from stationmaster.http.wire.exchange import RawHeaders, Scope
from stationmaster.kernel import origin
from stationmaster.kernel.errors import Denied, StationmasterError, Unauthenticated, Unavailable
from stationmaster.kernel.principal import ALL, Principal
from stationmaster.telemetry import about

_AUTHORIZATION = b"authorization"
CREDENTIAL_HEADERS = frozenset({_AUTHORIZATION, b"x-api-key", b"api-key"})
# All that a worker of a self-hosted environment may ask for; the verbs look whether it is its own.
_OF_WORKERS = (
    ("GET", re.compile(r"/v1/environments/[^/]+/work(/poll|/stats)?")),
    ("POST", re.compile(r"/v1/environments/[^/]+/work/[^/]+/(ack|heartbeat|stop)")),
    ("GET", re.compile(r"/v1/sessions/[^/]+(/events(/stream)?)?")),
    ("POST", re.compile(r"/v1/sessions/[^/]+/events")),
)
_PAGE = 100


def credential(headers: RawHeaders) -> str | None:
    """The one credential that the headers hold, from `Authorization`, `x-api-key` or `api-key`.

    Raises `Unauthenticated` where they hold two different ones: whichever were taken, some other
    part of a deployment might have taken the other.
    """
    found: str | None = None
    conflicting = False
    for name, value in headers:
        if name not in CREDENTIAL_HEADERS:
            continue
        text = value.decode("latin-1").strip()
        if name == _AUTHORIZATION and text:
            scheme, _, text = text.partition(" ")
            text = text.strip()
            if scheme.lower() != "bearer" or not text:
                raise Unauthenticated("The Authorization header must be `Bearer` and a key.")
        if text:
            conflicting = conflicting or (found is not None and found != text)
            found = text
    if conflicting:
        raise Unauthenticated(
            "The request carries two different credentials.", code="conflicting_credentials"
        )
    return found


class Gatekeeper:
    """Turns a request into its principal."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._standing_in: Principal | None = None

    async def __call__(self, scope: Scope) -> Principal:
        """Who asks. Raises `Unauthenticated`, `Denied` or `Unavailable`.

        An address that sent too many bad credentials is not looked at.
        """
        services, headers = self._services, scope["headers"]
        if not services.options.api_key_enabled:
            _refuse_foreign_pages(headers, anywhere=services.options.keyless_anywhere)
            return self._let_in(await self._without_key(headers), scope)
        secret, address, failures = credential(headers), address_of(scope), services.failures
        if secret is not None:
            failures.check(address, secret)
        try:
            principal = await services.resolver.resolve(secret)
        except Unauthenticated as error:
            if secret is not None and error.error_code in {"invalid_api_key", "invalid_token"}:
                failures.count(address, secret)
            raise
        failures.trust(secret)
        return self._let_in(principal, scope)

    async def take_ticket(self, scope: Scope, ticket: str) -> Reference:
        """Use a ticket up; return whose it is. Raises as the gatekeeper itself."""
        failures, address = self._services.failures, address_of(scope)
        failures.check(address, ticket)
        try:
            return await self._services.tickets.take(ticket, address)
        except Unauthenticated:
            failures.count(address, ticket)
            raise

    async def recall(self, scope: Scope, reference: Reference) -> Principal:
        """Who showed this credential before. Raises as the gatekeeper itself."""
        return self._let_in(await self._services.resolver.recall(reference), scope)

    def _let_in(self, principal: Principal, scope: Scope) -> Principal:
        if principal.environment_id is not None:
            _keep_to_work(scope)
        if principal.networks:
            principal.require_address((scope.get("client") or (None,))[0])
        about.add("principal", principal.id)
        origin.identify(principal)
        return principal

    async def run_only(self, scope: Scope) -> Principal:
        """Who asks, where only a run may: the door for agents."""
        principal = await self._services.resolver.resolve(credential(scope["headers"]))
        if principal.kind != "run":
            raise Unauthenticated("Only a run's token is valid here.", code="invalid_api_key")
        about.add("principal", principal.id)
        origin.identify(principal)
        return principal

    async def known(self, scope: Scope) -> bool:
        """Whether the caller may see details of the server. Never raises."""
        try:
            return (await self(scope)).kind in {"key", "user"}
        except StationmasterError:
            return False

    async def _without_key(self, headers: RawHeaders) -> Principal:
        """The admin, where no key is asked for; but a run is still held to its own token."""
        try:
            given = await self._services.resolver.resolve(credential(headers))
        except Unauthenticated:
            pass  # any text may stand where nothing is asked for
        else:
            return given
        if self._standing_in is None:
            self._standing_in = await self._find_admin()
        return self._standing_in

    async def _find_admin(self) -> Principal:
        # A key that exists: what a run may do hangs on the key that started it.
        asking = Principal("key", "", DEFAULT_OWNER, "", frozenset({ALL}))
        after = None
        while True:
            page = await self._services.keys.list(asking, limit=_PAGE, after=after)
            for key in page.items:
                if _unbound(key):
                    return Principal("key", key.id, key.owner, key.id, key.scopes)
            if page.next_cursor is None:
                raise Unavailable("There is no admin key.", code="no_admin_key")
            after = page.next_cursor


def _keep_to_work(scope: Scope) -> None:
    """Raise `Denied` where a worker asks for anything but its work."""
    method, path = scope.get("method", ""), scope["path"]
    if not any(method == verb and known.fullmatch(path) for verb, known in _OF_WORKERS):
        raise Denied("This credential is for the workers of one environment alone.")


def _unbound(key: ApiKey) -> bool:
    """Whether a key may do everything, now and from now on."""
    ended = key.revoked_at is not None or key.disabled_at is not None or key.uncollected
    belongs = key.user_id is not None or key.service_account_id is not None
    free = key.expires_at is None and key.bounds == Bounds()
    return ALL in key.scopes and free and not ended and not belongs


def _refuse_foreign_pages(headers: RawHeaders, *, anywhere: bool) -> None:
    """Refuse what a web page in the user's browser may have sent.

    Without keys, any page could otherwise use the server: by a form sent across origins, or by a
    name of its own that it lets point to this machine.
    """
    named = {name: value.decode("latin-1") for name, value in headers}
    host = named.get(b"host", "")
    if not anywhere and not _loopback(f"http://{host}"):
        raise Denied("Without API keys only local names of this server work.", code="foreign_host")
    page = named.get(b"origin")
    if page is not None and urlsplit(page).netloc != host:
        raise Denied("Pages of other origins may not use this server.", code="foreign_origin")
    if named.get(b"sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise Denied("Pages of other origins may not use this server.", code="foreign_origin")


def _loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
