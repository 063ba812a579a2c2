"""Where values come from: the environment, `.env`, and `config.yaml`. Each as plain text.

A source knows the place of each value, so that a problem can say where to mend it.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml
from dotenv.parser import parse_stream

from stationmaster.settings.errors import Problem

_MAX_FILE = 1024 * 1024  # bytes; a larger .env, config.yaml or secret is a mistake
STRUCTURED = frozenset({"providers", "models", "aliases"})
"""Parts of `config.yaml` that are no settings: `settings.catalogue` reads them."""
_MAX_DEPTH = 4  # levels of nesting in config.yaml; also ends a recursive YAML alias
_NULLS = {"", "~", "null"}


@dataclass(frozen=True, slots=True)
class Value:
    """A value as written, and where. `name` is the variable it was written under."""

    name: str
    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Source:
    """One place that values come from, by upper-case variable name. Empty values are left out."""

    values: dict[str, Value]

    def pick(self, names: tuple[str, ...], problems: list[Problem]) -> Value | None:
        """The value under one of a setting's names; a problem where two of them disagree."""
        found = [self.values[name] for name in names if name in self.values]
        for other in found[1:]:
            if other.text != found[0].text:
                message = f"{found[0].name} and {other.name} mean the same but differ; set only one"
                problems.append(Problem(names[0], message, other.origin))
        return found[0] if found else None


def environment(environ: Mapping[str, str]) -> Source:
    """The process's environment."""
    return Source(
        {
            name: Value(name, text.strip(), "from the environment")
            for name, text in environ.items()
            if text.strip()
        }
    )


def dotenv_file(path: Path, problems: list[Problem]) -> Source:
    """A `.env` file, which may be absent. Values are literal: `$` is not expanded."""
    text = read_text(path, problems, setting=".env") if path.exists() else None
    values: dict[str, Value] = {}
    for binding in parse_stream(io.StringIO(text or "")):
        written = binding.original.string
        blank = len(written) - len(written.lstrip("\n"))
        origin = f"from {path} line {binding.original.line + blank}"
        if binding.error:
            problems.append(Problem(".env", "a line must have the form NAME=value", origin))
        elif binding.key and binding.value and binding.value.strip():
            values[binding.key] = Value(binding.key, binding.value.strip(), origin)
    return Source(values)


def config_file(path: Path, known: tuple[str, ...], problems: list[Problem]) -> Source:
    """A `config.yaml`. Keys are variable names in lower case; nested keys join with `_`.

    So `max_workers: 5` is MAX_WORKERS, and `server: {port: 8080}` is SERVER_PORT. Scalars are taken
    as they are written, without YAML's guesses: `no` stays a word until a setting asks for a flag.
    """
    text = read_text(path, problems, setting="CONFIG_FILE")
    if text is None:
        return Source({})
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problems.append(Problem("CONFIG_FILE", "the file is not YAML", f"from {path}{line}"))
        return Source({})
    if root is None:
        return Source({})
    if not isinstance(root, yaml.MappingNode):
        problems.append(Problem("CONFIG_FILE", "the file must be a mapping", f"from {path}"))
        return Source({})
    values: dict[str, Value] = {}
    for key, node in _leaves(root, ()):
        origin = f"from {path} line {node.start_mark.line + 1}"
        value = _scalar(node)
        name = "_".join(key).upper().replace("-", "_")
        if name not in known:
            problems.append(Problem(name, _unknown(key, known), origin))
        elif value is None:
            problems.append(Problem(name, f"{'.'.join(key)} must be one value or a list", origin))
        elif name in values:
            problems.append(Problem(name, f"{'.'.join(key)} is there twice", origin))
        elif value:
            values[name] = Value(name, value, origin)
    return Source(values)


def _leaves(
    mapping: yaml.MappingNode, prefix: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], yaml.Node]]:
    for key, node in mapping.value:
        path = (*prefix, str(key.value))
        if not prefix and key.value in STRUCTURED:
            continue
        if isinstance(node, yaml.MappingNode) and len(path) < _MAX_DEPTH:
            yield from _leaves(node, path)
        else:
            yield path, node


def _scalar(node: yaml.Node) -> str | None:
    """The text of a scalar or of a list of them; empty for null; None for anything deeper."""
    if isinstance(node, yaml.ScalarNode):
        plain = node.style is None
        return "" if plain and node.value.lower() in _NULLS else str(node.value).strip()
    if isinstance(node, yaml.SequenceNode):
        parts = [_scalar(item) for item in node.value if isinstance(item, yaml.ScalarNode)]
        return ",".join(part or "" for part in parts) if len(parts) == len(node.value) else None
    return None


def _unknown(key: tuple[str, ...], known: tuple[str, ...]) -> str:
    name = "_".join(key).lower()
    near = get_close_matches(name, [item.lower() for item in known], n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no setting {'.'.join(key)}{hint}"


def read_text(path: Path, problems: list[Problem], *, setting: str) -> str | None:
    """The text of a file; None and a problem where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ValueError("too large")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        reason = "is not UTF-8 text"
    except ValueError:
        reason = "is too large"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    problems.append(Problem(setting, f"the file {path} {reason}", f"for {setting}"))
    return None
