"""User ids for agents, of which no two agents of this machine may have the same one."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from stationmaster.agents.base import AgentUnavailable
from stationmaster.agents.claude_code.processes import read_table

# As many live agents as one machine can have.
MAX_UIDS = 1000


@dataclass(slots=True)
class UidLease:
    """A user id that is this server's until `release`, or until the server ends however it ends.

    The lock is the name of an abstract socket: the kernel gives it to one process of the machine
    and takes it back from a dead one.
    """

    uid: int
    _lock: socket.socket = field(repr=False)

    def release(self) -> None:
        """Give it back. Idempotent."""
        self._lock.close()


def lease_uid(candidates: Iterable[int]) -> UidLease:
    """Lease the first of `candidates` that nobody holds and no process runs as.

    Reads the process table: call it in a thread. Raises `AgentUnavailable` where none is left.
    """
    running = {process.uid for process in read_table().values() if process.alive}
    for uid in candidates:
        if uid in running:
            continue
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0stationmaster-agent-uid-{uid}")
        except OSError:
            lock.close()
            continue
        return UidLease(uid, lock)
    raise AgentUnavailable("Every user id for agents is in use.", code="agent_slots_exhausted")
