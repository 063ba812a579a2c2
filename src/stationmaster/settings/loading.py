"""From the sources to one value for each setting."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from stationmaster.settings.errors import Problem
from stationmaster.settings.field import Setting
from stationmaster.settings.forms import Form, Refused
from stationmaster.settings.references import SecretUnavailable, fetch, is_reference
from stationmaster.settings.sources import (
    Value,
    config_file,
    dotenv_file,
    environment,
    read_text,
)

T = TypeVar("T")

_SHOWN = 80  # characters of a wrong value that a message repeats


class Loader:
    """Reads settings one by one and keeps what was wrong and where each value came from."""

    def __init__(
        self, settings: tuple[Setting, ...], environ: Mapping[str, str], *, cwd: Path
    ) -> None:
        """Open the sources below `cwd`, an absolute path, the strongest first."""
        self.problems: list[Problem] = []
        self._origins: dict[str, str] = {}
        self._environ = environ
        self.cwd = cwd
        self._sources = [environment(environ), dotenv_file(cwd / ".env", self.problems)]
        self.config_path = self._config_path()
        if self.config_path.exists() or self._written("CONFIG_FILE"):
            known = tuple(
                name
                for setting in settings
                if setting.name != "CONFIG_FILE"
                for name in (*setting.names, *setting.file_names)
            )
            self._sources.append(config_file(self.config_path, known, self.problems))

    def _written(self, name: str) -> Value | None:
        return next((s.values[name] for s in self._sources if name in s.values), None)

    def _config_path(self) -> Path:
        written = self._written("CONFIG_FILE")
        return self.cwd / (Path(written.text).expanduser() if written else "config.yaml")

    def read(self, setting: Setting) -> Any:
        """The setting's value; None where it has none, or where it is wrong (see `problems`)."""
        found = self._find(setting)
        if found is None:
            if setting.default is None:
                return None
            found = Value(setting.name, setting.default, "the default")
        else:
            self._origins[setting.name] = found.origin
        if setting.secret and is_reference(found.text):
            fetched = self._fetch(setting, found)
            if fetched is None:
                return None
            found = fetched
        try:
            value = setting.form.parse(found.text)
        except Refused as refused:
            self.problem(setting.name, f"{found.name} {refused}")
            return None
        except ValueError:
            shown = "" if setting.secret else f", not {_quote(found.text)}"
            self.problem(setting.name, f"{found.name} must be {setting.form.must_be}{shown}")
            return None
        return self.cwd / value if isinstance(value, Path) else value

    def _fetch(self, setting: Setting, found: Value) -> Value | None:
        """The secret that a setting's text names; it is written down nowhere."""
        try:
            text = fetch(found.text, self._environ)
        except SecretUnavailable as error:
            self.problem(setting.name, f"{found.name} {error}")
            return None
        return Value(found.name, text.strip(), found.origin)

    def _find(self, setting: Setting) -> Value | None:
        for source in self._sources:
            value = source.pick(setting.names, self.problems)
            file = source.pick(setting.file_names, self.problems)
            if value and file:
                message = f"{value.name} and {file.name} are both set; set only one"
                self.problems.append(Problem(setting.name, message, file.origin))
            if value or file:
                return value or self._from_file(setting, file)
        return None

    def _from_file(self, setting: Setting, file: Value | None) -> Value | None:
        if file is None:
            return None
        path = self.cwd / Path(file.text).expanduser()
        text = read_text(path, self.problems, setting=file.name)
        if text is None:
            return None
        origin = f"from {path}, named by {file.name} {file.origin}"
        if not text.strip():
            message = f"the file for {setting.name} is empty"
            self.problems.append(Problem(setting.name, message, origin))
            return None
        return Value(setting.name, text.strip(), origin)

    def read_secret(self, path: Path, form: Form[T], name: str) -> T | None:
        """The secret in the file that a setting names; None and a problem where it is wrong."""
        text = read_text(path, self.problems, setting=name)
        if text is None:
            return None
        try:
            return form.parse(text.strip())
        except ValueError:
            self.problem(name, f"the file {path} must hold {form.must_be}")
            return None

    def problem(self, name: str, message: str) -> None:
        """Note what is wrong with a setting, with the place its value came from."""
        self.problems.append(Problem(name, message, self._origins.get(name, "by default")))

    def given(self, name: str) -> bool:
        """Whether a source gave this setting a value, rather than its default."""
        return name in self._origins


def _quote(text: str) -> str:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return json.dumps(shown)  # escapes line breaks and terminal sequences
