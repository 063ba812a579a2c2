"""Which server a command talks to, and with which key."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import Output

if TYPE_CHECKING:
    from stationmaster.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"
KEY_VARIABLE = "STATIONMASTER_API_KEY"
_MAX_KEY_FILE = 4096  # bytes; a key is 16 to 512 characters

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help=f"The server. Default: {DEFAULT_URL}."),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="PATH", help=f"A file with the API key, instead of {KEY_VARIABLE}."
    ),
]
OutputOption = Annotated[
    Output | None, typer.Option("--output", "-o", help="How to print: table or json.")
]


@dataclass(slots=True)
class Shared:
    """What was said before the command's name; `--output`, `--url` and so on may follow it too."""

    output: Output = Output.table
    url: str | None = None
    key_file: Path | None = None
    debug: bool = False

    def json(self, output: Output | None) -> bool:
        """Whether to print JSON, given the command's own option."""
        return (output or self.output) is Output.json

    def target(self, url: str | None, key_file: Path | None) -> "Target":
        """The server and the key, given the command's own options."""
        return Target(
            url or self.url or os.environ.get("STATIONMASTER_URL") or None,
            find_key(key_file or self.key_file),
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A server. `url` is None where none was named, `key` where there is none."""

    url: str | None
    key: str | None

    def client(self) -> "Client":
        """A client for it; close it."""
        from stationmaster.client import Client

        return Client(self.url or DEFAULT_URL, self.key)


def shared_of(context: typer.Context) -> Shared:
    """What was said before the command's name."""
    found = context.find_object(Shared)
    return found if found is not None else Shared()


def find_key(key_file: Path | None) -> str | None:
    """The API key from the file, else from the environment; None where there is none."""
    if key_file is None:
        named = os.environ.get("STATIONMASTER_KEY_FILE")
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if key or not named:
            return key or None
        key_file = Path(named)
    with key_file.expanduser().open("rb") as file:
        text = file.read(_MAX_KEY_FILE + 1).decode("utf-8", "replace").strip()
    if not text or len(text) > _MAX_KEY_FILE or len(text.split()) != 1:
        raise CommandError(f"{key_file} does not hold one API key.", Exit.INVALID)
    return text
