"""How much sooner than others of its organisation a run is served."""

from types import MappingProxyType
from typing import Literal, cast

from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.principal import Principal
from stationmaster.kernel.profile import Profile

Priority = Literal["low", "normal", "high"]

LEVELS = MappingProxyType({"low": -1, "normal": 0, "high": 1})
"""As they stand in the row, in ascending order."""

HIGHEST = max(LEVELS.values())
SCOPE = "use:priority"


def priority_of(
    asked: str | None, profile: Profile | None, principal: Principal | None = None
) -> Priority:
    """What a run is served by: `asked`, else normal or the most that the profile allows.

    Raises `Invalid` for one that there is not, and `Denied` for one that the profile or, of a
    `principal`, the scopes do not allow.
    """
    most = "high" if profile is None or profile.priority is None else profile.priority
    if asked is None:
        return min("normal", most, key=LEVELS.__getitem__)
    if asked not in LEVELS:
        raise Invalid(f"priority must be one of {', '.join(LEVELS)}.", param="priority")
    if LEVELS[asked] > LEVELS[most]:
        raise Denied(
            f"The profile allows no priority above {most!r}.",
            code="priority_not_allowed",
            param="priority",
        )
    if asked == "high" and principal is not None and not principal.may(SCOPE):
        raise Denied(
            f"A high priority needs the scope {SCOPE!r}.",
            code="priority_not_allowed",
            scope=SCOPE,
            param="priority",
        )
    return cast(Priority, asked)
