import pytest

from stationmaster.gateway.automatic import HARD, SIMPLE, advise


@pytest.mark.parametrize("word", sorted(SIMPLE))
def test_a_short_and_simple_prompt_gets_the_cheapest(word: str) -> None:
    assert advise(f"{word.title()} it.").model == "haiku"
    assert advise(f"{word} it. " + "x" * 100).model == "sonnet"


@pytest.mark.parametrize("word", sorted(HARD))
def test_a_hard_prompt_gets_the_usual_while_there_is_room(word: str) -> None:
    assert advise(f"Now {word} it.", remaining=5_000).model == "sonnet"
    assert advise(f"Now {word} it.", remaining=4_999).model == "haiku"
    assert word in advise(f"Now {word} it.").reason


@pytest.mark.parametrize(
    ("remaining", "context", "model"),
    [
        (None, 0, "sonnet"),
        (0, 0, "haiku"),  # nothing left is not the same as no budget
        (999, 20_000, "haiku"),
        (1_000, 20_000, "opus"),
        (None, 10_000, "sonnet"),
        (None, 10_001, "opus"),
    ],
)
def test_what_is_left_comes_before_the_context(
    remaining: int | None, context: int, model: str
) -> None:
    assert advise("Hello.", context=context, remaining=remaining).model == model


def test_a_project_over_its_threshold_gets_the_cheapest_whatever_it_asks() -> None:
    assert advise("Analyze it.", context=20_000, over_threshold=True).model == "haiku"


def test_the_usual_model_is_the_operators() -> None:
    assert advise("Hello.", usual="house").model == "house"
