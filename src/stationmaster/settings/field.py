"""One setting: its names, form, default and meaning. The reference is generated from these."""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from stationmaster.settings.forms import Form

T = TypeVar("T")
_KEY = "setting"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting. `default` is written as an operator would write it.

    `derived` says in words what holds where the default is None or `auto`.
    """

    name: str
    group: str
    form: Form[Any]
    default: str | None
    description: str
    derived: str
    aliases: tuple[str, ...]
    secret: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The variables it is read from, its own name first."""
        return (self.name, *self.aliases)

    @property
    def file_names(self) -> tuple[str, ...]:
        """The variables that name a file holding the value; only secrets have them."""
        return tuple(f"{name}_FILE" for name in self.names) if self.secret else ()


@overload
def setting(
    group: str,
    form: Form[T],
    default: str | None,
    description: str,
    *,
    derived: str,
    aliases: tuple[str, ...] = (),
    secret: bool = False,
) -> T: ...


@overload
def setting(
    group: str,
    form: Form[T],
    default: str,
    description: str,
    *,
    aliases: tuple[str, ...] = (),
    secret: bool = False,
) -> T: ...


@overload
def setting(
    group: str,
    form: Form[T],
    default: None,
    description: str,
    *,
    aliases: tuple[str, ...] = (),
    secret: bool = False,
) -> T | None: ...


def setting(
    group: str,
    form: Form[Any],
    default: str | None,
    description: str,
    *,
    derived: str = "",
    aliases: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare a field of `Settings`; its variable is the field's name in upper case."""
    declared = Setting("", group, form, default, description, derived, aliases, secret)
    return dataclasses.field(metadata={_KEY: declared})


def settings_of(cls: type[Any]) -> tuple[Setting, ...]:
    """The settings that a dataclass declares, in order, those it inherits last."""
    fields = sorted(
        dataclasses.fields(cls), key=lambda field: field.name not in cls.__annotations__
    )
    return tuple(
        dataclasses.replace(field.metadata[_KEY], name=field.name.upper())
        for field in fields
        if _KEY in field.metadata
    )
