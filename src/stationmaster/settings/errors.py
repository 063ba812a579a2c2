"""What is wrong with the settings, all of it at once."""

from dataclasses import dataclass
from typing import ClassVar

from stationmaster.kernel.errors import Invalid


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `message` never holds a secret value."""

    setting: str
    message: str
    origin: str

    def __str__(self) -> str:
        return f"{self.message} ({self.origin})"


class SettingsError(Invalid):
    """The settings are wrong, so nothing is started."""

    code: ClassVar[str] = "invalid_settings"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """`problems` are all that were found, in the order of the reference."""
        count = "1 setting is" if len(problems) == 1 else f"{len(problems)} settings are"
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"Stationmaster cannot start: {count} wrong.{lines}")
        self.problems = problems
