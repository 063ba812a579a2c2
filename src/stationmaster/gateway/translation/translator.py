"""One call between a client and a provider that speak different formats."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from stationmaster.gateway.splitter import Splitter, data_of
from stationmaster.gateway.translation.reply import Broken, Draft, Event, drafted
from stationmaster.kernel.errors import Upstream

_NO_REPLY = (msgspec.DecodeError, msgspec.EncodeError, UnicodeError, RecursionError, OverflowError)


class ProviderFormat(Protocol):
    """Reads one reply. Raises `Upstream` and msgspec's errors for what is none."""

    @property
    def finished(self) -> bool:
        """Whether the stream has told its end."""
        ...

    def whole(self, reply: bytes) -> Iterator[Event]:
        """The events of a reply that was not streamed."""
        ...

    def frame(self, data: bytes) -> Iterator[Event]:
        """The events that one event of the stream tells."""
        ...

    def close(self) -> Iterator[Event]:
        """What the stream's end tells. Raises `Upstream` where it was cut."""
        ...


class ClientFormat(Protocol):
    """Writes one reply."""

    def whole(self, draft: Draft) -> bytes:
        """The body of a reply that was not streamed."""
        ...

    def write(self, event: Event) -> bytes:
        """The bytes of the stream that an event makes."""
        ...

    def error(self, broken: Broken) -> bytes:
        """The body of an error."""
        ...


Refusals = Callable[[int, bytes], Broken]
"""Reads a provider's error reply, by its status and body, whatever it looks like."""


class Translator:
    """Turns one reply of a provider into its client's format.

    `body` is the request to send, in the provider's format. `ignored` names the fields of the
    client's request that were left out, such as `messages[].name`; the guide tells why. For a
    stream, `feed` its bytes as they come, cut anywhere, and `end` it; for a reply that was not
    streamed there is `whole`, for one with an error status `error`.
    """

    def __init__(
        self,
        body: bytes,
        *,
        ignored: tuple[str, ...],
        provider: ProviderFormat,
        client: ClientFormat,
        refusals: Refusals,
    ) -> None:
        self.body = body
        self.ignored = ignored
        self._provider = provider
        self._client = client
        self._refusals = refusals
        self._splitter = Splitter()
        self._broken = False
        self._failure: Upstream | None = None

    def whole(self, reply: bytes) -> bytes:
        """A successful reply in the client's format. Raises `Upstream` for one that is none."""
        with _understood():
            return self._client.whole(drafted(self._provider.whole(reply)))

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes of a stream, as whole events of the client's; often none.

        What the provider says after its end, or after an error, is dropped. Raises `Upstream`
        for what is no stream of its format, after all that came before it has been given.
        """
        self._raise_failure()
        written: list[bytes] = []
        try:
            with _understood():
                for event in self._splitter.feed(chunk):
                    data = data_of(event)
                    if data is not None and data.strip() and not self._over:
                        written += self._written(self._provider.frame(data))
        except Upstream as failure:
            self._failure = failure
        if not written:
            self._raise_failure()
        return b"".join(written)

    def end(self) -> bytes:
        """What is still owed when the provider has closed. Raises `Upstream` where it was cut."""
        self._raise_failure()
        if self._over:
            return b""
        with _understood():
            return b"".join(self._written(self._provider.close()))

    def error(self, status: int, body: bytes) -> bytes:
        """An error reply in the client's shape, whatever the provider's looks like."""
        broken = self._refusals(status, body)
        return self._client.error(broken)

    @property
    def _over(self) -> bool:
        return self._broken or self._provider.finished

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _written(self, events: Iterator[Event]) -> Iterator[bytes]:
        for event in events:
            self._broken = self._broken or isinstance(event, Broken)
            yield self._client.write(event)


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except _NO_REPLY:
        raise Upstream("The model provider's answer cannot be understood.") from None
