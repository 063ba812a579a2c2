"""A private PgBouncer in transaction mode before the private PostgreSQL."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import make_url

from tests.support.services import missing


def find_program() -> str:
    """The installed program, which Debian keeps out of the path of users."""
    place = "/usr/sbin/pgbouncer"
    return shutil.which("pgbouncer") or (place if Path(place).exists() else missing("pgbouncer"))


@contextmanager
def pgbouncer(url: str, *, servers: int = 3) -> Iterator[str]:
    """The URL of the same database through PgBouncer, which has at most `servers` connections."""
    program = find_program()
    address = make_url(url)
    home = Path(tempfile.mkdtemp(prefix="stationmaster-pgbouncer-"))
    port = _free_port()
    (home / "users.txt").write_text(f'"{address.username}" "{address.password}"\n')
    (home / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={address.host} port={address.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {home / 'users.txt'}\npool_mode = transaction\n"
        f"default_pool_size = {servers}\nmax_client_conn = 500\nlogfile = {home / 'log'}\n"
    )
    setpriv = shutil.which("setpriv") or missing("setpriv")
    command = [setpriv, "--pdeathsig", "KILL"]
    if os.geteuid() == 0:  # it refuses to run as root
        user = pwd.getpwnam("nobody")
        for path in (home, *home.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
        command += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    process = subprocess.Popen(
        [*command, "--", program, "-q", str(home / "pgbouncer.ini")],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await(port, process, home / "log")
        shown = address.set(host="127.0.0.1", port=port)
        yield shown.render_as_string(hide_password=False)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        shutil.rmtree(home, ignore_errors=True)


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(400):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.025)
    raise RuntimeError("PgBouncer does not start:\n" + (log.read_text() if log.exists() else ""))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
