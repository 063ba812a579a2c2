"""What an operator says of a provider: read into a struct, with every mistake named."""

import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec

from stationmaster.kernel.errors import Invalid
from stationmaster.providers.upstream import Timeouts

T = TypeVar("T", bound="Options")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A base for each provider's own. Secrets are plain strings by now, and never shown."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class TimeoutOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds; what is left out is as for every provider."""

    connect: float | None = None
    first_byte: float | None = None
    inactivity: float | None = None
    total: float | None = None


class HttpOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A base for providers that are reached over HTTP.

    `ca_file` holds the certificates to trust in place of the system's.
    """

    timeouts: TimeoutOptions = TimeoutOptions()
    ca_file: str | None = None

    def patience(self, usual: Timeouts) -> Timeouts:
        """The timeouts of this provider. Raises `Invalid` for one that is not positive."""
        own = {
            name: value
            for name, value in msgspec.structs.asdict(self.timeouts).items()
            if value is not None
        }
        for name, value in own.items():
            if not 0 < value < float("inf"):
                raise Invalid(f"timeouts.{name} must be more than 0 seconds.", param="timeouts")
        return replace(usual, **own)

    def tls(self) -> ssl.SSLContext | None:
        """Whom to trust; None for the system's. Raises `Invalid` for a file that is none."""
        if self.ca_file is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            raise Invalid(
                f"ca_file cannot be read ({type(error).__name__}).", param="ca_file"
            ) from None
        context.set_alpn_protocols(["http/1.1"])
        return context


def sendable(name: str, value: str) -> str:
    """The value of the option `name`. Raises `Invalid` where no header could carry it."""
    if not value or not value.isascii() or not value.isprintable():
        raise Invalid(f"{name} has characters that cannot be sent.", param=name)
    return value


def read_options(kind: type[T], options: Mapping[str, object]) -> T:
    """The options as a struct. Raises `Invalid` naming the one that is unknown or wrong.

    Numbers and flags may be given as words ("8192", "true"), as an environment has them.
    """
    try:
        return msgspec.convert(dict(options), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"{error}.") from None
