"""TLS of our own: 1.2 and up, and a certificate that is read again when it is renewed."""

import asyncio
import ssl
from pathlib import Path

import structlog

from stationmaster.kernel.errors import StationmasterError

log = structlog.get_logger(__name__)

LOOK_S = 10.0  # how often the files are looked at


class CertificateError(StationmasterError):
    """The certificate or its key cannot be used."""

    code = "certificate_error"


class Certificate:
    """A certificate and its key, in the context that serves with them."""

    def __init__(self, certfile: Path, keyfile: Path) -> None:
        """Read both. Raises `CertificateError`."""
        self._certfile = certfile
        self._keyfile = keyfile
        self._seen = self._stamp()
        self.context = self._load(_context())

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        try:
            # A key with a passphrase would ask for it on the terminal.
            context.load_cert_chain(self._certfile, self._keyfile, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            why = error.strerror or getattr(error, "reason", None) or "they do not fit"
            raise CertificateError(
                f"SSL_CERTFILE {self._certfile} and SSL_KEYFILE {self._keyfile} cannot be used:"
                f" {why}."
            ) from error
        return context

    def refresh(self) -> bool:
        """Take renewed files for connections from now on; False where there are none.

        Files that cannot be used, or are half written, are left alone until they change again.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._load(_context())  # first on the side: half of a pair must not get in
            self._load(self.context)
        except CertificateError as error:
            log.error("The renewed certificate cannot be used; the old one stays.", why=str(error))
            return False
        log.info("The certificate was renewed.")
        return True

    async def watch(self) -> None:
        """Refresh now and then. Never ends."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.refresh)

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        # By inode too: renewals often move a symbolic link.
        return tuple(_stat(path) for path in (self._certfile, self._keyfile))


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
