"""What a project wants kept of its calls, and what must be taken out of it first."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from stationmaster.kernel.errors import Invalid

DEFAULT_RETENTION_DAYS = 30
MAX_RETENTION_DAYS = 3650
MAX_PATTERNS = 20
MAX_PATTERN = 500
MAX_NAME = 32

Rule = Literal["card_number", "email", "iban", "ip_address", "phone_number"]
"""What can be taken out by name. Secrets of known shapes always are."""
RULES: tuple[Rule, ...] = get_args(Rule)
DEFAULT_RULES: tuple[Rule, ...] = ("card_number", "email", "iban")


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a project has taken out by a regular expression of its own. It leaves its name."""

    name: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept of a project's calls. Nothing is, unless it is `enabled`."""

    enabled: bool = False
    requests: bool = True
    answers: bool = True
    agent_calls: bool = False
    retention_days: int = DEFAULT_RETENTION_DAYS
    rules: tuple[Rule, ...] = DEFAULT_RULES
    patterns: tuple[Pattern, ...] = field(default=())

    def to_row(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "enabled": self.enabled,
            "requests": self.requests,
            "answers": self.answers,
            "agent_calls": self.agent_calls,
            "retention_days": self.retention_days,
            "rules": list(self.rules),
            "patterns": [{"name": each.name, "pattern": each.pattern} for each in self.patterns],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Policy":
        """As it was stored."""
        given = dict(row)
        given["rules"] = tuple(given.get("rules", ()))
        given["patterns"] = tuple(Pattern(**each) for each in given.get("patterns", ()))
        return cls(**given)


def checked(policy: Policy) -> Policy:
    """The policy. Raises `Invalid` for one that cannot be followed, and says why."""
    if not 1 <= policy.retention_days <= MAX_RETENTION_DAYS:
        raise Invalid(
            f"retention_days must be between 1 and {MAX_RETENTION_DAYS}.", param="retention_days"
        )
    for rule in policy.rules:
        if rule not in RULES:
            raise Invalid(
                f"There is no rule {str(rule)[:MAX_NAME]!r}; there are {', '.join(RULES)}.",
                param="rules",
            )
    if len(policy.patterns) > MAX_PATTERNS:
        raise Invalid(f"There can be {MAX_PATTERNS} patterns at most.", param="patterns")
    names = [each.name for each in policy.patterns]
    if len(set(names)) < len(names):
        raise Invalid("Two patterns have the same name.", param="patterns")
    for each in policy.patterns:
        _check(each)
    return policy


def _check(pattern: Pattern) -> None:
    name = pattern.name
    if not (name.isascii() and name.replace("_", "").isalnum() and len(name) <= MAX_NAME):
        raise Invalid(
            f"A pattern's name has up to {MAX_NAME} letters, digits and underscores.",
            param="patterns",
        )
    if not pattern.pattern or len(pattern.pattern) > MAX_PATTERN:
        raise Invalid(f"A pattern has 1 to {MAX_PATTERN} characters.", param="patterns")
    # Late: a server that keeps no calls does not load it.
    from stationmaster.calls.rules import compiled

    if compiled(pattern.pattern).search("") is not None:
        raise Invalid(f"The pattern {name!r} matches nothing at all, too.", param="patterns")
