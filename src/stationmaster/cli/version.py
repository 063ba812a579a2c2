"""`stationmaster version`."""

import platform

import typer

from stationmaster import __version__
from stationmaster.cli.printing import print_json, say
from stationmaster.cli.target import OutputOption, shared_of


def version(context: typer.Context, *, output: OutputOption = None) -> None:
    """Print the versions of Stationmaster and of what it runs."""
    if not shared_of(context).json(output):
        print_version()
        say(f"Python {platform.python_version()}")
        say(f"claude-agent-sdk {_sdk()}")
        return
    print_json(
        {
            "stationmaster": __version__,
            "python": platform.python_version(),
            "claude_agent_sdk": _sdk(),
        }
    )


def print_version() -> None:
    """One line."""
    say(f"stationmaster {__version__}")


def _sdk() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("claude-agent-sdk")
    except PackageNotFoundError:
        return "not installed"
