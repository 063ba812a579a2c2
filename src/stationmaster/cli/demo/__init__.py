"""`stationmaster demo`: the promises, shown on a real server."""

import typer

from stationmaster.cli.exits import CommandError, Exit


def demo() -> None:
    """Watch a server, the real Claude Code at work, its cost, a budget, and a recovery.

    Takes under two minutes and needs no account: a built-in script answers instead of a language
    model, and says so. Everything happens in a temporary directory. Exits with 1 where something
    is not as it should be.
    """
    from stationmaster.cli.demo.scenes import play

    failed = play()
    if failed:
        raise CommandError(f"The demo did not show what it should: {failed}", Exit.FAILED)
    raise typer.Exit
