"""The models and providers that an operator names in `config.yaml`.

    providers:
      openai: {type: openai, api_key: env:OPENAI_API_KEY}
      house: {type: ollama, base_url: http://127.0.0.1:11434}
    models:
      gpt-5: {targets: [{provider: openai}]}
      coder:
        strategy: weighted
        targets: [{provider: openai, model: gpt-5, weight: 3}, {provider: house, model: qwen3}]
        fallbacks: [sonnet]
        price: {input: 1.25, output: 10}
    aliases: {fast: gpt-5}

A secret may stand as `env:NAME`, as `vault:PATH#FIELD` or `aws:NAME#FIELD`, or in a file that the
option's name with `_file` behind it names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from stationmaster.settings.errors import Problem, SettingsError
from stationmaster.settings.references import SecretUnavailable, fetch, is_reference
from stationmaster.settings.sources import read_text

PLAIN_FILES = frozenset({"ca_file"})
"""Options that name a file, and are no secret in one."""

_SETTING = "CONFIG_FILE"
_ENV = "env:"


class TargetEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a model is served. `model` is the provider's name for it: by default the same."""

    provider: str
    model: str | None = None
    weight: int = 1
    tags: frozenset[str] = frozenset()


class AbilitiesEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model can do, as its operator says; None says nothing of it."""

    vision: bool | None = None
    tools: bool | None = None
    structured_output: bool | None = None
    thinking: bool | None = None

    def lacking(self) -> frozenset[str]:
        """What it cannot."""
        return frozenset(name for name in self.__struct_fields__ if getattr(self, name) is False)


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of a model. Without `targets` it is only described."""

    targets: tuple[TargetEntry, ...] = ()
    strategy: Literal["ordered", "weighted", "cost", "latency"] = "ordered"
    fallbacks: tuple[str, ...] = ()
    price: dict[str, Decimal] | None = None
    context_window: int | None = None
    max_output: int | None = None
    abilities: AbilitiesEntry = AbilitiesEntry()


class _Usual(msgspec.Struct, frozen=True):
    """What every provider may have; the rest is for its kind to read."""

    type: str
    prices: str | None = None
    max_concurrent: int | None = None
    default: bool = False
    batches: Literal["calls", "native"] = "calls"
    batch_price: Decimal | None = None

    def __post_init__(self) -> None:
        if self.batch_price is not None and not 0 <= self.batch_price <= 1:
            raise ValueError("batch_price must be a part of the usual price: 0 to 1")


_USUAL = frozenset({"type", "prices", "max_concurrent", "default", "batches", "batch_price"})


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """A provider. `options` are for its kind to read, secrets resolved; never show them.

    `prices` names its price list; None is the list that goes with its kind. `native_batches` says
    that batches go through its own interface for them; `batch_price` is what a call costs there, as
    a part of its usual price, None for what the kind says.
    """

    kind: str
    options: Mapping[str, object] = field(repr=False)
    prices: str | None = None
    max_concurrent: int | None = None
    default: bool = False
    native_batches: bool = False
    batch_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """What `config.yaml` says of models. `secrets` are texts that must never be shown."""

    providers: Mapping[str, ProviderEntry] = field(default_factory=dict)
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def read_catalogue(path: Path, environ: Mapping[str, str]) -> CatalogueFile:
    """Read it; empty where there is no such file. Raises `SettingsError` with each mistake."""
    if not path.exists():
        return CatalogueFile()
    reader = _Reader(path, environ)
    made = reader.read()
    if reader.problems:
        raise SettingsError(tuple(reader.problems))
    return made


