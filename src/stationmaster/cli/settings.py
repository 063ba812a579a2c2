"""The server's settings as the command line has them: the environment, with options over it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stationmaster.bootstrap.configuration import Settings
    from stationmaster.telemetry import Redactor


def load(overrides: Mapping[str, str | None]) -> "Settings":
    """Read the settings; `overrides` win, by the setting's name, where they are not None.

    Raises the settings' own error, with everything that is wrong.
    """
    from stationmaster.bootstrap.configuration import configure

    given = {name: value for name, value in overrides.items() if value is not None}
    return configure(os.environ, overrides=given, cwd=Path.cwd())


def start_logging(settings: "Settings") -> "Redactor":
    """Send log lines to stderr, as the settings say. What is returned masks the secrets in them."""
    from stationmaster.telemetry import Redactor, configure_logging

    redactor = Redactor(*settings.secrets())
    configure_logging(level=settings.log_level, log_format=settings.log_format, redactor=redactor)
    return redactor
