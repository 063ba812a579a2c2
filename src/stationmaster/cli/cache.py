"""`stationmaster cache`: the answers that are kept of a project."""

from enum import StrEnum
from typing import Annotated

import typer

from stationmaster.cli.printing import print_json, print_table, say
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of


class Where(StrEnum):
    """A tier of the cache, or all of them."""

    all = "all"
    memory = "memory"
    disk = "disk"
    redis = "redis"


def stats(
    context: typer.Context,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show what is kept of your key's project, and how often it helped."""
    from stationmaster.client.cache import CacheClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = CacheClient(client).stats()
    if shared.json(output):
        print_json(found)
        return
    if not found.get("enabled"):
        say("The cache is off (CACHE_ENABLED).")
        return
    rate = f"{100 * found.get('hit_rate', 0.0):.1f} %"
    say(f"{found.get('hits', 0):,} hits, {found.get('misses', 0):,} misses ({rate})")
    tiers = found.get("tiers") or {}
    rows = [(name, f"{t['entries']:,}", f"{t['size_bytes']:,}") for name, t in tiers.items()]
    print_table(("TIER", "ANSWERS", "BYTES"), rows)


def clear(
    context: typer.Context,
    *,
    where: Annotated[Where, typer.Option("--type", help="Where to forget them.")] = Where.all,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Forget the answers that are kept of your key's project."""
    from stationmaster.client.cache import CacheClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        cleared = CacheClient(client).clear(where.value)
    if shared.json(output):
        print_json({"cleared": cleared})
        return
    print_table(("TIER", "FORGOTTEN"), [(name, f"{count:,}") for name, count in cleared.items()])
