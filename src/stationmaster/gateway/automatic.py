"""The model for who names none: by what is left to spend, and by how the prompt looks."""

import re
from dataclasses import dataclass

CHEAP, USUAL, STRONG = "haiku", "sonnet", "opus"

LAST_TOKENS = 1_000
"""With fewer left of the project's budget, only the cheapest will do."""
ROOMY_TOKENS = 5_000
"""With fewer left, hard work is not begun with more than the cheapest."""
LONG_CONTEXT = 10_000
"""Tokens; a longer context goes to the strongest."""
SHORT_PROMPT = 100
"""Characters."""

SIMPLE = frozenset({"list", "format", "count", "show", "get", "create", "add"})
HARD = frozenset(
    {
        "analyze",
        "architect",
        "debug",
        "design",
        "implement",
        "optimize",
        "refactor",
        "review",
        "test",
        "diagnose",
        "strategy",
    }
)
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Advice:
    """A model, and why it is that."""

    model: str
    reason: str


def advise(
    prompt: str,
    *,
    context: int = 0,
    remaining: int | None = None,
    over_threshold: bool = False,
    usual: str = USUAL,
) -> Advice:
    """Choose a model.

    `context` is in tokens; `remaining` is what is left of the project's budget of tokens, None
    where it has none; `over_threshold` says that the project has cost more this month than it
    should. `usual` is the model for everything that is neither easy nor hard.
    """
    if over_threshold:
        return Advice(CHEAP, "The project has cost more this month than its threshold.")
    if remaining is not None and remaining < LAST_TOKENS:
        return Advice(CHEAP, f"Only {remaining} tokens are left of the project's budget.")
    if context > LONG_CONTEXT:
        return Advice(STRONG, f"The context is long ({context} tokens).")
    words = set(_WORD.findall(prompt.lower()))
    if len(prompt) < SHORT_PROMPT and (found := sorted(words & SIMPLE)):
        return Advice(CHEAP, f"A short prompt for a simple task ({found[0]}).")
    if found := sorted(words & HARD):
        if remaining is not None and remaining < ROOMY_TOKENS:
            return Advice(CHEAP, f"A hard task ({found[0]}), but only {remaining} tokens are left.")
        return Advice(USUAL, f"A hard task ({found[0]}).")
    return Advice(usual, "Nothing speaks for another than the usual model.")
