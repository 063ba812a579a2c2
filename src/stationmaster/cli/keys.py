"""`stationmaster keys`: needs a key that may manage keys."""

from typing import Annotated

import typer

from stationmaster.cli.printing import print_json, print_table, say, warn
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of


def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="3 to 50 letters, digits, '_' or '-'.")],
    *,
    permission: Annotated[
        list[str] | None,
        typer.Option(
            "--permission",
            metavar="SCOPE",
            help="A right, such as write:tasks; repeat. Default: to use the server, not manage it.",
        ),
    ] = None,
    expires_in_days: Annotated[
        int | None, typer.Option("--expires-in-days", min=1, metavar="DAYS")
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Make an API key and print it, this once."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        key = client.create_key(
            name, permissions=permission or None, expires_in_days=expires_in_days
        )
    if shared.json(output):
        print_json(key.data)
        return
    warn(f"Key {key.id} is made. It is shown this once:")
    say(key.secret or "")


def list_keys(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="KEY_ID")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the project's keys, the newest first, without their secrets."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        page = client.keys(limit=limit, after=after)
    if shared.json(output):
        print_json({"keys": [key.data for key in page.items], "next": page.next_cursor})
        return
    print_table(
        ("ID", "NAME", "ENDS IN", "CREATED", "STATE", "PERMISSIONS"),
        [
            (
                key.id,
                key.name,
                key.data.get("hint", ""),
                key.data.get("created_at", ""),
                "ended" if not key.data.get("enabled") else "valid",
                " ".join(map(str, key.data.get("permissions", ()))),
            )
            for key in page.items
        ],
    )
    if page.next_cursor:
        warn(f"There are more: --after {page.next_cursor}")


def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """End a key. It is refused from now on; nothing brings it back."""
    with shared_of(context).target(url, key_file).client() as client:
        client.revoke_key(key_id)
    say(f"Key {key_id} is revoked.")


def rotate(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    *,
    overlap_days: Annotated[
        float,
        typer.Option("--overlap-days", min=0, max=90, help="How long the old key still works."),
    ] = 7,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Replace a key by one with the same rights, and print it, this once."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        key = client.rotate_key(key_id, overlap_days=overlap_days)
    if shared.json(output):
        print_json(key.data)
        return
    warn(f"Key {key.id} takes the place of {key_id}. It is shown this once:")
    say(key.secret or "")


def collect(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Print a key that has replaced an old one by its age, this once. The old key may ask."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        key = client.collect_key(key_id)
    if shared.json(output):
        print_json(key.data)
        return
    warn(f"Key {key.id} is yours. It is shown this once:")
    say(key.secret or "")
