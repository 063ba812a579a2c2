"""A request's members, taken one by one: what nobody takes is refused or has a reason.

Every reader takes what it translates; a table decides about the rest by name. A member that is
in neither is unknown, and refused: nothing that a client asks for is dropped silently.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from stationmaster.kernel.errors import Invalid

_SHOWN = 64
"""Characters of a name from outside that a message repeats."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ignored:
    """A field that is left out, because the answer is the same without it.

    Without `noted` nothing is said of it: it is bookkeeping that no client misses.
    """

    why: str
    noted: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """A field that cannot be translated, but for values that change nothing."""

    why: str
    unless: tuple[Any, ...] = ()


Table = Mapping[str, Ignored | Refused]


def members_of(raw: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises `Invalid`."""
    try:
        value = msgspec.json.decode(raw)
    except (UnicodeDecodeError, msgspec.DecodeError):
        raise Invalid("The request body is not valid JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise Invalid("The request body must be a JSON object.")
    return value


class Fields:
    """One object of a request. `at` is its path, `ignored` collects the paths left out.

    Null is as good as absent everywhere, as both vendors' clients send it.
    """

    def __init__(self, value: object, at: str, ignored: list[str]) -> None:
        if not isinstance(value, dict):
            raise _wrong(at, "an object")
        self.at = at
        self.ignored = ignored
        self._left: dict[str, Any] = {
            name: member for name, member in value.items() if member is not None
        }

    def path(self, name: str) -> str:
        """A member's path, such as `messages[0].content`."""
        return f"{self.at}.{name}" if self.at else name

    def take(self, name: str) -> Any:
        """A member of any type, or None."""
        return self._left.pop(name, None)

    def peek(self, name: str) -> Any:
        """A member that stays to be taken, or None."""
        return self._left.get(name)

    def leave(self, name: str) -> None:
        """Take a member and note that it is ignored."""
        if self.take(name) is not None:
            self.ignored.append(self.path(name))

    def text(self, name: str) -> str | None:
        """A string."""
        return self._typed(name, str, "a string")

    def word(self, name: str) -> str:
        """A string that must be there. Raises `Invalid`."""
        return self._needed(name, self.text(name))

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        return self._typed(name, bool, "a boolean")

    def count(self, name: str) -> int | None:
        """An integer that is not negative."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _wrong(self.path(name), "an integer that is not negative")
        return value

    def number(self, name: str) -> float | None:
        """An integer or a float."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _wrong(self.path(name), "a number")
        return value

    def one_of(self, name: str, allowed: tuple[T, ...]) -> T | None:
        """One of a few strings."""
        value = self.take(name)
        if value is None:
            return None
        for choice in allowed:
            if choice == value:
                return choice
        raise _wrong(self.path(name), "one of " + ", ".join(map(str, allowed)))

    def object(self, name: str) -> dict[str, Any] | None:
        """An object whose inside is not ours to read, such as a schema."""
        return self._typed(name, dict, "an object")

    def inner(self, name: str) -> "Fields | None":
        """An object that is read in its turn."""
        value = self.take(name)
        return None if value is None else Fields(value, self.path(name), self.ignored)

    def objects(self, name: str) -> "Iterator[Fields]":
        """The objects of a list, none where it is absent."""
        values = self._typed(name, list, "a list") or []
        for index, value in enumerate(values):
            yield Fields(value, f"{self.path(name)}[{index}]", self.ignored)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, or one alone."""
        value = self.take(name)
        values = [value] if isinstance(value, str) else value or []
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            raise _wrong(self.path(name), "a string or a list of strings")
        return tuple(values)

    def refuse(self, name: str, why: str) -> Invalid:
        """The error for a member, to be raised."""
        return Invalid(f"{self.path(name)}: {why}", param=self.path(name))

    def done(self, table: Table | None = None) -> None:
        """Judge what nobody took. Raises `Invalid` for what is refused or unknown."""
        for name, value in self._left.items():
            decision = (table or {}).get(name)
            if isinstance(decision, Ignored):
                if decision.noted:
                    self.ignored.append(self.path(name))
            elif decision is None:
                raise self.refuse(
                    name[:_SHOWN], "This field is not known here, so it cannot be translated."
                )
            elif not any(_same(value, neutral) for neutral in decision.unless):
                raise self.refuse(name, decision.why)

    def _typed(self, name: str, kind: type[T], called: str) -> T | None:
        value = self.take(name)
        if value is not None and not isinstance(value, kind):
            raise _wrong(self.path(name), called)
        return value

    def _needed(self, name: str, value: T | None) -> T:
        if value is None:
            raise self.refuse(name, "Field required.")
        return value


def _same(value: object, neutral: object) -> bool:
    """Equal, and not merely as `0 == False` is."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _wrong(path: str, called: str) -> Invalid:
    return Invalid(f"{path}: Must be {called}.", param=path or None)
