import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.storage.sealing import SealBroken, Sealer

OLD, NEW = b"the old key of the operator", b"the new key of the operator"


@given(st.binary(max_size=300))
def test_what_was_sealed_can_be_opened_and_not_be_read(plain: bytes) -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(plain, purpose="things:1")
    assert sealer.open(sealed, purpose="things:1") == plain
    assert sealed.isascii()
    if len(plain) > 4:
        assert plain not in sealed.encode()
    assert sealed != sealer.seal(plain, purpose="things:1")


def test_it_opens_for_its_purpose_and_its_key_alone() -> None:
    sealed = Sealer([OLD]).seal(b"secret", purpose="things:1")
    with pytest.raises(SealBroken):
        Sealer([OLD]).open(sealed, purpose="things:2")
    with pytest.raises(SealBroken):
        Sealer([NEW]).open(sealed, purpose="things:1")


@given(st.data())
def test_a_change_of_any_character_is_found(data: st.DataObject) -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(b"a secret of some length", purpose="p")
    at = data.draw(st.integers(0, len(sealed) - 1))
    # The last character before a dot carries bits that base64 does not use.
    if at == len(sealed) - 1 or sealed[at + 1] == ".":
        return
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != sealed[at]))
    with pytest.raises(SealBroken):
        sealer.open(sealed[:at] + other + sealed[at + 1 :], purpose="p")


@pytest.mark.parametrize(
    "text", ["", "s1", "s1.a.b", "s1.a.b.c", "s2.a.b.c", "....", "s1...", "ä.b.c.d"]
)
def test_what_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(SealBroken):
        Sealer([OLD]).open(text, purpose="p")


def test_the_key_is_changed_by_opening_with_both_and_sealing_again() -> None:
    sealed = Sealer([OLD]).seal(b"secret", purpose="p")
    both = Sealer([NEW, OLD])
    assert both.open(sealed, purpose="p") == b"secret"
    assert both.stale(sealed)
    again = both.reseal(sealed, purpose="p")
    assert not both.stale(again)
    assert Sealer([NEW]).open(again, purpose="p") == b"secret"
