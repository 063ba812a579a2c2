"""Files through Anthropic's own SDK."""

from collections.abc import AsyncIterator

import anthropic
import pytest

from tests.http.conftest import ADMIN, STRANGER, House, Open
from tests.support.sdk import check, sdk

GONE = "file_01jd3k00000000000000000000"


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, ADMIN) as made:
        yield made


async def test_a_file_from_upload_to_its_end(client: anthropic.AsyncAnthropic) -> None:
    files = client.beta.files
    content = bytes(range(256)) * 1000
    made = check(await files.upload(file=("a b.bin", content, "application/x-thing")))
    assert (made.filename, made.mime_type) == ("a b.bin", "application/x-thing")
    assert (made.size_bytes, made.downloadable, made.expires_at) == (256_000, True, None)
    assert check(await files.retrieve_metadata(made.id)) == made
    assert await (await files.download(made.id)).read() == content
    gone = check(await files.delete(made.id))
    assert (gone.id, gone.type) == (made.id, "file_deleted")
    for attempt in (
        files.retrieve_metadata(made.id),
        files.download(made.id),
        files.delete(made.id),
        files.retrieve_metadata("nonsense"),
        files.retrieve_metadata(GONE),
    ):
        with pytest.raises(anthropic.NotFoundError):
            await attempt


async def test_files_are_listed_in_pages_and_by_id(client: anthropic.AsyncAnthropic) -> None:
    files = client.beta.files
    made = [await files.upload(file=(f"{n}.txt", b"x")) for n in range(5)]
    assert [check(item).filename async for item in files.list(limit=2)] == [
        f"{n}.txt" for n in (4, 3, 2, 1, 0)
    ]
    some = await files.list(ids=[made[1].id, made[3].id, GONE])
    assert [item.id for item in some.data] == [made[3].id, made[1].id]
    assert some.next_page is None
    assert (await files.list(scope_id="sesn_01jd3k00000000000000000000")).data == []
    with pytest.raises(anthropic.BadRequestError):
        await files.list(ids=[GONE], limit=3)
    with pytest.raises(anthropic.BadRequestError):
        await files.list(page="nonsense")


async def test_a_life_is_bounded(client: anthropic.AsyncAnthropic) -> None:
    files = client.beta.files
    made = check(await files.upload(file=("a.txt", b"x"), expires_in_seconds=3600))
    assert made.expires_at is not None
    assert (made.expires_at - made.created_at).total_seconds() == 3600
    for seconds in (0, 3599, 7_776_001):
        with pytest.raises(anthropic.BadRequestError):
            await files.upload(file=("a.txt", b"x"), expires_in_seconds=seconds)
    assert len((await files.list()).data) == 1


async def test_limits_and_the_quota(open_house: Open) -> None:
    async with (
        open_house(FILE_MAX_SIZE="1MB", FILES_QUOTA="1MB") as house,
        sdk(house.url, ADMIN) as client,
    ):
        with pytest.raises(anthropic.RequestTooLargeError):
            await client.beta.files.upload(file=("a", b"x" * (1024**2 + 1)))
        kept = await client.beta.files.upload(file=("a", b"x" * 600_000))
        with pytest.raises(anthropic.BadRequestError) as caught:
            await client.beta.files.upload(file=("b", b"x" * 600_000))
        assert caught.value.error_code == "storage_quota_exceeded"
        await client.beta.files.delete(kept.id)
        await client.beta.files.upload(file=("b", b"x" * 600_000))


async def test_another_organisations_files_are_not_found(
    client: anthropic.AsyncAnthropic, house: House, stranger: dict[str, str]
) -> None:
    made = await client.beta.files.upload(file=("a.txt", b"mine"))
    async with sdk(house.url, STRANGER) as other:
        for attempt in (
            other.beta.files.retrieve_metadata(made.id),
            other.beta.files.download(made.id),
            other.beta.files.delete(made.id),
        ):
            with pytest.raises(anthropic.NotFoundError):
                await attempt
        assert (await other.beta.files.list()).data == []
        assert (await other.beta.files.list(ids=[made.id])).data == []
    assert await (await client.beta.files.download(made.id)).read() == b"mine"


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"other": ("a.txt", b"x")},
        {"file": ("a.txt", b"x"), "more": ("b.txt", b"x")},
        {"file": (None, b"x")},
        {"file": ("a.txt", b"x", "no type")},
        {"file": ("a.txt", b"x"), "expires_in_seconds": (None, b"soon")},
    ],
)
async def test_a_form_that_is_none_is_refused(
    house: House, client: anthropic.AsyncAnthropic, parts: dict[str, tuple[str | None, bytes]]
) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    answer = await house.client.post("/v1/files", files=parts or None, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (await client.beta.files.list()).data == []


async def test_the_shape_is_anthropics(house: House) -> None:
    headers = {"anthropic-beta": "files-api-2025-04-14"}
    answer = await house.client.get("/v1/files", headers=headers)
    assert answer.json() == {
        "data": [],
        "next_page": None,
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
    answer = await house.client.get("/v1/files/nonsense", headers=headers)
    assert answer.json()["error"]["type"] == "not_found_error"
