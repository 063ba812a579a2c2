"""The settings, for a caller that has options of its own to lay over them."""

from collections.abc import Mapping
from pathlib import Path

from stationmaster.settings import Settings, SettingsError
from stationmaster.settings.field import settings_of

__all__ = ["Settings", "SettingsError", "configure"]


def configure(environ: Mapping[str, str], *, overrides: Mapping[str, str], cwd: Path) -> Settings:
    """Load the settings as if `overrides`, by setting name, stood in the environment.

    The setting's other names and its `_FILE` are then taken out: they would contradict. Raises
    `SettingsError`.
    """
    merged = dict(environ)
    for item in settings_of(Settings):
        if item.name in overrides:
            for name in (*item.names, *item.file_names):
                merged.pop(name, None)
            merged[item.name] = overrides[item.name]
    return Settings.load(merged, cwd=cwd)
