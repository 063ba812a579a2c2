"""Claude Code as a kind of agent: finds the best rung, launches, watches, reaps."""

import asyncio
import importlib.util
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import structlog

from stationmaster.agents import admission
from stationmaster.agents.base import AgentLimitExceeded, AgentUnavailable, LaunchSpec, LiveAgent
from stationmaster.agents.claude_code import (
    command,
    login,
    outfit,
    ownership,
    sandbox,
)
from stationmaster.agents.claude_code.frames import MAX_FRAME_BYTES
from stationmaster.agents.claude_code.launcher import AgentProcess, finish
from stationmaster.agents.claude_code.login import SubscriptionLogin
from stationmaster.agents.claude_code.mask import Mask
from stationmaster.agents.claude_code.probe import Probe, Prober
from stationmaster.agents.claude_code.reaper import Reaper
from stationmaster.agents.claude_code.sandbox import Cell
from stationmaster.agents.claude_code.sentinel import Sentinel
from stationmaster.agents.claude_code.uids import MAX_UIDS, UidLease, lease_uid
from stationmaster.agents.claude_code.watcher import Watched, Watcher

if TYPE_CHECKING:
    from stationmaster.agents.claude_code.live import LiveClaude

_log = structlog.get_logger(__name__)

_TMP_BYTES = 256 * 1024**2
_LAUNCH_SECONDS = 30.0
_REAP_EVERY_SECONDS = 30.0
_TRIAL = "trial"  # the slot of the process that finds out how agents can be confined


@dataclass(slots=True)
class _Slot:
    name: str
    spec: LaunchSpec
    lease: UidLease | None = None
    login: dict[str, Any] | None = None

    @property
    def uid(self) -> int | None:
        return self.lease.uid if self.lease is not None else None


@dataclass(frozen=True, slots=True)
class OwnLogin:
    """A login for agents that call Anthropic themselves, and the egress proxy's socket."""

    kept: SubscriptionLogin
    socket: Path