class _Reader:
    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self._secrets: list[str] = []
        self.problems: list[Problem] = []

    def read(self) -> CatalogueFile:
        text = read_text(self._path, self.problems, setting=_SETTING)
        if text is None:
            return CatalogueFile()
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            self._wrong("the file is not YAML", mark.line if mark else None)
            return CatalogueFile()
        if not isinstance(root, yaml.MappingNode):
            return CatalogueFile()
        parts = {str(key.value): value for key, value in root.value}
        providers = self._each(parts.get("providers"), "provider", self._provider)
        models = self._each(parts.get("models"), "model", self._model)
        aliases = self._each(parts.get("aliases"), "alias", self._alias)
        self._check(parts, providers, models)
        return CatalogueFile(providers, models, aliases, tuple(self._secrets))

    def _each(self, node: yaml.Node | None, noun: str, make: Any) -> dict[str, Any]:
        """Every entry of one part, each made by `make`; mistakes are noted with their line."""
        if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._wrong(f"the {noun}s must be a mapping", node.start_mark.line)
            return {}
        made: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line
            if name in made:
                self._wrong(f"the {noun} {name!r} is there twice", line)
                continue
            try:
                made[name] = make(_plain(value))
            except (msgspec.ValidationError, SecretUnavailable, yaml.YAMLError) as error:
                self._wrong(f"the {noun} {name!r}: {error}", line)
        return made

    def _provider(self, value: Any) -> ProviderEntry:
        usual = msgspec.convert(value, _Usual, strict=False)
        options = {
            name: given
            for key, told in value.items()
            if key not in _USUAL
            for name, given in [self._option(str(key), told)]
        }
        return ProviderEntry(
            usual.type,
            options,
            usual.prices,
            usual.max_concurrent,
            usual.default,
            usual.batches == "native",
            usual.batch_price,
        )

    def _option(self, name: str, value: Any) -> tuple[str, Any]:
        if name.endswith("_file") and name not in PLAIN_FILES and isinstance(value, str):
            text = self._from_file(value)
            return name.removesuffix("_file"), self._secret(text)
        if isinstance(value, str) and value.startswith(_ENV):
            named = value.removeprefix(_ENV)
            if not self._environ.get(named):
                raise SecretUnavailable(f"{name} needs the environment variable {named}")
            return name, self._secret(self._environ[named])
        if isinstance(value, str) and is_reference(value):
            return name, self._secret(fetch(value, self._environ).strip())
        return name, value

    def _from_file(self, name: str) -> str:
        path = self._path.parent / Path(name).expanduser()
        text = read_text(path, self.problems, setting=_SETTING)
        if text is None or not text.strip():
            raise SecretUnavailable(f"the file {path} holds no secret")
        return text.strip()

    def _secret(self, text: str) -> str:
        self._secrets.append(text)
        return text

    def _model(self, value: Any) -> ModelEntry:
        return msgspec.convert({} if value is None else value, ModelEntry, strict=False)

    def _alias(self, value: Any) -> str:
        return msgspec.convert(value, str)

    def _check(
        self,
        parts: Mapping[str, yaml.Node],
        providers: Mapping[str, ProviderEntry],
        models: Mapping[str, ModelEntry],
    ) -> None:
        """What can only be seen when everything is there."""
        if sum(entry.default for entry in providers.values()) > 1:
            self._wrong("only one provider can be the default", parts["providers"].start_mark.line)
        for name, model in models.items():
            for target in model.targets:
                if target.provider not in providers:
                    self._wrong(
                        f"the model {name!r}: there is no provider {target.provider!r}",
                        parts["models"].start_mark.line,
                    )

    def _wrong(self, message: str, line: int | None) -> None:
        at = f" line {line + 1}" if line is not None else ""
        self.problems.append(Problem(_SETTING, message, f"from {self._path}{at}"))


def _plain(node: yaml.Node) -> Any:
    """The value of a node, of plain kinds only; numbers of money stay the texts they are."""
    match node:
        case yaml.MappingNode():
            return {str(key.value): _plain(value) for key, value in node.value}
        case yaml.SequenceNode():
            return [_plain(item) for item in node.value]
        case yaml.ScalarNode() if node.tag == "tag:yaml.org,2002:float":
            return node.value
        case yaml.ScalarNode():
            loader = yaml.SafeLoader("")
            return loader.construct_object(node)
    raise yaml.YAMLError("an alias of YAML is not read here")
