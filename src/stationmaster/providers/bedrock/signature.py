"""AWS's Signature Version 4, as far as a POST with a body needs it.

Of our own: botocore brings tens of megabytes, and sessions of its own, for these lines.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from stationmaster.kernel.clock import Millis
from stationmaster.providers.base import Headers

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """`session_token` comes with temporary ones."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class Signer:
    """Signs requests to one service in one region. Keeps the day's key."""

    def __init__(self, credentials: Credentials, *, region: str, service: str) -> None:
        self._credentials = credentials
        self._place = f"{region}/{service}/aws4_request"
        self._steps = (region, service, "aws4_request")
        self._day = ""
        self._key = b""

    def signed(
        self, method: str, path: str, query: str, headers: Headers, body: bytes, *, at: Millis
    ) -> Headers:
        """The headers to add: the time, the session's token where there is one, the signature.

        `path` is as it is sent, `query` already canonical: sorted, encoded. `headers` (names in
        lower case, `host` among them) are signed, and must be sent as they are.
        """
        stamp = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        added: list[tuple[str, str]] = [("x-amz-date", stamp)]
        if self._credentials.session_token is not None:
            added.append(("x-amz-security-token", self._credentials.session_token))
        everything = sorted((name, " ".join(value.split())) for name, value in (*headers, *added))
        names = ";".join(name for name, _ in everything)
        canonical = "\n".join(
            (
                method,
                # The path is encoded once more than it is sent.
                quote(path, safe="/-_.~"),
                query,
                *(f"{name}:{value}" for name, value in everything),
                "",
                names,
                hashlib.sha256(body).hexdigest(),
            )
        )
        scope = f"{stamp[:8]}/{self._place}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
        signature = hmac.new(self._signing_key(stamp[:8]), text.encode(), "sha256").hexdigest()
        value = (
            f"{_ALGORITHM} Credential={self._credentials.access_key_id}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return (*added, ("authorization", value))

    def _signing_key(self, day: str) -> bytes:
        if day != self._day:
            key = ("AWS4" + self._credentials.secret_access_key).encode()
            for step in (day, *self._steps):
                key = hmac.new(key, step.encode(), "sha256").digest()
            self._day, self._key = day, key
        return self._key
