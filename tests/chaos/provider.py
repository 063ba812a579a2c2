"""The provider behind a campaign: no two of its calls use the same number of tokens."""

import itertools

from stationmaster.budgets.entry import Usage as Tokens
from stationmaster.gateway import Catalogue, Pricing
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.money import to_micros
from tests.chaos.records import Served
from tests.support.wire_upstream import (
    Call,
    Json,
    Reply,
    Script,
    Text,
    Tool,
    Usage,
    steps,
)

PIECES = "a few words " * 4
SLOW_S = 0.05
OUTPUTS = 1_000


def script() -> Script:
    """What it answers: a few words, or for a real agent a tool call and a few words."""
    numbers = itertools.count()

    def answer(request: Json) -> Reply:
        number = next(numbers)
        # Never more than what is held for it: the input by its bytes, the output by `max_tokens`.
        usage = Usage(1 + number // OUTPUTS, 1 + number % OUTPUTS)
        words = Reply((Text(PIECES),), usage, delay=SLOW_S * (number % 5))
        if not request.get("tools"):
            return words
        tool = Tool("Bash", {"command": "echo done >> done.txt"})
        return steps(Reply((tool,), usage), words)(request)

    return answer


def served(calls: list[Call]) -> list[Served]:
    """The calls as the provider counts them, each rounded up once."""
    pricing, catalogue = Pricing(clock=SystemClock()), Catalogue()
    found = []
    for call in calls:
        usage = Tokens(call.usage.input_tokens, call.usage.output_tokens)
        rates = pricing.rates(catalogue.resolve(call.body["model"]))
        tokens = (call.usage.input_tokens, call.usage.output_tokens)
        found.append(Served(tokens, to_micros(rates.cost(usage)), call.completed))
    return [each for each in found if each.tokens != (0, 0)]
