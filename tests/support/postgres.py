"""A private PostgreSQL server on a free port, and a fresh database for each test that asks.

Each test worker starts its own server from the installed binaries; the machine's is never used.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.support.services import missing, private

_USER: Final = "stationmaster"
_PROGRAMS: Final = ("initdb", "postgres", "pg_isready", "createdb", "dropdb", "pg_basebackup")
_START_SECONDS: Final = 60
# Tests lose nothing in a power cut; without the waits for the disk they take half the time. What
# is committed must survive `pause` all the same: no `synchronous_commit=off`.
_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


class PostgresServer:
    """One running server. `url` addresses its databases."""

    def __init__(self, bin_dir: Path, home: Path, settings: Mapping[str, str] = _SETTINGS) -> None:
        self._bin = bin_dir
        self._home = home
        self._settings = settings
        self._password = secrets.token_urlsafe(18)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._names = iter(range(1, 1_000_000))

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self._port}/{database}"

    def create(self, template: str = "template0") -> str:
        """Make a database as a copy of another, to which nobody is connected; return its name."""
        name = f"test_{next(self._names)}"
        self._client("createdb", "--template", template, name)
        return name

    def drop(self, name: str) -> None:
        """Drop a database, and whoever is still connected."""
        self._client("dropdb", "--if-exists", "--force", name)

    def start(self) -> None:
        data = self._home / "data"
        password = self._home / "password"
        password.write_text(self._password)
        _own(password)
        self._run("initdb", "-D", str(data), "-U", _USER, "--auth=password", f"--pwfile={password}",
                  "--encoding=UTF8", "--locale=C", "--no-sync")  # fmt: skip
        self._launch(data)

    def pause(self) -> None:
        """Stop the server at once, as a crash would; `resume` starts it again on the same port."""
        self._stop(signal.SIGQUIT)

    def resume(self) -> None:
        self._launch(self._home / "data", port=self._port)

    def hang(self) -> None:
        """Take connections and answer nothing, until `wake`: every process of it stands still."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in (parent, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def speak_tls(self, directory: Path | None) -> None:
        """From now on, with `authority.pem` and `key.pem` of a directory; with None no more."""
        lines = ["ssl = off"]
        if directory is not None:
            self.speak_tls(None)  # to be seen to have changed
            names = {"ssl_cert_file": "authority.pem", "ssl_key_file": "key.pem",
                     "ssl_ca_file": "authority.pem"}  # fmt: skip
            lines = ["ssl = on", *(f"{key} = '{self._home / name}'" for key, name in names.items())]
            for name in set(names.values()):
                shutil.copyfile(directory / name, self._home / name)
                (self._home / name).chmod(0o600)
                _own(self._home / name)
        assert self._process is not None
        (self._home / "data" / "postgresql.auto.conf").write_text("\n".join([*lines, ""]))
        self._process.send_signal(signal.SIGHUP)
        for _ in range(_START_SECONDS * 20):
            with socket.create_connection(("127.0.0.1", self._port), timeout=10) as probe:
                probe.sendall(struct.pack("!ii", 8, 80877103))  # "do you speak TLS?"
                if probe.recv(1) == (b"N" if directory is None else b"S"):
                    return
            time.sleep(0.05)
        raise RuntimeError("PostgreSQL keeps its TLS as it was.")

    @property
    def rules(self) -> Path:
        """The file of who may come in; read again with each `speak_tls`."""
        return self._home / "data" / "pg_hba.conf"

    @property
    def port(self) -> int:
        return self._port

    def standby(self) -> "PostgresServer":
        """A copy of this server on another port that follows it. Stop it and delete its home."""
        home = Path(tempfile.mkdtemp(prefix="stationmaster-standby-"))
        _own(home)
        other = PostgresServer(self._bin, home, self._settings)
        other._password = self._password
        line = f"host=127.0.0.1 port={self._port} user={_USER} password={self._password}"
        self._run("pg_basebackup", "-d", line, "-D", str(home / "data"), "--write-recovery-conf",
                  "--checkpoint=fast", "--no-sync", "--wal-method=stream")  # fmt: skip
        other._launch(home / "data")
        return other

    def discard(self) -> None:
        """Stop it and delete all of it."""
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def stop(self) -> None:
        self._stop(signal.SIGINT)

    def _launch(self, data: Path, port: int | None = None) -> None:
        self._port = port or _free_port()
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        log = self._home / "log"
        with log.open("ab") as output:
            # The parent-death signal: a killed test run leaves no server behind.
            self._process = subprocess.Popen(
                [*_as_user(), "--pdeathsig", "INT", "--", str(self._bin / "postgres"),
                 "-D", str(data), "-p", str(self._port), *settings],
                stdout=output, stderr=output, cwd=self._home, start_new_session=True,
            )  # fmt: skip
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        tries = f"for _ in $(seq {_START_SECONDS * 20})"
        waiting = f"{tries}; do {' '.join(ready)} && exit 0; sleep .05; done; exit 1"
        if subprocess.run(["sh", "-c", waiting], check=False, capture_output=True).returncode:
            raise RuntimeError("PostgreSQL does not start:\n" + log.read_text()[-4000:])

    def _stop(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(timeout=30)
        self._process = None

    def _run(self, program: str, *args: str) -> None:
        command = [*_as_user(), "--", str(self._bin / program), *args]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._home, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _client(self, program: str, *args: str) -> None:
        command = [str(self._bin / program), "-h", "127.0.0.1", "-p", str(self._port), "-U", _USER]
        environment = {"PGPASSWORD": self._password, "PATH": os.environ["PATH"]}
        subprocess.run([*command, *args], env=environment, check=True, capture_output=True)


def _as_user() -> list[str]:
    """How to start a program of PostgreSQL, which refuses to run as root."""
    setpriv = shutil.which("setpriv") or missing("setpriv")
    if os.geteuid() != 0:
        return [setpriv]
    user = _system_user()
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _own(path: Path) -> None:
    if os.geteuid() == 0:
        user = _system_user()
        os.chown(path, user.pw_uid, user.pw_gid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_programs() -> Path | None:
    """The directory of the newest installed server's programs, all in one."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    places = [*sorted(versions, key=lambda path: float(path.parts[-2]), reverse=True)]
    if found := shutil.which("initdb"):
        places.append(Path(found).resolve().parent)
    whole = (place for place in places if all((place / name).exists() for name in _PROGRAMS))
    return next(whole, None)


@contextmanager
def private_server(bin_dir: Path, *, durable: bool = False) -> Iterator[PostgresServer]:
    """A server for as long as the block runs. `durable`: what it commits survives a power cut."""
    waits = {"fsync": "on", "full_page_writes": "on"} if durable else {}

    def made(home: Path) -> PostgresServer:
        _own(home)
        return PostgresServer(bin_dir, home, {**_SETTINGS, **waits})

    with private("postgres", made) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server of this test worker's own, started when first asked for."""
    with private_server(find_programs() or missing("postgresql")) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh, empty database, on SQLite and on PostgreSQL in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'stationmaster.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url
