"""The kinds of providers there are: ours, and those that other packages bring.

A package brings one by an entry point of the group `stationmaster.providers`: its name is the kind,
its object a `Factory`.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from stationmaster.kernel.errors import Invalid, StationmasterError
from stationmaster.providers.base import Provider
from stationmaster.providers.upstream import Timeouts

GROUP = "stationmaster.providers"

OURS: Mapping[str, str] = {
    "anthropic": "stationmaster.providers.anthropic.factory",
    "bedrock": "stationmaster.providers.bedrock.factory",
    "offline": "stationmaster.providers.offline.factory",
    "ollama": "stationmaster.providers.ollama.factory",
    "openai": "stationmaster.providers.openai.factory",
    "vertex": "stationmaster.providers.vertex.factory",
}
"""Each kind's module, imported when first needed. Not by entry points: a source tree would have to
be installed anew for each, and a package from elsewhere could take one's place."""

_MEMBERS = ("name", "operations", "send", "check", "aclose")


class Factory(Protocol):
    """Makes a provider of one kind."""

    def __call__(self, name: str, options: Mapping[str, object], timeouts: Timeouts, /) -> Provider:
        """Make one, without calling anybody yet.

        `name` is for the ledger. Secrets among the options are resolved to plain strings.
        `timeouts` are the server's; an option may say otherwise. Raises `Invalid` for options
        without sense, unknown ones included.
        """
        ...


def kinds() -> tuple[str, ...]:
    """The names of all kinds, in order."""
    return tuple(sorted({*OURS, *(found.name for found in _found())}))


def make(kind: str, name: str, options: Mapping[str, object], timeouts: Timeouts) -> Provider:
    """A provider. Raises `Invalid`, saying which provider and why, where it cannot be made."""
    factory = _factory(kind, name)
    try:
        made = factory(name, options, timeouts)
    except StationmasterError as error:
        raise Invalid(
            f"The provider {name!r} ({kind}): {error.message}", param=error.param
        ) from None
    except Exception as error:
        raise _broken(kind, f"its factory failed with {_told(error)}") from error
    missing = [member for member in _MEMBERS if not hasattr(made, member)]
    if missing:
        raise _broken(kind, f"what it makes has no {missing[0]!r}")
    return made


def _factory(kind: str, name: str) -> Factory:
    if kind in OURS:
        return cast("Factory", import_module(OURS[kind]).provider)
    candidates = [found for found in _found() if found.name == kind]
    if not candidates:
        raise Invalid(
            f"The provider {name!r} has an unknown type {kind!r}. There are: {', '.join(kinds())}.",
            param="type",
        )
    if len(candidates) > 1:
        owners = ", ".join(sorted(_owner(found) for found in candidates))
        raise _broken(kind, f"several packages bring it: {owners}")
    try:
        factory = candidates[0].load()
    except Exception as error:
        owner = _owner(candidates[0])
        raise _broken(
            kind, f"{candidates[0].value} of {owner} fails with {_told(error)}"
        ) from error
    if not callable(factory):
        raise _broken(kind, f"{candidates[0].value} is not a factory")
    return cast("Factory", factory)


def _found() -> list[EntryPoint]:
    """Those of other packages. One under a name of ours is passed over."""
    return [found for found in entry_points(group=GROUP) if found.name not in OURS]


def _owner(found: EntryPoint) -> str:
    return f"{found.dist.name} {found.dist.version}" if found.dist else "an unknown package"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _broken(kind: str, why: str) -> Invalid:
    return Invalid(f"The provider plug-in {kind!r} cannot be used: {why}.", param="type")
