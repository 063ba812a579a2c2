"""Which rung of the ladder can be had here: found by trying, not by guessing."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from stationmaster.agents.base import AgentUnavailable, LaunchSpec
from stationmaster.agents.claude_code import ownership, sandbox
from stationmaster.agents.claude_code.launcher import AgentProcess, finish
from stationmaster.agents.claude_code.sandbox import INSIDE_CLI, Cell, Rung, Tools

_log = structlog.get_logger(__name__)

Policy = Literal["auto", "require", "off"]

_PROBE_SECONDS = 10.0
# Proves what matters: its own workspace can be written, and what lies beside it is not there.
_TRIAL = 'touch "$PWD/written" && ! test -e "$PWD/../beside" && ! kill -0 "$0" 2>/dev/null'

_WARNINGS: dict[Rung, str] = {
    "user": "Agents run under user ids of their own but without a sandbox: they reach the network"
    " and see what every user of this machine sees.",
    "limits": "Agents run as the server's own user: they can read its environment, its database"
    " and every workspace.",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """The rung that agents get. `reason` says why it is not a better one; empty for the best."""

    rung: Rung
    reason: str
    tools: Tools
    privileged: bool

    def wrap(self, cell: Cell) -> list[str]:
        """The command that confines and runs the CLI; its arguments follow."""
        if self.rung == "bubblewrap":
            return [
                *sandbox.armed(self.tools, cell, os.getpid(), drop=False),
                *sandbox.bubblewrap(self.tools, cell, privileged=self.privileged),
                INSIDE_CLI,
            ]
        drop = self.rung == "user"
        return [*sandbox.armed(self.tools, cell, os.getpid(), drop=drop), str(cell.cli)]


class Prober:
    """Finds the rung once. `make_cell` builds the cell of a trial, as it does for an agent.

    The trial's processes have `marker` in their environment, as an agent's have theirs.
    """

    def __init__(
        self,
        make_cell: Callable[[LaunchSpec, int | None], Cell],
        *,
        policy: Policy,
        uid_base: int,
        marker: str,
    ) -> None:
        self._make_cell = make_cell
        self._policy = policy
        self._uid_base = uid_base
        self._marker = marker
        self._lock = asyncio.Lock()
        self._found: Probe | None = None

    @property
    def own_uids(self) -> bool:
        """Whether each slot has a user id of its own. Known after the first probe."""
        return self._found is not None and self._found.rung != "limits" and os.getuid() == 0

    async def probe(self, scratch: Path, cli: Path) -> Probe:
        """The best rung that the policy allows; see `ClaudeCodeAgent.probe`."""
        async with self._lock:
            if self._found is None:
                self._found = await self._find(scratch, cli)
            return self._found

    async def _find(self, scratch: Path, cli: Path) -> Probe:
        tools = sandbox.find_tools()
        root = os.getuid() == 0
        if self._policy == "off":
            return self._warned(Probe("limits", "SANDBOX is off.", tools, root))
        trouble = await self._try_bubblewrap(tools, scratch, privileged=root)
        if not trouble:
            return Probe("bubblewrap", "", tools, root)
        if self._policy == "require":
            raise AgentUnavailable(
                f"SANDBOX=require, but bubblewrap does not work here: {trouble}"
                " Install the packages bubblewrap and socat, and allow user namespaces.",
                code="sandbox_unavailable",
            )
        if root and ownership.reachable(cli):
            return self._warned(Probe("user", trouble, tools, root))
        return self._warned(Probe("limits", trouble, tools, root))

    async def _try_bubblewrap(self, tools: Tools, scratch: Path, *, privileged: bool) -> str:
        missing = [
            name
            for name in ("bwrap", "socat", "setpriv", "prlimit")
            if getattr(tools, name) is None
        ]
        if missing:
            return f"{', '.join(missing)} not found."
        await asyncio.to_thread(scratch.mkdir, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="probe-", dir=scratch) as directory:
            # To its end: a thread that is left behind would write into what is being deleted.
            spec = await finish(asyncio.to_thread(_trial_spec, Path(directory)))
            uid = self._uid_base if privileged else None
            if uid is not None:
                os.chown(spec.workspace, uid, uid)
            cell = await finish(asyncio.to_thread(self._make_cell, spec, uid))
            words = [
                *sandbox.armed(tools, cell, os.getpid(), drop=False),
                *sandbox.bubblewrap(tools, cell, privileged=privileged),
                *("/bin/sh", "-c", _TRIAL, str(os.getpid())),
            ]
            return await _run(words, spec.workspace, self._marker)

    def _warned(self, probe: Probe) -> Probe:
        _log.warning(_WARNINGS[probe.rung], rung=probe.rung, reason=probe.reason)
        return probe


def _trial_spec(directory: Path) -> LaunchSpec:
    workspace, home, beside = directory / "workspace", directory / "home", directory / "beside"
    for path in (workspace, home, beside):
        path.mkdir()
    socket = directory / "gateway.sock"
    socket.touch()
    return LaunchSpec(
        session_id="probe",
        workspace=workspace.resolve(),
        home=home.resolve(),
        gateway_socket=socket,
        gateway_url="http://127.0.0.1:1",
        token="",
        model="probe",
    )


async def _run(words: list[str], cwd: Path, marker: str) -> str:
    """Run it; what went wrong, or the empty string. Nothing is left of it."""
    try:
        process = await AgentProcess.start(
            words, env={"PATH": sandbox.SYSTEM_PATH}, cwd=cwd, marker=marker, uid=None
        )
    except AgentUnavailable as error:
        return error.message
    try:
        code = await process.wait(at_most=_PROBE_SECONDS)
    finally:
        # A bubblewrap that is killed while it starts leaves the process inside.
        await finish(process.kill())
    if code is None:
        return f"the trial did not end within {_PROBE_SECONDS:g} s."
    said = process.stderr_tail[-500:]
    return "" if code == 0 else f"the trial ended with {code}: {said or 'no output'}."
