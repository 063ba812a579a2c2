"""Access tokens: what is refused, and how the keys rotate."""

import asyncio
import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from stationmaster.access.jwt_keys import SIGNS_S, SigningKey, SigningKeys
from stationmaster.access.jwt_tokens import AccessTokens
from stationmaster.access.secret import Hasher
from stationmaster.access.tables import signing_keys
from stationmaster.kernel.errors import Unauthenticated
from stationmaster.storage import Transaction
from stationmaster.storage.sealing import Sealer
from tests.unit.identity.conftest import HOUR, Station, assemble

ISSUER, AUDIENCE = "https://station.example", "stationmaster"


async def token(station: Station) -> str:
    await station.user()
    return (
        await station.sign_ins.by_password("ada@example.com", "correct horse battery")
    ).access_token


async def refused(station: Station, text: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await station.resolver.resolve(text)
    return caught.value.error_code


async def claims_of(text: str) -> dict[str, Any]:
    return dict(jwt.decode(text, options={"verify_signature": False}))


async def test_a_token_says_who_and_nothing_of_rights(station: Station) -> None:
    claims = await claims_of(await token(station))
    assert set(claims) == {"iss", "aud", "sub", "sid", "org", "iat", "exp", "jti"}
    assert claims["exp"] - claims["iat"] == HOUR


async def test_a_token_ends_after_an_hour(station: Station) -> None:
    text = await token(station)
    station.clock.advance(HOUR - 1)
    await station.resolver.resolve(text)
    station.clock.advance(1)
    assert await refused(station, text) == "expired_token"
    station.resolver.forget_all()
    assert await refused(station, text) == "expired_token"


async def _signed(station: Station, header: dict[str, Any], **changes: Any) -> str:
    """A token with our own key, and changed claims; None removes one."""
    key = await station.keys.present()
    claims = {**await claims_of(await token(station)), **changes}
    kept = {name: value for name, value in claims.items() if value is not None}
    both = {"kid": key.id, "typ": "at+jwt", **header}
    headers = {name: value for name, value in both.items() if value is not None}
    return jwt.encode(kept, key.private, "ES256", headers=headers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": None},
        {"aud": []},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "user_01jd3k00000000000000000000"},
        {"sid": None},
        {"sid": "sgn_01jd3k00000000000000000000"},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": 9999999999.5},
        {"exp": True},
        {"exp": 10},
        {"iat": None},
        {"iat": 9999999999},
        {"nbf": 9999999999},
    ],
    ids=str,
)
async def test_wrong_claims_are_refused_whoever_signed_them(
    station: Station, changes: dict[str, Any]
) -> None:
    await refused(station, await _signed(station, {}, **changes))


@pytest.mark.parametrize("header", [{"kid": "skey_none"}, {"kid": None}, {"typ": "JWT"}], ids=str)
async def test_wrong_headers_are_refused(station: Station, header: dict[str, Any]) -> None:
    await refused(station, await _signed(station, header))


