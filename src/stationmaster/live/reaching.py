"""Why a server that a URL names cannot be reached: a sentence for an operator.

Told by the kind of the exception, never by its words: they may name addresses and users.
"""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from stationmaster.kernel.distrust import distrust


@dataclass(frozen=True, slots=True)
class Named:
    """A server, the setting that names it, and the URL's option for whom its TLS trusts."""

    server: str
    setting: str
    authority: str
    plain: str

    def unreached(self, error: BaseException) -> str:
        """What is wrong, and what to do. Libraries wrap what was raised: all of it is looked at."""
        for each in _chain(error):
            if (sentence := self._sentence(each)) is not None:
                return sentence
        return f"{self.server} cannot be reached. Is it up, and is {self.setting} right?"

    @property
    def silent(self) -> str:
        """What is said where nothing is answered."""
        return (
            f"{self.server} does not answer. Is it up, and does it speak TLS if {self.setting} asks"
            " for that?"
        )

    def _sentence(self, error: BaseException) -> str | None:
        match error:
            case ssl.SSLCertVerificationError():
                return self._distrusted(error)
            case ssl.SSLError():
                return (
                    f"The TLS connection to {self.server} failed. Does it speak TLS there? If not,"
                    f" {self.setting} begins with {self.plain}://."
                )
            case socket.gaierror():
                return f"The host of {self.setting} has no address. Correct it."
            case FileNotFoundError() | PermissionError():
                return (
                    f"A file that {self.setting} names ({self.authority}, for instance) cannot be"
                    " read. Correct it."
                )
            case ConnectionRefusedError():
                return f"Nothing listens where {self.setting} says. Start it, or correct that."
            case TimeoutError():
                return self.silent
        return None

    def _distrusted(self, error: ssl.SSLCertVerificationError) -> str:
        why = distrust(error)
        if why == "name":
            return (
                f"The certificate of {self.server} is for another name than the host of"
                f" {self.setting}. Correct one of them."
            )
        if why == "expired":
            return f"The certificate of {self.server} has expired. Replace it."
        return (
            f"The certificate of {self.server} is not trusted. Name its authority in"
            f" {self.setting}: ?{self.authority}=/path/of/authority.pem."
        )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return reversed(seen)  # what was raised first says it best
