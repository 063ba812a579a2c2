"""The ladder of confinement, and the command line of each rung.

    bubblewrap   own namespaces; sees its workspace, its home, a read-only system, one socket
    user         a user id of its own for each slot; the server must be root
    limits       the server's user, with resource limits only

With bubblewrap a root server mounts as root and then drops to the slot's own user id inside, so
that the data directory may lie anywhere; another server uses an unprivileged user namespace.
"""

import os
import resource
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stationmaster.agents.base import AgentUnavailable, Limits, Skill

Rung = Literal["bubblewrap", "user", "limits"]

# Where things are inside. The port is free there: the network namespace is the agent's own.
INSIDE_WORKSPACE = "/workspace"
# Where the API has the files of a session: a link into the workspace.
INSIDE_SESSION = "/mnt/session"
INSIDE_CLI = "/opt/claude-code/claude"
INSIDE_PLUGIN = "/opt/claude-code/plugin"
INSIDE_SOCKET = "/run/gateway.sock"
INSIDE_PORT = 4180
INSIDE_TMP = "/tmp"  # noqa: S108  the sandbox's own, which nobody shares
_INSIDE_SHM = "/dev/shm"  # noqa: S108  likewise
# The user id that an unprivileged user namespace shows; nothing outside has it.
INSIDE_UID = 1000

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

# What programs read in /etc and what holds no secret. Bound read-only where it exists.
_ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "fonts",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
)
_SYSTEM_DIRS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_RESERVED = (
    *("/usr", "/etc", "/proc", "/sys", "/dev", "/run", "/opt/claude-code"),
    *(INSIDE_WORKSPACE, INSIDE_SESSION),
)

# /dev/shm is memory that no process's size shows; browsers and Python's multiprocessing want some.
_SHM_BYTES = 64 * 1024**2
# Below this the CLI's own threads would not start: the kernel counts threads as processes.
_OWN_THREADS = 64
_OPEN_FILES = 8192

# Kills itself if the server died before the parent-death signal was armed; $0 is the server's pid.
_ARMED = '[ "$PPID" = "$0" ] || exit 113; exec "$@"'
# $0 is the directory to start in, which bwrap itself, without its capabilities, may not enter.
# The forwarder must not hold the CLI's stdout: the server waits for its end.
_FORWARD = (
    'cd "$0" || exit 114; '
    f"socat TCP4-LISTEN:{INSIDE_PORT},bind=127.0.0.1,fork,reuseaddr,backlog=128"
    f' UNIX-CONNECT:{INSIDE_SOCKET} </dev/null >/dev/null 2>&1 & exec "$@"'
)


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs of the system that confinement needs, as absolute paths; None where missing."""

    bwrap: str | None
    socat: str | None
    setpriv: str | None
    prlimit: str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One agent's place. `uid` is its slot's own user id, None where it keeps the server's.

    `directory`, inside the workspace, is where it starts. `etc` is a directory with the synthetic
    passwd, group, hosts and nsswitch.conf; `manifest` one with what makes `skills` a plugin.
    """

    workspace: Path
    directory: Path
    home: Path
    socket: Path
    cli: Path
    etc: Path
    uid: int | None
    limits: Limits
    readonly: tuple[Path, ...]
    tmp_bytes: int
    manifest: Path | None = None
    skills: tuple[Skill, ...] = ()
    frozen: bool = False

    @property
    def binding(self) -> str:
        """How the workspace is put in: `frozen`, nothing in it can be changed."""
        return "--ro-bind" if self.frozen else "--bind"


def find_tools() -> Tools:
    """Look where the system keeps them; the server's own PATH is not asked."""

    def find(name: str) -> str | None:
        for directory in ("/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin"):
            path = Path(directory, name)
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
        return None

    return Tools(find("bwrap"), find("socat"), find("setpriv"), find("prlimit"))