async def test_its_own_signature_and_algorithm_alone_count(station: Station) -> None:
    text = await token(station)
    claims, key = await claims_of(text), await station.keys.present()
    headers = {"kid": key.id, "typ": "at+jwt"}
    public = key.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    stranger = ec.generate_private_key(ec.SECP256R1())
    with_none = f"{_part({'alg': 'none', **headers})}.{_part(claims)}."
    # The public key taken for a shared secret: the classic confusion of algorithms.
    head = f"{_part({'alg': 'HS256', **headers})}.{_part(claims)}"
    digest = _hmac(public, head.encode())
    for forged in (
        jwt.encode(claims, stranger, "ES256", headers=headers),
        jwt.encode(claims, "x" * 64, "HS256", headers=headers),
        with_none,
        f"{head}.{digest}",
        text.rpartition(".")[0] + ".",
        text.rpartition(".")[0] + "." + "A" * 86,
        "eyJ..",
        "eyJ" + "a" * 5000 + ".b.c",
        "eyJhbGciOiJFUzI1NiJ9.é.x",
    ):
        assert await refused(station, forged) in {"invalid_token", "invalid_api_key"}
    await station.resolver.resolve(text)


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _hmac(key: bytes, text: bytes) -> str:
    import hashlib
    import hmac

    digest = hmac.new(key, text, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@given(data=st.data())
def test_no_change_of_a_token_is_accepted(made: tuple[AccessTokens, str], data: Any) -> None:
    tokens, text = made
    at = data.draw(st.integers(0, len(text) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    other = data.draw(st.sampled_from(alphabet).filter(lambda c: c != text[at]))
    changed = text[:at] + other + text[at + 1 :]
    if at == len(text) - 1 or text[at + 1] == ".":
        return  # bits of base64 that mean nothing
    with pytest.raises(Unauthenticated):
        asyncio.run(tokens.verify(changed))


class _OneKey(SigningKeys):
    def __init__(self, key: Any) -> None:
        self._only = key

    async def present(self) -> Any:
        return self._only

    async def find(self, key_id: str) -> Any:
        return self._only if key_id == self._only.id else None


@pytest.fixture(scope="module")
def made() -> tuple[AccessTokens, str]:
    from stationmaster.kernel.clock import ManualClock

    private = ec.generate_private_key(ec.SECP256R1())
    key = SigningKey("skey_1", private.public_key(), private, 0)
    tokens = AccessTokens(
        _OneKey(key), ManualClock(), issuer=ISSUER, audience=AUDIENCE, lifetime=HOUR
    )
    issue = tokens.issue(user_id="user_1", sign_in_id="sgn_1", organization_id="org_1")
    return tokens, asyncio.run(issue)


# --- keys -------------------------------------------------------------------------------------


async def test_anybody_can_verify_with_the_published_keys(station: Station) -> None:
    text = await token(station)
    found = jwt.PyJWKSet.from_dict(await station.keys.jwks())
    key = found[jwt.get_unverified_header(text)["kid"]]
    claims = jwt.decode(
        text,
        key,
        algorithms=["ES256"],
        audience=AUDIENCE,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["iss"] == ISSUER
    assert all(not set(jwk) & {"d", "k", "p", "q"} for jwk in (await station.keys.jwks())["keys"])


async def test_keys_rotate_and_old_tokens_stay_good_for_their_time(station: Station) -> None:
    first = await station.keys.present()
    station.clock.advance(SIGNS_S - 60)
    text = await token(station)
    assert jwt.get_unverified_header(text)["kid"] == first.id
    station.clock.advance(120)
    await station.keys.renew()
    second = await station.keys.present()
    assert second.id != first.id
    assert [jwk["kid"] for jwk in (await station.keys.jwks())["keys"]] == [second.id, first.id]
    station.resolver.forget_all()
    await station.resolver.resolve(text)
    station.clock.advance(HOUR)
    await station.keys.renew()
    assert [jwk["kid"] for jwk in (await station.keys.jwks())["keys"]] == [second.id]
    assert await station.keys.find(first.id) is None


async def test_a_key_that_another_replica_made_is_found(station: Station) -> None:
    other = await assemble(
        station.database, station.clock, Hasher(b"a pepper for the tests"), station.passwords
    )
    assert (await other.keys.present()).id == (await station.keys.present()).id
    station.clock.advance(SIGNS_S + 1)
    await other.keys.renew()
    await station.user()
    grant = await other.sign_ins.by_password("ada@example.com", "correct horse battery")
    assert (await station.resolver.resolve(grant.access_token)).id == grant.user_id


async def test_unknown_key_ids_do_not_flood_the_database(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    real = station.keys._read

    def counted(tx: Transaction) -> dict[str, SigningKey]:
        reads.append(tx)
        return real(tx)

    monkeypatch.setattr(station.keys, "_read", counted)
    for n in range(50):
        assert await station.keys.find(f"skey_{n}") is None
    assert len(reads) <= 2


async def test_private_keys_are_sealed_and_can_change_their_seal(station: Station) -> None:
    text = await token(station)
    (row,) = await station.database.read(lambda tx: tx.execute(select(signing_keys)).all())
    assert row.sealed.startswith("s1.")
    old, new = b"a secret of the operator's", b"the next secret of theirs"
    both = SigningKeys(station.database, Sealer([new, old]), station.clock, token_lifetime=HOUR)
    assert await both.reseal() == 1
    assert await both.reseal() == 0
    alone = SigningKeys(station.database, Sealer([new]), station.clock, token_lifetime=HOUR)
    await alone.renew()
    assert (await alone.present()).id == row.id
    tokens = AccessTokens(alone, station.clock, issuer=ISSUER, audience=AUDIENCE, lifetime=HOUR)
    await tokens.verify(text)


async def test_with_another_secret_a_new_key_signs_and_old_tokens_are_still_known(
    station: Station,
) -> None:
    text = await token(station)
    other = SigningKeys(
        station.database, Sealer([b"quite another secret"]), station.clock, token_lifetime=HOUR
    )
    await other.renew()
    tokens = AccessTokens(other, station.clock, issuer=ISSUER, audience=AUDIENCE, lifetime=HOUR)
    await tokens.verify(text)
    fresh = await tokens.issue(user_id="user_1", sign_in_id="sgn_1", organization_id="org_1")
    assert jwt.get_unverified_header(fresh)["kid"] != jwt.get_unverified_header(text)["kid"]
