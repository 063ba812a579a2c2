"""Who is who, and what is on record: the audit log, sign-in, and the keys of both."""

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from stationmaster.access import Resolver
from stationmaster.access.clients import Clients
from stationmaster.access.directory import Directory
from stationmaster.access.first_keys import DEFAULT_OWNER
from stationmaster.access.jwt_keys import SigningKeys
from stationmaster.access.jwt_tokens import AccessTokens
from stationmaster.access.lockout import Lockout
from stationmaster.access.oidc import OidcSignIns
from stationmaster.access.passwords import Passwords
from stationmaster.access.purge import Purge
from stationmaster.access.refresh import Families
from stationmaster.access.secret import Hasher
from stationmaster.access.signin import SignIns
from stationmaster.access.tickets import Tickets
from stationmaster.audit import Actor, Audit, Chains, Keyring, Refusals
from stationmaster.http.security import DoorOptions
from stationmaster.jobs import Instances
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unavailable
from stationmaster.settings import Settings
from stationmaster.storage import Database
from stationmaster.storage.sealing import Sealer

if TYPE_CHECKING:
    from stationmaster.access.oidc_provider import Provider

log = structlog.get_logger(__name__)

KEEP_S = 3600.0
MINUTE_S = 60.0
DAY_S = 86_400.0
ISSUER = "stationmaster"  # of access tokens, where no PUBLIC_URL says better
AUDIENCE = "stationmaster"
CALLBACK = "/v1/auth/oidc/callback"


@dataclass(frozen=True, slots=True)
class OnRecord:
    """The audit log. `sealer` encrypts what is stored and must be read again.

    `retention` is in seconds.
    """

    sealer: Sealer
    keyring: Keyring
    audit: Audit
    chains: Chains
    refusals: Refusals
    retention: float


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who there is, and sign-in."""

    directory: Directory
    clients: Clients
    sign_ins: SignIns
    signing_keys: SigningKeys
    oidc: OidcSignIns | None
    purge: Purge
    tickets: Tickets


def sealer_of(settings: Settings, secret: str) -> Sealer:
    """What encrypts stored secrets. `secret` is the server's."""
    given = [key.get_secret_value().encode() for key in settings.encryption_keys or ()]
    # What was sealed before there were keys of its own was sealed with the server's secret.
    return Sealer([*given, secret.encode()])


async def on_record(database: Database, settings: Settings, secret: str, clock: Clock) -> OnRecord:
    """Open the audit log. `secret` is the server's."""
    sealer = sealer_of(settings, secret)
    keyring = Keyring(database, sealer, clock)
    await keyring.prepare()
    audit = Audit(database, keyring, clock)
    return OnRecord(
        sealer=sealer,
        keyring=keyring,
        audit=audit,
        chains=Chains(database, keyring, clock),
        refusals=Refusals(database, audit, DEFAULT_OWNER),
        retention=settings.audit_retention,
    )


async def signed_in(
    stack: AsyncExitStack,
    settings: Settings,
    database: Database,
    *,
    hasher: Hasher,
    clock: Clock,
    resolver: Resolver,
    record: OnRecord,
    instances: Instances,
) -> SignedIn:
    """Let people sign in; the resolver takes their tokens from then on."""
    directory = Directory.of(
        database=database,
        hasher=hasher,
        clock=clock,
        resolver=resolver,
        recorder=record.audit,
    )
    clients = Clients(
        database=database,
        hasher=hasher,
        clock=clock,
        resolver=resolver,
        organizations=directory.organizations,
        people=directory.users,
        recorder=record.audit,
    )
    lifetime = settings.access_token_expire_minutes * MINUTE_S
    keys = SigningKeys(database, record.sealer, clock, token_lifetime=lifetime)
    await keys.renew()
    passwords = Passwords()
    stack.callback(passwords.close)
    sign_ins = SignIns(
        database=database,
        passwords=passwords,
        tokens=AccessTokens(
            keys,
            clock,
            issuer=settings.public_url or ISSUER,
            audience=AUDIENCE,
            lifetime=lifetime,
        ),
        families=Families(hasher, clock, lifetime=settings.refresh_token_expire_days * DAY_S),
        lockout=Lockout(hasher, clock),
        recorder=record.audit,
        clock=clock,
        operator=DEFAULT_OWNER,
        forget=resolver.forget_key,
    )
    resolver.admit(sign_ins)
    oidc = None
    if (provider := _provider(settings, clock)) is not None:
        stack.push_async_callback(provider.aclose)
        oidc = _oidc(
            settings,
            provider,
            database,
            hasher=hasher,
            sign_ins=sign_ins,
            directory=directory,
            record=record,
            clock=clock,
        )
    return SignedIn(
        directory=directory,
        clients=clients,
        sign_ins=sign_ins,
        signing_keys=keys,
        oidc=oidc,
        purge=Purge(database, clock, instances),
        tickets=Tickets(database, hasher, clock, resolver),
    )


def _oidc(
    settings: Settings,
    provider: "Provider",
    database: Database,
    *,
    hasher: Hasher,
    sign_ins: SignIns,
    directory: Directory,
    record: OnRecord,
    clock: Clock,
) -> OidcSignIns:
    return OidcSignIns(
        provider=provider,
        database=database,
        hasher=hasher,
        sealer=record.sealer,
        clock=clock,
        sign_ins=sign_ins,
        people=directory.users,
        recorder=record.audit,
        owner=DEFAULT_OWNER,
        new_users=None if settings.oidc_new_users == "refuse" else settings.oidc_new_users,
    )


def _provider(settings: Settings, clock: Clock) -> "Provider | None":
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None
    from stationmaster.access.oidc_provider import Client, Provider

    secret = settings.oidc_client_secret
    client = Client(
        id=settings.oidc_client_id,
        secret=None if secret is None else secret.get_secret_value(),
        redirect_uri=f"{settings.public_url}{CALLBACK}",
        scopes=settings.oidc_scopes,
    )
    return Provider(settings.oidc_issuer, client, clock)


async def note_rung(database: Database, record: OnRecord, rung: str) -> None:
    """Put on record that agents get less than the full sandbox."""
    if rung == "bubblewrap":
        return
    actor = Actor.server(DEFAULT_OWNER)
    await database.write(
        lambda tx: record.audit.record(tx, actor, "sandbox.lower", details={"rung": rung})
    )


def door(settings: Settings) -> DoorOptions:
    """The operator's decisions about the network."""
    public = urlsplit(settings.public_url or "").hostname
    return DoorOptions(
        allowed_hosts=(*settings.allowed_hosts, *([public] if public else ())),
        cors_origins=settings.backend_cors_origins,
        trusted_proxies=settings.trusted_proxies,
        https_redirect=settings.https_redirect,
    )


async def renew(signed: SignedIn) -> None:
    """Rotate signing keys, and know those of other servers. Never ends."""
    while True:
        with contextlib.suppress(Unavailable):  # in an hour, then
            await signed.signing_keys.renew()
        await asyncio.sleep(KEEP_S)


async def keep(record: OnRecord, signed: SignedIn, clock: Clock) -> None:
    """Delete what has had its time. Never ends."""
    while True:
        with contextlib.suppress(Unavailable):  # in an hour, then
            await signed.purge.run()
            if gone := await record.chains.prune(clock.now() - round(record.retention * 1000)):
                log.info("Old entries of the audit log were deleted.", entries=gone)
        await asyncio.sleep(KEEP_S)
