"""`stationmaster serve`."""

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster import __version__
from stationmaster.cli.exits import Exit
from stationmaster.cli.printing import safe, say, warn

if TYPE_CHECKING:
    from stationmaster.bootstrap import Listening
    from stationmaster.bootstrap.configuration import Settings

KEY_FILE = "admin-key"


Host = Annotated[str | None, typer.Option("--host", help="HOST")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="PATH", help="DATA_DIR")]
MaxWorkers = Annotated[int | None, typer.Option("--max-workers", help="MAX_WORKERS")]
Sandbox = Annotated[str | None, typer.Option("--sandbox", help="SANDBOX: auto, require or off.")]
LogLevel = Annotated[str | None, typer.Option("--log-level", help="LOG_LEVEL")]
LogFormat = Annotated[str | None, typer.Option("--log-format", help="LOG_FORMAT: json or console.")]


def serve(
    *,
    role: Annotated[
        str | None,
        typer.Option("--role", help="ROLE: all; or api, which runs no agents and no jobs."),
    ] = None,
    host: Host = None,
    port: Annotated[int | None, typer.Option("--port", help="PORT; 0 takes a free one.")] = None,
    data_dir: DataDir = None,
    max_workers: MaxWorkers = None,
    provider: Annotated[
        str | None, typer.Option("--provider", help="PROVIDER: auto, anthropic or offline.")
    ] = None,
    sandbox: Sandbox = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Start the server. Each option wins over the setting it names; the others hold as they are.

    SIGTERM and Ctrl-C stop it in good order, a second one at once.
    """
    _run(
        {
            "ROLE": role,
            "HOST": host,
            "PORT": port,
            "DATA_DIR": data_dir,
            "MAX_WORKERS": max_workers,
            "PROVIDER": provider,
            "SANDBOX": sandbox,
            "LOG_LEVEL": log_level,
            "LOG_FORMAT": log_format,
        }
    )


def worker(
    *,
    one_shot: Annotated[
        bool,
        typer.Option("--one-shot", help="EPHEMERAL: carry one run out and end with how it went."),
    ] = False,
    host: Host = None,
    port: Annotated[
        int | None, typer.Option("--port", help="WORKER_PORT; 0 takes a free one.")
    ] = None,
    data_dir: DataDir = None,
    max_workers: MaxWorkers = None,
    sandbox: Sandbox = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Run agents and jobs for servers on the same database (`serve --role api`).

    On its port it answers /live, /ready, /health and /metrics alone. SIGTERM lets what runs end, or
    hands it on.

    With --one-shot it waits for one run, carries it out, and ends with 0 where that completed, else
    with 1; stopped before it had one, with 0. A supervisor starts it anew.
    """
    _run(
        {
            "ROLE": "worker",
            "EPHEMERAL": True if one_shot else None,
            "HOST": host,
            "WORKER_PORT": port,
            "DATA_DIR": data_dir,
            "MAX_WORKERS": max_workers,
            "SANDBOX": sandbox,
            "LOG_LEVEL": log_level,
            "LOG_FORMAT": log_format,
        }
    )


def scheduler(
    *,
    host: Host = None,
    port: Annotated[
        int | None, typer.Option("--port", help="SCHEDULER_PORT; 0 takes a free one.")
    ] = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Do the periodic work of servers on the same database. Of several one works, others stand by.

    On its port it answers /live, /ready, /health and /metrics alone.
    """
    _run(
        {
            "ROLE": "scheduler",
            "HOST": host,
            "SCHEDULER_PORT": port,
            "DATA_DIR": data_dir,
            "LOG_LEVEL": log_level,
            "LOG_FORMAT": log_format,
        }
    )


def _run(options: dict[str, object]) -> None:
    """Serve with the settings and what was said on the command line over them."""
    # What a start makes stays: to look through it again and again takes a tenth of the start. The
    # server lets the collector in once it is ready.
    gc.disable()
    import uvloop

    from stationmaster import bootstrap
    from stationmaster.cli.settings import load

    given = {name: None if value is None else str(value) for name, value in options.items()}
    settings = load(given)
    try:
        uvloop.run(bootstrap.serve(settings, announce=lambda server: announce(server, settings)))
    except bootstrap.JobFailed:  # with EPHEMERAL: its log says why
        raise typer.Exit(int(Exit.FAILED)) from None


def announce(server: "Listening", settings: "Settings") -> None:
    """Say on stdout where the server is and how it works. Log lines go to stderr."""
    application = server.application
    model = "the built-in offline script" if settings.provider == "offline" else settings.provider
    what = "" if settings.role == "all" else f" ({settings.role})"
    lines = [
        f"Stationmaster {__version__}{what} is ready at {server.url}",
        f"  models    {model}",
        f"  sandbox   {application.sandbox}",
        f"  data      {safe(settings.data_dir)}",
        *(f"  note      {safe(warning)}" for warning in application.warnings),
    ]
    say("\n".join(lines))  # at once: whoever waits for the first line then has them all
    if application.new_admin_key is not None:
        show_key(application.new_admin_key, settings.data_dir)


def show_key(key: str, data_dir: Path) -> None:
    """Show the new admin key to a person; where there is only a log, keep it in a file instead."""
    if sys.stdout.isatty():
        say(f"  admin key {key}")
        say("            It is shown this once; keep it.")
        return
    path = data_dir / KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
    except OSError as error:
        warn(f"error: the admin key cannot be written to {path}: {error.strerror}.")
    else:
        say(f"  admin key in {safe(path)}; read it, then delete the file")
