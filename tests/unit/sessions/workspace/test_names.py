import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.kernel.errors import Invalid
from stationmaster.sessions.runs.workspace.names import join, split, split_raw, to_raw, to_text

RAW = st.binary(max_size=60)


@given(RAW)
def test_every_name_has_a_text_and_leads_back(raw: bytes) -> None:
    text = to_text(raw)
    text.encode("utf-8")  # valid Unicode: JSON can carry it
    assert to_raw(text) == raw


@given(RAW, RAW)
def test_different_names_have_different_texts(one: bytes, other: bytes) -> None:
    assert (to_text(one) == to_text(other)) == (one == other)


def test_private_characters_themselves_survive() -> None:
    raw = "\uf7ff".encode()
    assert to_text(raw) != "\uf7ff"
    assert to_raw(to_text(raw)) == raw


@given(st.text(max_size=60))
def test_a_text_is_refused_or_stays_inside(text: str) -> None:
    try:
        parts = split(text)
    except Invalid:
        return
    assert not text.startswith("/")
    for part in parts:
        assert part not in {b"", b".", b".."}
        assert b"/" not in part
        assert b"\0" not in part
    assert split(join(parts)) == parts


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b", "...", "..a"]), max_size=6))
def test_two_dots_are_refused_wherever_they_stand(parts: list[str]) -> None:
    text = "/".join(parts)
    if ".." in parts or text.startswith("/"):
        with pytest.raises(Invalid):
            split(text)
    else:
        assert split(text) == tuple(p.encode() for p in parts if p not in {"", "."})


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "../x", "a/../b", "a\0b", "\ud800", "x" * 256, "a/" * 2500, ".."]
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        split(text, code="upload_path")
    assert caught.value.error_code == "upload_path"


def test_bytes_are_split_the_same_way() -> None:
    assert split_raw(b"./a//b/", code="x") == (b"a", b"b")
    with pytest.raises(Invalid):
        split_raw(b"/a", code="x")
