"""An app that is made when it is first asked for something."""

import asyncio
import threading
from collections.abc import Callable

from stationmaster.http.wire.exchange import App, Receive, Scope, Send

# Two apps are never made at once: what the framework does with Python's warnings meanwhile is not
# safe for threads.
_MAKING = threading.Lock()


class Later:
    """Pure ASGI. To make an app of many routes takes a quarter of a second and some MB.

    It is made in a thread, so that whoever is being answered meanwhile notices little.
    """

    def __init__(self, make: Callable[[], App]) -> None:
        """`make` imports what it needs, and shares nothing that is not safe for threads."""
        self._make = make
        self._app: App | None = None
        self._making = asyncio.Lock()

    def make(self) -> None:
        """Make it now. Before anybody asks."""
        self._app = self._made()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; the first ones wait."""
        if self._app is None:
            async with self._making:
                if self._app is None:
                    self._app = await asyncio.to_thread(self._made)
        await self._app(scope, receive, send)

    def _made(self) -> App:
        with _MAKING:
            return self._make()