def write_etc(directory: Path, uid: int) -> Path:
    """Write the synthetic part of /etc for one user id; return its directory. Idempotent."""
    etc = directory / f"etc-{uid}"
    etc.mkdir(parents=True, exist_ok=True)
    files = {
        "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{uid}:{uid}:agent:/:/bin/bash\n",
        "group": f"root:x:0:\nagent:x:{uid}:\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for name, content in files.items():
        path = etc / name
        if not path.is_file() or path.read_text() != content:
            # Replaced as a whole: another agent may be starting from it.
            written = etc / f".{name}.{os.getpid()}.{threading.get_ident()}"
            written.write_text(content)
            written.replace(path)
    return etc


def check_directory(path: Path, what: str) -> Path:
    """Return `path` if it can be a workspace or home: real, absolute, not part of the system."""
    code = f"agent_{what}_missing"
    if not path.is_absolute() or not path.is_dir():
        raise AgentUnavailable(f"The {what} is not an existing directory.", code=code)
    if path.resolve() != path:
        raise AgentUnavailable(f"The {what}'s path goes through a link.", code=code)
    if len(path.parts) < 2 or any(path.is_relative_to(taken) for taken in _RESERVED):
        raise AgentUnavailable(f"The {what} may not be a directory of the system.", code=code)
    return path


def check_readonly(paths: Sequence[Path], state_dir: Path) -> tuple[Path, ...]:
    """Return the operator's extra read-only paths; raise `AgentUnavailable` for a dangerous one."""
    for path in paths:
        if not path.is_absolute() or not path.exists():
            raise AgentUnavailable(
                f"SANDBOX_READONLY names {path}, which is not an existing absolute path.",
                code="sandbox_readonly_invalid",
            )
        if state_dir.is_relative_to(path.resolve()) or path.resolve().is_relative_to(state_dir):
            raise AgentUnavailable(
                f"SANDBOX_READONLY names {path}, which would show the server's data to agents.",
                code="sandbox_readonly_invalid",
            )
    return tuple(paths)


def armed(tools: Tools, cell: Cell, server_pid: int, *, drop: bool) -> list[str]:
    """The front of every command: die with the server, its limits, and with `drop` its user id."""
    if tools.setpriv is None or tools.prlimit is None:
        raise AgentUnavailable(
            "setpriv and prlimit are not installed; install the package util-linux.",
            code="agent_tools_missing",
        )
    identity = _identity(cell) if drop else []
    return [
        *(tools.setpriv, *identity, "--pdeathsig", "KILL", "--"),
        *("/bin/sh", "-c", _ARMED, str(server_pid)),
        *(tools.prlimit, *_limits(cell.limits, drop=drop), "--"),
    ]


def bubblewrap(tools: Tools, cell: Cell, *, privileged: bool) -> list[str]:
    """The command line in front of the CLI's own that builds the sandbox.

    No secret may stand here: every user of the machine can read it. Order matters: a later mount
    covers an earlier one.
    """
    assert tools.bwrap is not None
    return [
        tools.bwrap,
        *_namespaces(privileged=privileged),
        *_system(cell),
        *("--size", str(cell.tmp_bytes), "--perms", "1777", "--tmpfs", INSIDE_TMP),
        *_bound("--ro-bind", cell.cli, INSIDE_CLI),
        *_bound("--bind", cell.socket, INSIDE_SOCKET),
        *_plugin(cell),
        *_parents((*cell.readonly, cell.workspace, cell.home)),
        *(word for path in cell.readonly for word in _bound("--ro-bind", path, str(path))),
        *_bound(cell.binding, cell.workspace, str(cell.workspace)),
        *_bound(cell.binding, cell.workspace, INSIDE_WORKSPACE),
        *_parents((Path(INSIDE_SESSION),)),
        *("--symlink", f"{INSIDE_WORKSPACE}{INSIDE_SESSION}", INSIDE_SESSION),
        *_bound("--bind", cell.home, str(cell.home)),
        # The root itself is memory without a bound: what is written there must fail.
        *("--remount-ro", "/"),
        "--",
        *_inner(tools, cell, privileged=privileged),
    ]


def _namespaces(*, privileged: bool) -> list[str]:
    common = ["--die-with-parent", "--new-session"]
    if privileged:
        # As root bwrap would keep every capability; these are for the drop below.
        return [
            *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
            *("--unshare-cgroup-try", "--hostname", "agent", *common),
            *("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
            *("--cap-add", "CAP_SETPCAP"),
        ]
    return [
        *("--unshare-all", "--unshare-user", "--hostname", "agent", *common),
        *("--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--disable-userns"),
    ]


def _system(cell: Cell) -> list[str]:
    inside = [Path(INSIDE_CLI), Path(INSIDE_SOCKET), *(Path("/etc", name) for name in _ETC)]
    words = [*_parents(inside), "--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_DIRS:
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for name in _ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in ("passwd", "group", "hosts", "nsswitch.conf"):
        words += _bound("--ro-bind", cell.etc / name, f"/etc/{name}")
    return [
        *words,
        *("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
        *("--size", str(_SHM_BYTES), "--perms", "1777", "--tmpfs", _INSIDE_SHM),
    ]


def _plugin(cell: Cell) -> list[str]:
    if cell.manifest is None or not cell.skills:
        return []
    inside = Path(INSIDE_PLUGIN)
    shown = [(cell.manifest, inside / ".claude-plugin")]
    shown += [(skill.directory, inside / "skills" / skill.name) for skill in cell.skills]
    words = _parents([target for _, target in shown])
    return [*words, *(w for each in shown for w in _bound("--ro-bind", each[0], str(each[1])))]


def _parents(paths: Sequence[Path]) -> list[str]:
    # Left to itself bwrap makes them for its own user alone.
    parents = {parent for path in paths for parent in path.parents if len(parent.parts) > 1}
    return [word for each in sorted(parents) for word in ("--perms", "0755", "--dir", str(each))]


def _inner(tools: Tools, cell: Cell, *, privileged: bool) -> list[str]:
    # The bound on processes is set inside: only there does it count this agent's alone.
    nproc = cell.limits.processes + _OWN_THREADS
    identity = [str(tools.setpriv), *_identity(cell), "--"] if privileged else []
    return [
        *(str(tools.prlimit), f"--nproc={nproc}:{nproc}", "--"),
        *identity,
        *("/bin/sh", "-c", _FORWARD, str(cell.directory)),
    ]


def _identity(cell: Cell) -> list[str]:
    if cell.uid is None:
        return []
    return [
        *("--reuid", str(cell.uid), "--regid", str(cell.uid), "--clear-groups"),
        *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"),
    ]


def _limits(limits: Limits, *, drop: bool) -> list[str]:
    # Address space is not limited: the CLI reserves far more than it uses. The watcher looks.
    wanted = {
        "core": (resource.RLIMIT_CORE, 0),
        "fsize": (resource.RLIMIT_FSIZE, limits.file_bytes),
        "cpu": (resource.RLIMIT_CPU, limits.cpu_seconds),
        "nofile": (resource.RLIMIT_NOFILE, _OPEN_FILES),
    }
    if drop:
        wanted["nproc"] = (resource.RLIMIT_NPROC, limits.processes + _OWN_THREADS)
    words = []
    for name, (which, value) in wanted.items():
        _, hard = resource.getrlimit(which)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        words.append(f"--{name}={bound}:{bound}")
    return words


def _bound(how: str, source: Path, target: str) -> tuple[str, str, str]:
    return how, str(source), target
