"""Sign-in on a fresh database, with an organisation and people in it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import insert, update

from stationmaster.access import Resolver
from stationmaster.access.jwt_keys import SigningKeys
from stationmaster.access.jwt_tokens import AccessTokens
from stationmaster.access.lockout import Lockout
from stationmaster.access.passwords import Passwords
from stationmaster.access.purge import Purge
from stationmaster.access.refresh import Families
from stationmaster.access.secret import Hasher
from stationmaster.access.signin import SignIns
from stationmaster.access.tables import organizations, projects, users
from stationmaster.audit import Audit, Chains, Entry, Keyring, Sought
from stationmaster.jobs import Instances
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction
from stationmaster.storage.sealing import Sealer

OPERATOR = Owner("org_default", "proj_default")
OWNER = Owner("org_a", "proj_a")
ADMIN = Principal("key", "key_a", OWNER, "key_a", frozenset({"*"}))
PASSWORD = "correct horse battery"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass
class Station:
    """Everything that sign-in is made of."""

    database: Database
    clock: ManualClock
    sealer: Sealer
    passwords: Passwords
    keys: SigningKeys
    tokens: AccessTokens
    resolver: Resolver
    audit: Audit
    chains: Chains
    sign_ins: SignIns

    def purge(self) -> Purge:
        """What deletes what has had its time, on a server of its own."""
        return Purge(self.database, self.clock, Instances(self.database, self.clock, lease=30.0))

    async def user(
        self,
        email: str | None = "ada@example.com",
        *,
        password: str | None = PASSWORD,
        organization: str = "org_a",
        role: str = "member",
    ) -> str:
        """Make a user; return the id."""
        user_id = new_id("user")
        row: dict[str, Any] = {
            "id": user_id,
            "organization_id": organization,
            "email": email,
            "name": "Ada",
            "role": role,
            "status": "active",
            "created_at": 1,
        }
        await self.database.write(lambda tx: tx.execute(insert(users), row))
        if password is not None:
            admin = Principal("key", "key_a", Owner(organization, ""), "key_a", frozenset({"*"}))
            await self.sign_ins.set_password(admin, user_id, password)
        return user_id

    async def change(self, user_id: str, **values: Any) -> None:
        await self.database.write(
            lambda tx: tx.execute(update(users).where(users.c.id == user_id).values(**values))
        )

    async def record(self, owner: Owner = OWNER) -> list[Entry]:
        """The organisation's audit entries, oldest first."""
        reader = Principal("key", "key_r", owner, "key_r", frozenset({"*"}))
        page = await self.audit.list(reader, Sought(), limit=100, after=None)
        return page.items[::-1]


@pytest.fixture
async def station(database: Database) -> AsyncIterator[Station]:
    def fill(tx: Transaction) -> None:
        for organization, project in (
            ("org_default", "proj_default"),
            ("org_a", "proj_a"),
            ("org_b", "proj_b"),
        ):
            tx.execute(
                insert(organizations), {"id": organization, "name": organization, "created_at": 1}
            )
            tx.execute(
                insert(projects),
                {
                    "id": project,
                    "organization_id": organization,
                    "name": project,
                    "created_at": 1,
                    "is_default": True,
                },
            )

    await database.write(fill)
    clock, hasher = ManualClock(), Hasher(b"a pepper for the tests")
    passwords = Passwords(passes=1, memory_kib=64)
    made = await assemble(database, clock, hasher, passwords)
    yield made
    passwords.close()


async def assemble(
    database: Database, clock: ManualClock, hasher: Hasher, passwords: Passwords
) -> Station:
    """A server's parts; two on one database are two replicas."""
    sealer = Sealer([b"a secret of the operator's"])
    keyring = Keyring(database, sealer, clock)
    await keyring.prepare()
    audit = Audit(database, keyring, clock)
    keys = SigningKeys(database, sealer, clock, token_lifetime=HOUR)
    await keys.renew()
    tokens = AccessTokens(
        keys, clock, issuer="https://station.example", audience="stationmaster", lifetime=HOUR
    )
    resolver = Resolver(database, hasher, clock)
    sign_ins = SignIns(
        database=database,
        passwords=passwords,
        tokens=tokens,
        families=Families(hasher, clock, lifetime=30 * DAY),
        lockout=Lockout(hasher, clock),
        recorder=audit,
        clock=clock,
        operator=OPERATOR,
        forget=resolver.forget_key,
    )
    resolver.admit(sign_ins)
    return Station(
        database,
        clock,
        sealer,
        passwords,
        keys,
        tokens,
        resolver,
        audit,
        Chains(database, keyring, clock),
        sign_ins,
    )
