"""`stationmaster ledger`: works on the server's database itself, beside a server or without one."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import dollars, print_json, print_table, say
from stationmaster.cli.target import OutputOption, shared_of

if TYPE_CHECKING:
    from stationmaster.bootstrap.configuration import Settings
    from stationmaster.budgets.proof import Proof

SHOWN = 20


def verify(context: typer.Context, *, output: OutputOption = None) -> None:
    """Prove that the ledger, its roll-ups and the budgets agree; exit 1 where they do not."""
    proof = asyncio.run(_prove())
    if shared_of(context).json(output):
        print_json({"agree": proof.holds_good, **asdict(proof)})
    else:
        _tell(proof)
    if not proof.holds_good:
        raise CommandError("The books do not agree.", Exit.FAILED)


def rebuild() -> None:
    """Sum the roll-ups anew from the ledger. On SQLite nothing else is written meanwhile."""
    lines = asyncio.run(_rebuild())
    say(f"The roll-ups are made anew from {lines:,} lines.")


async def _prove() -> "Proof":
    from stationmaster.bootstrap.money import books
    from stationmaster.budgets.proof import prove

    async with books(_settings()) as database:
        return await prove(database)


async def _rebuild() -> int:
    from stationmaster.bootstrap.money import books
    from stationmaster.budgets import Rollups

    async with books(_settings()) as database:
        return await Rollups(database).rebuild()


def _settings() -> "Settings":
    from stationmaster.cli.settings import load, start_logging

    settings = load({})
    start_logging(settings)
    return settings


def _tell(proof: "Proof") -> None:
    say(
        f"{proof.lines:,} lines of the ledger, {dollars(proof.cost / 1_000_000)};"
        f" {proof.budgets:,} budgets, {proof.holds:,} open holds."
    )
    if proof.holds_good:
        say("They agree to the micro-dollar.")
        return
    print_table(
        ("WHAT", "WHERE", "BY THE LEDGER", "FOUND"),
        [(each.what, each.where, each.expected, each.found) for each in proof.differences[:SHOWN]],
    )
    if len(proof.differences) > SHOWN:
        say(f"… and {len(proof.differences) - SHOWN} more.")
