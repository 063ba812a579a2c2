"""An aiohttp application on a free port of 127.0.0.1, from `async with` to its end."""

from types import TracebackType
from typing import Self

from aiohttp import web


class Listening:
    """What is served in tests for the server to call. `url` is set once it listens."""

    url = ""
    runner: web.AppRunner

    def routes(self, app: web.Application) -> None:
        """Add them."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Start listening."""
        app = web.Application(client_max_size=64 * 1024**2)
        self.routes(app)
        # Without cancellation a handler would not learn that its client is gone.
        self.runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, dropping what still hangs."""
        await self.runner.cleanup()
