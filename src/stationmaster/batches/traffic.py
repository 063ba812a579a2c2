"""How many model calls are under way, so that batches can stand back."""

from stationmaster.gateway.ports import CallEnded, CallObserver, CallRefused, CallStarted


class Traffic:
    """A `CallObserver` that counts, and tells another."""

    def __init__(self, then: CallObserver) -> None:
        self._then = then
        self._open: set[str] = set()

    @property
    def calls(self) -> int:
        """Calls that have been sent and are not settled."""
        return len(self._open)

    def observe(self, event: CallStarted | CallEnded | CallRefused) -> None:
        """See `CallObserver`."""
        if isinstance(event, CallStarted):
            self._open.add(event.context.call_id)
        elif isinstance(event, CallEnded):
            self._open.discard(event.context.call_id)
        self._then.observe(event)
