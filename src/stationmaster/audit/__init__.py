"""The audit log: who did what, on what, from where, when, and how it went."""

from stationmaster.audit.audit import Audit, Sought
from stationmaster.audit.entry import Actor, Entry
from stationmaster.audit.keyring import Keyring
from stationmaster.audit.recorder import SILENT, Recorder
from stationmaster.audit.refusals import Refusals
from stationmaster.audit.verification import Chains, Fault, Verdict

__all__ = [
    "SILENT",
    "Actor",
    "Audit",
    "Chains",
    "Entry",
    "Fault",
    "Keyring",
    "Recorder",
    "Refusals",
    "Sought",
    "Verdict",
]
