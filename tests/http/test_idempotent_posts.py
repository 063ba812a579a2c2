"""`Idempotency-Key` on every POST of the OpenAPI document: none is without it but those below."""

from collections.abc import Iterator

from stationmaster.http.routes.app import openapi_document
from tests.http.conftest import ADMIN, Open
from tests.http.test_authorization_matrix import ROWS, Visitor, made_here

# Without a credential nobody has keys of his own.
WITHOUT = {
    "POST /v1/auth/login",
    "POST /v1/auth/refresh",
    "POST /api/invites/accept",
}
# These end what the second try comes with, or what it is about.
ENDING = {
    "POST /api/v1/clients/regenerate-key",
    "POST /v1/auth/logout",
}
TOO_LONG = "x" * 256


def posts() -> Iterator[str]:
    """Every POST, as the document has it."""
    for path, ways in openapi_document()["paths"].items():
        if "post" in ways:
            yield f"POST {path}"


def test_the_document_has_every_post_that_has_a_row() -> None:
    assert set(posts()) == {name for name in ROWS if name.startswith("POST ")}


async def test_every_post_looks_at_the_header(open_house: Open) -> None:
    """A key that is none is refused, whatever else would be wrong; and so is one sent twice."""
    async with open_house(RATE_LIMIT_ENABLED="false") as house:
        wrong = []
        for name in posts():
            answer = await Visitor(house, ADMIN, more={"idempotency-key": TOO_LONG}).ask(name)
            refused = answer.status_code == 400 and "Idempotency-Key" in answer.text
            if refused == (name in WITHOUT):
                wrong.append(f"{name}: {answer.status_code}: {answer.text[:200]}")
        assert not wrong, "\n".join(wrong)


async def test_what_was_done_is_not_done_again(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_ENABLED="false") as house:
        ids = await made_here(house)
        wrong, done = [], set()
        for number, name in enumerate(posts()):
            if name in WITHOUT | ENDING:
                continue
            visitor = Visitor(house, ADMIN, ids, more={"idempotency-key": f"key-{number}"})
            first, again = await visitor.ask(name), await visitor.ask(name)
            if first.is_error:
                assert "idempotent-replayed" not in again.headers, name
                continue
            done.add(name)
            replayed = again.headers.get("idempotent-replayed") == "true"
            if not replayed or again.content != first.content:
                wrong.append(f"{name}: {first.status_code}, then {again.status_code}: {again.text}")
        assert not wrong, "\n".join(wrong)
        assert len(done) > 40, sorted(set(posts()) - done)
