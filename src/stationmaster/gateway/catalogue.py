"""The short names of models, and the models that are listed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "haiku": "claude-haiku-5-5",
        "sonnet": "claude-sonnet-5-5",
        "opus": "claude-opus-5-5",
    }
)
"""The newest model of each family when this version was made; configuration may say otherwise."""


FAMILIES = ("opus", "sonnet", "haiku")
"""From dear to cheap; each word is an alias, and stands in the names of its family's models."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Which model a name stands for. A name that is no alias stands for itself.

    `named` are the models that the operator names, aliases apart.
    """

    aliases: Mapping[str, str] = field(default_factory=lambda: ALIASES)
    named: tuple[str, ...] = ()

    def resolve(self, name: str) -> str:
        """The model to ask the provider for. Aliases are not chained."""
        return self.aliases.get(name, name)

    def names_of(self, model: str) -> tuple[str, ...]:
        """Every name that stands for a model, its own first."""
        return (model, *(alias for alias, meant in self.aliases.items() if meant == model))

    def listed(self) -> tuple[str, ...]:
        """The models to name where a client asks what there is, without repeats, in order."""
        return tuple(dict.fromkeys((*self.named, *self.aliases.values())))

    def cheaper(self, model: str) -> str | None:
        """The model to fall back to where a budget asks for a cheaper one; None below the last.

        That is the newest of the next cheaper family. A model of no known family has none.
        """
        for family, following in pairwise(FAMILIES):
            if family in model:
                found = self.resolve(following)
                return found if found != following else None
        return None
