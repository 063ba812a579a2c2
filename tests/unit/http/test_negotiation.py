"""Which form a client wants."""

import pytest

from stationmaster.http.negotiation import preferred

OFFERS = ("text/event-stream", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, 0),
        ("", 0),
        ("*/*", 0),
        ("text/html", 0),
        ("text/event-stream", 0),
        ("application/json", 1),
        ("Application/JSON; charset=utf-8", 1),
        ("application/*", 1),
        ("application/json, text/event-stream", 0),
        ("application/json, text/event-stream;q=0.5", 1),
        ("*/*;q=0.1, application/json", 1),
        ("text/event-stream;q=0, */*", 1),
        ("application/json;q=nonsense", 0),
        (",;,", 0),
    ],
)
def test_the_best_offer_wins(accept: str | None, chosen: int) -> None:
    assert preferred(accept, OFFERS) == OFFERS[chosen]
