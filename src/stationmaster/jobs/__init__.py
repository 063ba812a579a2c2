"""Background work that survives a crash: the outbox, its handlers, and who is alive."""

from stationmaster.jobs.broker import Broker
from stationmaster.jobs.instances import Instances
from stationmaster.jobs.lease import Lease
from stationmaster.jobs.outbox import TOPIC, Handler, Job, Outbox, Parked, Runner
from stationmaster.jobs.relay import Relay

__all__ = [
    "TOPIC",
    "Broker",
    "Handler",
    "Instances",
    "Job",
    "Lease",
    "Outbox",
    "Parked",
    "Relay",
    "Runner",
]
