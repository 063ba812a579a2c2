"""Encryption at rest for secrets that must be read again, such as signing keys and others' tokens.

Each value has a data key of its own, which encrypts it and is itself encrypted by the operator's
key (AES-256-GCM both). What a value is for is authenticated: one that is copied to another row or
column cannot be opened there. Changing the operator's key means opening with the old one and
sealing with the new one, value by value.
"""

import base64
import binascii
import os
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stationmaster.kernel.errors import StationmasterError

_VERSION = "s1"
_KEY_BYTES = 32
_ID_BYTES = 4
_NONCE_BYTES = 12
_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")


class SealBroken(StationmasterError):
    """A sealed value cannot be opened: it was changed, or its key is not among the server's."""

    code = "seal_broken"


class Sealer:
    """Seals with the first key, opens with any."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """`secrets` are the operator's keys, the present one first; there is at least one."""
        self._keys = {_derive(s, b"id", _ID_BYTES).hex(): _derive(s, b"key") for s in secrets}
        self._present = next(iter(self._keys))

    def seal(self, plain: bytes, *, purpose: str) -> str:
        """Encrypt. `purpose` names the place where the value is kept, such as `table:id`."""
        data_key, bound = os.urandom(_KEY_BYTES), purpose.encode()
        wrapped = _encrypt(self._keys[self._present], data_key, bound)
        return ".".join(
            (_VERSION, self._present, _text(wrapped), _text(_encrypt(data_key, plain, bound)))
        )

    def open(self, sealed: str, *, purpose: str) -> bytes:
        """Decrypt. Raises `SealBroken`."""
        try:
            version, key_id, wrapped, body = sealed.split(".")
            if version != _VERSION:
                raise SealBroken
            bound = purpose.encode()
            data_key = _decrypt(self._keys[key_id], _bytes(wrapped), bound)
            return _decrypt(data_key, _bytes(body), bound)
        except (KeyError, ValueError, InvalidTag, binascii.Error):
            raise SealBroken from None

    def stale(self, sealed: str) -> bool:
        """Whether the value was sealed with another key than the present one."""
        return sealed.split(".")[1:2] != [self._present]

    def reseal(self, sealed: str, *, purpose: str) -> str:
        """The same value under the present key. Raises `SealBroken`."""
        return self.seal(self.open(sealed, purpose=purpose), purpose=purpose)


def _derive(secret: bytes, use: bytes, length: int = _KEY_BYTES) -> bytes:
    hkdf = HKDF(hashes.SHA256(), length, salt=None, info=b"stationmaster sealing " + use)
    return hkdf.derive(secret)


def _encrypt(key: bytes, plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def _decrypt(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    if len(sealed) < _NONCE_BYTES:
        raise SealBroken
    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    if _ALPHABET.fullmatch(text) is None:  # the decoder would also take + and / for - and _
        raise SealBroken
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
