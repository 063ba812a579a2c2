"""Background work that survives a crash: the outbox, its handlers, and who is alive."""

from stationmaster.jobs.instances import Instances
from stationmaster.jobs.lease import Lease
from stationmaster.jobs.outbox import Handler, Job, Outbox, Parked, Runner

__all__ = ["Handler", "Instances", "Job", "Lease", "Outbox", "Parked", "Runner"]
