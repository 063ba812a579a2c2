"""What models were asked and answered, kept where a project switched that on."""

from stationmaster.calls.call import CallKeeper, KeptCall, Said, Sought
from stationmaster.calls.calls import Calls
from stationmaster.calls.policy import Pattern, Policy
from stationmaster.calls.writer import Writer

__all__ = [
    "CallKeeper",
    "Calls",
    "KeptCall",
    "Pattern",
    "Policy",
    "Said",
    "Sought",
    "Writer",
]
