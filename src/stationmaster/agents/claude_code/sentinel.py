"""A small process that outlives its server by a moment, and takes the server's agents with it.

The parent-death signal alone leaves gaps. Bubblewrap loses it when it drops rights, sets it again
some time after its fork without looking whether its parent still lives, and waits for a word that a
dead parent never says; and what an agent has started is not armed at all.
"""

import subprocess

import structlog

from stationmaster.agents.claude_code.processes import MARKER
from stationmaster.agents.claude_code.sandbox import SYSTEM_PATH

_log = structlog.get_logger(__name__)

# $0 stands in the environment of each of the server's agents, and of nobody else. The server never
# writes: the read ends when the server does. A supervisor that sends TERM to the whole group must
# not end this one first. A process between its fork and its exec does not show its environment yet:
# so this looks on until nothing was found for a second, and gives up after half a minute.
_SCRIPT = """
trap '' HUP INT TERM
read -r _
quiet=0 looks=0
while [ "$quiet" -lt 20 ] && [ "$looks" -lt 600 ]; do
    quiet=$((quiet + 1)) looks=$((looks + 1))
    for found in $(grep -Fzls -e "$0" /proc/[0-9]*/environ); do
        found=${found#/proc/} quiet=0
        kill -KILL "${found%/environ}"
    done
    sleep 0.05
done
"""


class Sentinel:
    """Stands by for one server. `prefix` is how the markers of all its agents begin."""

    def __init__(self, prefix: str) -> None:
        self._wanted = f"{MARKER}={prefix}"
        self._process: subprocess.Popen[bytes] | None = None

    def stand_by(self) -> None:
        """Be there before anything is started that must not stay. Takes a millisecond, once."""
        if self._process is not None and self._process.poll() is None:
            return
        self.dismiss()
        try:
            self._process = subprocess.Popen(  # noqa: S603  the words are ours
                ["/bin/sh", "-c", _SCRIPT, self._wanted],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": SYSTEM_PATH},
                start_new_session=True,
            )
        except OSError as error:
            # Agents still get the parent-death signal, and the next server's reaper finds the rest.
            _log.warning(
                "Nobody stands by to end the agents of a killed server.", reason=str(error)
            )

    def dismiss(self) -> None:
        """No agent is left: it may go. Idempotent."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()
