"""Anthropic's own worker of self-hosted environments, unmodified, in a process of its own.

It works in its own directory, as on another host, with nothing of the server's but an address and
an environment key.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = """
import asyncio, logging, os
import anthropic

async def main():
    client = anthropic.AsyncAnthropic(base_url=os.environ["URL"], api_key="none")
    worker = client.beta.environments.work.worker(
        environment_id=os.environ["ENVIRONMENT"], environment_key=os.environ["KEY"], max_idle=30
    )
    await worker.run()

logging.basicConfig(level=logging.INFO)
asyncio.run(main())
"""


class WorkerProcess:
    """One worker. `directory` is where its tools run."""

    def __init__(self, directory: Path, url: str, environment_id: str, key: str) -> None:
        directory.mkdir(parents=True)
        self.directory = directory.resolve()
        self._log = directory.parent / f"{directory.name}.log"
        self._env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(directory),
            "URL": url,
            "ENVIRONMENT": environment_id,
            "KEY": key,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def output(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace")

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", PROGRAM),
                cwd=self.directory,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL to it and to what it runs. Idempotent."""
        assert self._process is not None
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
