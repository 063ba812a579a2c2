"""`stationmaster serve`."""

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


def serve(
    *,
    host: Annotated[str | None, typer.Option("--host", help="HOST")] = None,
    port: Annotated[int | None, typer.Option("--port", help="PORT; 0 takes a free one.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="PATH", help="DATA_DIR")
    ] = None,
    max_workers: Annotated[int | None, typer.Option("--max-workers", help="MAX_WORKERS")] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", help="PROVIDER: auto, anthropic or offline.")
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option("--sandbox", help="SANDBOX: auto, require or off.")
    ] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="LOG_LEVEL")] = None,
    log_format: Annotated[
        str | None, typer.Option("--log-format", help="LOG_FORMAT: json or console.")
    ] = None,
) -> None:
    """Start the server. Each option wins over the setting it names; the others hold as they are.

    SIGTERM and Ctrl-C stop it in good order, a second one at once.
    """
    import uvloop

    from stationmaster import bootstrap
    from stationmaster.cli.settings import load

    settings = load(
        {
            "HOST": host,
            "PORT": None if port is None else str(port),
            "DATA_DIR": None if data_dir is None else str(data_dir),
            "MAX_WORKERS": None if max_workers is None else str(max_workers),
            "PROVIDER": provider,
            "SANDBOX": sandbox,
            "LOG_LEVEL": log_level,
            "LOG_FORMAT": log_format,
        }
    )
    try:
        uvloop.run(bootstrap.serve(settings, announce=lambda server: announce(server, settings)))
    except bootstrap.JobFailed:  # with EPHEMERAL: its log says why
        raise typer.Exit(int(Exit.FAILED)) from None


def announce(server: "Listening", settings: "Settings") -> None:
    """Say on stdout where the server is and how it works. Log lines go to stderr."""
    application = server.application
    model = "the built-in offline script" if settings.provider == "offline" else settings.provider
    lines = [
        f"Stationmaster {__version__} is ready at {server.url}",
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
