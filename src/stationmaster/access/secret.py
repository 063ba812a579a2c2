"""How keys and tokens look, and how they are stored.

A key is `sm_live_`, 40 random characters of base 62, and six that check the rest, so that a
scanner can tell a real key from a look-alike and a typing error costs no database query.
"""

import hashlib
import hmac
import secrets
import string
import zlib

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEY_PREFIX = "sm_live_"
TOKEN_PREFIX = "sm_run_"  # noqa: S105 - a prefix, not a token
RANDOM_LENGTH = 40  # 238 bits
CHECK_LENGTH = 6  # 62**6 > 2**32


def generate(prefix: str) -> str:
    """Make a new secret."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    return prefix + body + _check(prefix + body)


def well_formed(secret: str) -> bool:
    """Whether one of our own secrets could look like this. Keys given by the operator need not."""
    return secret[-CHECK_LENGTH:] == _check(secret[:-CHECK_LENGTH])


def _check(text: str) -> str:
    value = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    digits = []
    for _ in range(CHECK_LENGTH):
        value, rest = divmod(value, len(ALPHABET))
        digits.append(ALPHABET[rest])
    return "".join(reversed(digits))


class Hasher:
    """Turns a secret into what is stored and looked up."""

    def __init__(self, pepper: bytes) -> None:
        """`pepper` is the server's secret, of 16 bytes or more: without it a hash is useless."""
        block = hashlib.sha256().block_size
        key = hashlib.sha256(pepper).digest() if len(pepper) > block else pepper
        padded = key.ljust(block, b"\0")
        self._inner = hashlib.sha256(padded.translate(hmac.trans_36))
        self._outer = hashlib.sha256(padded.translate(hmac.trans_5C))

    def digest(self, secret: str) -> str:
        """HMAC-SHA256 in hex. The secrets are random: a slow hash would add nothing."""
        # As RFC 2104 says, with both keyed states made once: `hmac.digest` makes them with each
        # call, and gives another thread the interpreter meanwhile.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(secret.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return outer.hexdigest()
