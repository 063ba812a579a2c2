"""How an agent is launched. For use from `base`, whose vocabulary this is a part of."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """What one agent, all its processes together, may use."""

    memory_bytes: int = 2 * 1024**3
    processes: int = 256
    file_bytes: int = 1024**3
    cpu_seconds: int = 3600
    disk_bytes: int = 1024**3


@dataclass(frozen=True, slots=True)
class CustomTool:
    """A tool that the client runs, by its declared name; `input_schema` is a JSON schema."""

    name: str
    description: str
    input_schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SubAgent:
    """An agent that the agent may give work to.

    `tools` restricts; None is what the agent itself has. `model` None is the agent's own. It gives
    no work on.
    """

    name: str
    description: str
    prompt: str
    tools: tuple[str, ...] | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class McpServer:
    """A tool server of the operator's: a command run beside the agent, or a URL.

    A command has `env`, a PATH and a home in its environment, and no secret of anybody else's; what
    stands in `env` the agent can read. A URL is connected to by the server, with `headers` that the
    agent never sees. No request makes one of these.
    """

    name: str
    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    url: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skill:
    """A directory of the operator's with a SKILL.md, shown to the agent read-only."""

    name: str
    directory: Path


class TranscriptSink(Protocol):
    """Where agents' histories are kept: JSON objects in order, by `session` and `subpath`.

    `session` is the agent's own session id; `subpath` None is the conversation itself, others are
    those of its sub-agents. Appends of one agent come one after another. After an error one may
    come again: an entry with a `uuid` counts once.
    """

    async def append(
        self, session: str, subpath: str | None, entries: Sequence[dict[str, Any]]
    ) -> None:
        """Add `entries` at the end; they are safe when this returns."""
        ...

    async def load(self, session: str, subpath: str | None) -> list[dict[str, Any]] | None:
        """Every entry in order; None where there is no such history."""
        ...

    async def subpaths(self, session: str) -> list[str]:
        """The subpaths of a session that have entries."""
        ...


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """How to start one agent for one session.

    `workspace` and `home` exist; `home` belongs to this session alone. `directory` is where the
    agent starts, inside the workspace; None is the workspace itself. `owned` is the part of the
    workspace that it may change, while others work in the rest; None is all of it.
    `gateway_socket` is the unix socket and `gateway_url` the loopback address of the same model
    gateway; `token` is the run token, the only credential the agent ever gets. `tools` restricts:
    None is the server's default set, an empty tuple none at all. `add_env` goes into the agent's
    otherwise empty environment. `own_login` has the agent call its vendor with the login that it
    was made with, and not the gateway: nothing meters it, and only `max_cost_usd`, a bound that
    the agent keeps by itself, limits what it spends.

    `gated` puts every tool call to the turn's `Host` before it happens. `output_schema` is a JSON
    schema for `Finished.structured`. `agent_session_id` is the uuid that the history gets; None
    makes one up. `resume` is the uuid of a history to go on with, which must be in `transcripts`,
    or without those in `home`. Given another `agent_session_id` as well, the agent goes on with a
    copy under that id, which ends at the `Finished.position` `resume_at` where one is given.

    With `readonly` nothing in the workspace can be changed, whatever the agent runs. `ahead` says
    that nobody waits for it yet: the agent then does at its start what else its first turn would
    wait for.
    """

    session_id: str
    workspace: Path
    home: Path
    gateway_socket: Path
    gateway_url: str
    token: str
    model: str
    system_prompt: str | None = None
    tools: tuple[str, ...] | None = None
    permission_mode: Literal["default", "acceptEdits", "bypassPermissions", "plan"] = (
        "bypassPermissions"
    )
    directory: Path | None = None
    owned: Path | None = None
    max_turns: int | None = None
    resume: str | None = None
    limits: Limits = field(default_factory=Limits)
    readonly: bool = False
    add_env: dict[str, str] = field(default_factory=dict)
    own_login: bool = False
    max_cost_usd: float | None = None
    custom_tools: tuple[CustomTool, ...] = ()
    sub_agents: tuple[SubAgent, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    skills: tuple[Skill, ...] = ()
    output_schema: dict[str, Any] | None = None
    gated: bool = False
    agent_session_id: str | None = None
    resume_at: str | None = None
    transcripts: TranscriptSink | None = None
    ahead: bool = False

    def launch_key(self) -> str:
        """Equal for specs whose fresh agents can stand for each other: all that a launch binds.

        Not what a slot brings along: token, session, history, workspace and home. What starts with
        a history is never the same as what starts without.
        """
        bound = {name: getattr(self, name) for name in _BOUND}
        for name in ("directory", "owned"):
            path: Path | None = getattr(self, name)
            bound[name] = None if path is None else os.path.relpath(path, self.workspace)
        bound["resumes"] = self.resume is not None
        written = json.dumps(bound, sort_keys=True, default=_plain)
        return hashlib.sha256(written.encode()).hexdigest()


_SLOTS_OWN = {
    *("session_id", "workspace", "home", "token", "directory", "owned", "transcripts"),
    *("agent_session_id", "resume", "resume_at", "ahead"),
}
_BOUND = tuple(each.name for each in fields(LaunchSpec) if each.name not in _SLOTS_OWN)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
