"""Lines out of pieces of a body."""

from stationmaster.kernel.errors import Upstream

MAX_LINE = 16 * 1024 * 1024
"""Bytes; far more than any line of Ollama's has."""


class Lines:
    """Holds back what is not a whole line yet. Empty lines are not told."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that end in this piece. Raises `Upstream` for one without an end."""
        first, *more = data.split(b"\n")
        self._keep(first)
        if not more:
            return []
        lines = [self.rest(), *more[:-1]]
        self._keep(more[-1])
        return [line for line in lines if line.strip()]

    def rest(self) -> bytes:
        """What is left without an end; it is then forgotten."""
        left, self._begun, self._size = b"".join(self._begun), [], 0
        return left.strip()

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_LINE:
            raise Upstream("A line of the model provider's answer is too long.")
        if data:
            self._begun.append(data)
