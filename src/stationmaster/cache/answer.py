"""A kept answer, and the place where it is kept."""

from dataclasses import dataclass

import msgspec

from stationmaster.kernel.clock import Millis


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer is: a tenant's drawer, and the question's name in it.

    Both are keyed hashes in hex. They can be file names, and tell nobody without the server's
    secret whose they are or what was asked.
    """

    tenant: str
    question: str

    @property
    def name(self) -> str:
        """Both."""
        return f"{self.tenant}/{self.question}"


class Answer(msgspec.Struct, frozen=True):
    """A whole answer of status 200, as its client got it. `body` is a stream's too, all of it."""

    headers: tuple[tuple[str, str], ...]
    body: bytes
    stream: bool
    kept_at: Millis
    expires_at: Millis

    def packed(self) -> bytes:
        """For a tier that keeps bytes."""
        return _encoder.encode(self)

    @classmethod
    def unpacked(cls, raw: bytes) -> "Answer":
        """Raises `msgspec.DecodeError` for what `packed` did not make."""
        return _decoder.decode(raw)

    @property
    def weight(self) -> int:
        """Bytes, near enough."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Answer)