class ClaudeCodeAgent:
    """Launches the CLI, each in its own slot.

    `state_dir` is the server's data directory, which agents must not see. `sandbox` is `auto` (the
    best rung there is), `require` (bubblewrap or nothing) or `off` (limits only). `readonly_paths`
    are shown to agents beside /usr. `cli_path` replaces the bundled CLI. A root server gives each
    live agent a user id from `agent_uid_base` on. `own_login` is what agents get whose spec says
    `own_login`. Nothing starts before `launch`, `probe` or `reap`.
    """

    name = "claude_code"
    default_tools = command.DEFAULT_TOOLS
    known_tools = command.KNOWN_TOOLS

    def __init__(
        self,
        *,
        state_dir: Path,
        sandbox: Literal["auto", "require", "off"] = "auto",
        readonly_paths: Sequence[Path] = (),
        cli_path: Path | None = None,
        agent_uid_base: int = 64000,
        own_login: OwnLogin | None = None,
        tmp_bytes: int = _TMP_BYTES,
        launch_timeout: float = _LAUNCH_SECONDS,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._state_dir = state_dir.absolute()
        self._readonly_paths = tuple(readonly_paths)
        self._cli_path = cli_path
        self._login = own_login
        self._uids = range(agent_uid_base, agent_uid_base + MAX_UIDS)
        self._tmp_bytes = tmp_bytes
        self._launch_timeout = launch_timeout
        self._max_frame_bytes = max_frame_bytes
        self._slots: dict[str, _Slot] = {}
        self._live: dict[str, LiveClaude] = {}
        self._reaper = Reaper(self._state_dir, lambda: {*self._slots, _TRIAL})
        self._sentinel = Sentinel(self._reaper.mark(""))
        self._watcher = Watcher()
        self._prober = Prober(
            self._cell, policy=sandbox, uid_base=agent_uid_base, marker=self._reaper.mark(_TRIAL)
        )
        self._slot_freed = asyncio.Event()
        self._background: asyncio.Task[None] | None = None
        self._closed = False

    async def probe(self) -> Probe:
        """The rung that agents get, found by running it once. Bounded to some seconds; cached.

        Raises `AgentUnavailable` where the policy is `require` and bubblewrap does not run, or
        where there is no CLI.
        """
        self._sentinel.stand_by()
        return await self._prober.probe(self._state_dir / "sandbox", self._find_cli())

    async def launch(self, spec: LaunchSpec) -> LiveAgent:
        """Start one; see `Agent.launch`. Also raises `Invalid` for a spec that cannot be run."""
        if self._closed:
            raise AgentUnavailable("The server is stopping.", code="agent_stopping")
        admission.check(spec, known=self.known_tools, default=self.default_tools)
        found = await self.probe()
        if spec.own_login:
            self._check_login(found)
        self._start_background()
        await asyncio.to_thread(sandbox.check_directory, spec.workspace, "workspace")
        await asyncio.to_thread(sandbox.check_directory, spec.home, "home")
        if spec.resume is not None or spec.agent_session_id is not None:
            history = await _import("history")
            await history.restore(spec)
        own_id = spec.agent_session_id or spec.resume or str(uuid4())
        slot = _Slot(secrets.token_hex(8), replace(spec, agent_session_id=own_id))
        self._slots[slot.name] = slot
        process: AgentProcess | None = None
        live: LiveClaude | None = None
        try:
            if self._prober.own_uids:
                await finish(self._lease(slot))
            process = await self._start_process(slot, found)
            live = await self._make_live(slot, process, found)
            await live.connect(timeout=self._launch_timeout)
        except BaseException:
            if live is not None:
                await live.close()
            else:
                if process is not None:
                    await finish(process.kill())
                await finish(self._release(slot))
            raise
        return live

    async def reap(self) -> int:
        """Kill what an earlier server left behind; return how many agents that was."""
        self._start_background()
        return await self._reaper.reap()

    def alive(self) -> int:
        """How many agents have a process now, counted from the operating system."""
        return self._reaper.alive()

    async def aclose(self) -> None:
        """Close every live agent and stop the background work. Idempotent."""
        self._closed = True
        await finish(self._end())

    # --- one launch ---------------------------------------------------------------------------

    @property
    def has_login(self) -> bool:
        """Whether agents can be given a login of their own."""
        return self._login is not None

    @asynccontextmanager
    async def asked(self, spec: LaunchSpec, words: Sequence[str]) -> AsyncIterator[AgentProcess]:
        """The CLI with `words` in the place of an agent's, confined as an agent; killed at the end.

        Raises `AgentUnavailable`, and `Invalid` for a spec that cannot be run.
        """
        if self._closed:
            raise AgentUnavailable("The server is stopping.", code="agent_stopping")
        admission.check(spec, known=self.known_tools, default=self.default_tools)
        found = await self.probe()
        if spec.own_login:
            self._check_login(found)
        self._start_background()
        slot = _Slot(secrets.token_hex(8), spec)
        self._slots[slot.name] = slot
        process: AgentProcess | None = None
        try:
            if self._prober.own_uids:
                await finish(self._lease(slot))
            process = await self._start_process(slot, found, words)
            self._watch(slot, process, partial(_stop, process))
            yield process
        finally:
            if process is not None:
                await finish(process.kill())
            await finish(self._release(slot))

    async def _start_process(
        self, slot: _Slot, found: Probe, words: Sequence[str] | None = None
    ) -> AgentProcess:
        await self._prepare(slot, found)
        cell = await asyncio.to_thread(self._cell, slot.spec, slot.uid)
        boxed = found.rung == "bubblewrap"
        worn = await asyncio.to_thread(outfit.write_outfit, slot.spec, boxed=boxed)
        await finish(asyncio.to_thread(self._give_login, slot))
        if slot.uid is not None:
            await self._hand_over(slot)
        env = command.environment(
            slot.spec,
            boxed=boxed,
            root=os.getuid() == 0 and slot.uid is None,
            path=command.search_path(self._readonly_paths),
        )
        return await AgentProcess.start(
            [*found.wrap(cell), *(command.arguments(slot.spec, worn) if words is None else words)],
            env=env,
            cwd=slot.spec.directory or slot.spec.workspace,
            marker=self._reaper.mark(slot.name),
            uid=slot.uid,
        )

    async def _make_live(self, slot: _Slot, process: AgentProcess, found: Probe) -> "LiveClaude":
        # Tens of megabytes and a third of a second: an idle server does not carry the SDK.
        module = await _import("live")
        if self._closed:
            raise AgentUnavailable("The server is stopping.", code="agent_stopping")
        live: LiveClaude = module.LiveClaude(
            process,
            rung=found.rung,
            spec=slot.spec,
            max_frame_bytes=self._max_frame_bytes,
            before_turn=lambda: self._before_turn(slot),
            settled=lambda: self._watcher.rest(slot.name, resting=True),
            mask=Mask(login.tokens(slot.login)) if slot.login is not None else None,
            last_look=lambda: self._watcher.look_at(slot.name),
            released=lambda: self._release(slot),
        )
        self._live[slot.name] = live
        self._watch(slot, process, live.fail)
        return live

    def _watch(
        self, slot: _Slot, process: AgentProcess, exceeded: Callable[[AgentLimitExceeded], None]
    ) -> None:
        self._watcher.add(
            Watched(
                name=slot.name,
                limits=slot.spec.limits,
                directories=tuple(top for top, _ in _owned(slot.spec)),
                members=process.members,
                exceeded=exceeded,
            )
        )

    async def _prepare(self, slot: _Slot, found: Probe) -> None:
        spec = slot.spec
        if found.rung == "bubblewrap":
            way_out = self._socket(spec)
            if not await asyncio.to_thread(way_out.is_socket):
                raise AgentUnavailable(
                    "The gateway's socket is not there.", code="agent_gateway_missing"
                )
            if slot.uid is not None:
                # Who reaches the socket needs the run token as well; its directory guards it.
                await asyncio.to_thread(way_out.chmod, 0o666)
        elif spec.readonly and (spec.tools is None or "Bash" in spec.tools):
            raise AgentUnavailable(
                "Only bubblewrap keeps commands from changing a workspace: install it, or give"
                " the key a profile without Bash or with filesystem_access readwrite.",
                code="agent_readonly_unconfined",
            )
        if found.rung == "user" and not await asyncio.to_thread(
            lambda: ownership.reachable((spec.owned or spec.workspace).parent)
        ):
            raise AgentUnavailable(
                "An agent with its own user id cannot reach the workspace: let everybody pass"
                " through the directories above it (chmod o+rx), or install bubblewrap.",
                code="agent_workspace_unreachable",
            )
        await asyncio.to_thread(sandbox.check_readonly, self._readonly_paths, self._state_dir)

    async def _before_turn(self, slot: _Slot) -> None:
        self._watcher.rest(slot.name, resting=False)
        await self._hand_over(slot)

    async def _hand_over(self, slot: _Slot) -> None:
        """Files may have been put there since: the agent must own them to change them."""
        if slot.uid is not None:
            for top, mode in _owned(slot.spec):
                # To its end: it must not be at work when the directory is taken back.
                give = partial(ownership.hand_over, top, slot.uid, self._uids, mode)
                await finish(asyncio.to_thread(give))
            if slot.spec.owned is not None:
                await asyncio.to_thread(slot.spec.workspace.chmod, ownership.SHARED)

    def _cell(self, spec: LaunchSpec, uid: int | None) -> Cell:
        shown = sandbox.INSIDE_UID if uid is None else uid
        return Cell(
            workspace=spec.workspace,
            directory=spec.directory or spec.workspace,
            home=spec.home,
            socket=self._socket(spec),
            cli=self._find_cli(),
            etc=sandbox.write_etc(self._state_dir / "sandbox", shown),
            uid=uid,
            limits=spec.limits,
            readonly=self._readonly_paths,
            tmp_bytes=self._tmp_bytes,
            manifest=outfit.write_manifest(self._state_dir / "sandbox" / "skills"),
            skills=spec.skills,
            frozen=spec.readonly,
        )

    def _find_cli(self) -> Path:
        path = self._cli_path or bundled_cli()
        if path is None or not path.is_file() or not os.access(path, os.X_OK):
            raise AgentUnavailable(
                "The Claude Code CLI is not there; install claude-agent-sdk, which brings it.",
                code="agent_cli_missing",
            )
        return path.absolute()

    # --- a login of its own -------------------------------------------------------------------

    def _check_login(self, found: Probe) -> None:
        if self._login is None:
            raise AgentUnavailable("There is no login.", code="agent_login_missing")
        if found.rung != "bubblewrap":
            raise AgentUnavailable(
                "The agent's own login is used in the full sandbox alone: elsewhere nothing would"
                " limit where the agent connects to.",
                code="agent_login_unconfined",
            )

    def _socket(self, spec: LaunchSpec) -> Path:
        """The one socket that leads out of the sandbox."""
        return self._login.socket if spec.own_login and self._login else spec.gateway_socket

    def _give_login(self, slot: _Slot) -> None:
        if slot.spec.own_login and self._login is not None:
            slot.login = self._login.kept.give(slot.spec.home)
        else:
            # A server that was killed has not taken it back.
            login.remove(slot.spec.home)

    # --- slots --------------------------------------------------------------------------------

    async def _lease(self, slot: _Slot) -> None:
        slot.lease = await asyncio.to_thread(lease_uid, self._uids)

    async def _release(self, slot: _Slot) -> None:
        self._watcher.remove(slot.name)
        self._live.pop(slot.name, None)
        try:
            if slot.uid is not None:
                for top, mode in _owned(slot.spec):
                    await asyncio.to_thread(ownership.take_back, top, mode)
            if slot.login is not None and self._login is not None:
                await asyncio.to_thread(self._login.kept.take_back, slot.spec.home, slot.login)
        finally:
            self._slots.pop(slot.name, None)
            if slot.lease is not None:
                slot.lease.release()
            self._slot_freed.set()

    # --- background ---------------------------------------------------------------------------

    def _start_background(self) -> None:
        if self._background is None and not self._closed:
            self._background = asyncio.create_task(self._run_background())

    async def _run_background(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watcher.run())
            group.create_task(self._reap_now_and_then())

    async def _reap_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_REAP_EVERY_SECONDS)
            await self._reaper.reap()

    async def _end(self) -> None:
        while self._slots:
            self._slot_freed.clear()
            await asyncio.gather(*(live.close() for live in list(self._live.values())))
            # A launch that was under way ends by itself now.
            if self._slots:
                await self._slot_freed.wait()
        if self._background is not None:
            self._background.cancel()
            with suppress(asyncio.CancelledError):
                await self._background
            self._background = None
        self._sentinel.dismiss()


def _stop(process: AgentProcess, _: AgentLimitExceeded) -> None:
    """End a process that nobody talks to: its reader finds its output at an end."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _owned(spec: LaunchSpec) -> tuple[tuple[Path, int], ...]:
    """What the agent may change, and who else may look."""
    if spec.owned is None:
        return (spec.workspace, ownership.PRIVATE), (spec.home, ownership.PRIVATE)
    return (spec.owned, ownership.SHARED), (spec.home, ownership.PRIVATE)


async def _import(name: str) -> Any:
    """A module beside this one that needs the SDK."""
    return await asyncio.to_thread(
        importlib.import_module, f"stationmaster.agents.claude_code.{name}"
    )


def bundled_cli() -> Path | None:
    """The CLI in claude-agent-sdk's wheel, found without importing it; None where there is none."""
    found = importlib.util.find_spec("claude_agent_sdk")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations)), "_bundled", "claude")
    return path if path.is_file() else None
