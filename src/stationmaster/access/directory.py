"""All verbs on who there is: organisations, their projects, people and programs."""

from dataclasses import dataclass
from typing import Self

from stationmaster.access.invites import Invites
from stationmaster.access.members import Members
from stationmaster.access.organizations import Organizations
from stationmaster.access.people import Users
from stationmaster.access.projects import Projects
from stationmaster.access.resolver import Resolver
from stationmaster.access.secret import Hasher
from stationmaster.access.service_accounts import ServiceAccounts
from stationmaster.audit import SILENT, Recorder
from stationmaster.kernel.clock import Clock
from stationmaster.storage import Database


@dataclass(frozen=True, slots=True)
class Directory:
    """Who there is."""

    organizations: Organizations
    projects: Projects
    users: Users
    members: Members
    invites: Invites
    service_accounts: ServiceAccounts

    @classmethod
    def of(
        cls,
        *,
        database: Database,
        hasher: Hasher,
        clock: Clock,
        resolver: Resolver,
        recorder: Recorder = SILENT,
    ) -> Self:
        """On one database. `resolver` forgets what it knows when somebody's rights change."""
        users = Users(database, clock, resolver, recorder=recorder)
        return cls(
            organizations=Organizations(
                database=database,
                hasher=hasher,
                clock=clock,
                resolver=resolver,
                recorder=recorder,
            ),
            projects=Projects(database, clock, resolver, recorder=recorder),
            users=users,
            members=Members(database, clock, resolver, recorder=recorder),
            invites=Invites(database, hasher, clock, users, recorder=recorder),
            service_accounts=ServiceAccounts(database, clock, resolver, recorder=recorder),
        )
