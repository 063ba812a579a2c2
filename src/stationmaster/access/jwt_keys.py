"""The keys that sign access tokens. They rotate; private ones are stored sealed.

A key signs for `SIGNS_S`, and its public half is told for as long as a token of it can be valid.
Servers that share a database share the keys.
"""

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Row, delete, insert, select

from stationmaster.access.tables import signing_keys
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.storage import Database, Transaction
from stationmaster.storage.resealing import reseal
from stationmaster.storage.sealing import SealBroken, Sealer

log = structlog.get_logger(__name__)

ALGORITHM = "ES256"
SIGNS_S = 30 * 86_400.0
REREAD_S = 5.0  # how often an unknown key id may make us look into the database
_COORDINATE_BYTES = 32


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair. `private` is None where this server cannot open it."""

    id: str
    public: ec.EllipticCurvePublicKey
    private: ec.EllipticCurvePrivateKey | None
    created_at: Millis

    def jwk(self) -> dict[str, Any]:
        """The public half, as RFC 7517 has it."""
        numbers = self.public.public_numbers()
        return {
            "kty": "EC",
            "crv": "P-256",
            "x": _coordinate(numbers.x),
            "y": _coordinate(numbers.y),
            "use": "sig",
            "alg": ALGORITHM,
            "kid": self.id,
        }


class SigningKeys:
    """The keys, as this server knows them."""

    def __init__(
        self, database: Database, sealer: Sealer, clock: Clock, *, token_lifetime: float
    ) -> None:
        """`token_lifetime` is that of the longest-lived token, in seconds."""
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._kept = round((SIGNS_S + token_lifetime) * 1000)
        self._keys: dict[str, SigningKey] = {}
        self._read_at = float("-inf")

    async def renew(self) -> None:
        """Make a new key where the present one is old, and forget those that are out of use.

        To be called at the start and now and then. Two servers that do it at once may make two
        keys; both are good.
        """
        self._keys = await self._database.write(self._renew)

    def _renew(self, tx: Transaction) -> dict[str, SigningKey]:
        now = self._clock.now()
        tx.execute(delete(signing_keys).where(signing_keys.c.created_at < now - self._kept))
        keys = self._read(tx)
        if self._present(keys) is None:
            key = self._make(tx, now)
            keys[key.id] = key
        return keys

    def _make(self, tx: Transaction, now: Millis) -> SigningKey:
        private = ec.generate_private_key(ec.SECP256R1())
        key = SigningKey(new_id("skey"), private.public_key(), private, now)
        secret = private.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = key.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        tx.execute(
            insert(signing_keys),
            {
                "id": key.id,
                "public": public.decode(),
                "sealed": self._sealer.seal(secret, purpose=f"signing_keys:{key.id}"),
                "created_at": now,
            },
        )
        return key

    def _read(self, tx: Transaction) -> dict[str, SigningKey]:
        rows = tx.execute(select(signing_keys).order_by(signing_keys.c.id)).all()
        return {row.id: self._key(row) for row in rows}

    def _key(self, row: Row[Any]) -> SigningKey:
        public = serialization.load_pem_public_key(row.public.encode())
        assert isinstance(public, ec.EllipticCurvePublicKey)
        try:
            secret = self._sealer.open(row.sealed, purpose=f"signing_keys:{row.id}")
        except SealBroken:
            return SigningKey(row.id, public, None, row.created_at)
        private = serialization.load_der_private_key(secret, password=None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return SigningKey(row.id, public, private, row.created_at)

    def _present(self, keys: dict[str, SigningKey]) -> SigningKey | None:
        oldest = self._clock.now() - SIGNS_S * 1000
        fit = [key for key in keys.values() if key.private is not None and key.created_at > oldest]
        return max(fit, key=lambda key: (key.created_at, key.id), default=None)

    async def present(self) -> SigningKey:
        """The key that signs."""
        found = self._present(self._keys)
        if found is None:
            await self.renew()
            found = self._present(self._keys)
        if found is None:
            raise Unavailable("There is no key to sign with.")
        return found

    async def find(self, key_id: str) -> SigningKey | None:
        """The key with this id. Another server may just have made it: then it is looked up."""
        found = self._keys.get(key_id)
        now = asyncio.get_running_loop().time()
        if found is None and now - self._read_at > REREAD_S:
            self._read_at = now
            self._keys = await self._database.read(self._read)
            found = self._keys.get(key_id)
        if found is None or found.created_at + self._kept <= self._clock.now():
            return None
        return found

    async def jwks(self) -> dict[str, Any]:
        """The public halves, as a JWK Set, the present one first."""
        keys = await self._database.read(self._read)
        kept = self._clock.now() - self._kept
        return {
            "keys": [
                key.jwk()
                for key in sorted(keys.values(), key=lambda key: -key.created_at)
                if key.created_at > kept
            ]
        }

    async def reseal(self) -> int:
        """Seal what an older key of the operator's sealed; return how many."""
        return await reseal(self._database, signing_keys, self._sealer)


def _coordinate(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(_COORDINATE_BYTES)).decode().rstrip("=")
