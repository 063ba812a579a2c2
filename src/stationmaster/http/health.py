"""How the server is. Components are asked at most once a second, however often anyone asks us."""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from stationmaster.http.services import Component, Services
from stationmaster.kernel.errors import StationmasterError

log = structlog.get_logger(__name__)

FRESH_S = 1.0
CHECK_S = 2.0  # for one component; then it counts as down
_WORD = re.compile(r"[a-z_]{1,32}")  # what can be neither an address, nor a path, nor a message


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check of one component said. `code` and `message` where it is down."""

    component: Component
    details: Mapping[str, Any]
    code: str | None = None
    message: str | None = None

    @property
    def status(self) -> Literal["ok", "down", "overloaded", "degraded"]:
        """`ok`, `down`, of a pool `overloaded`; `degraded` with a `warning`, or a provider down."""
        if self.code is not None:
            return "down"
        if self.details.get("open") or self.details.get("warning"):
            return "degraded"
        full = self.details.get("max_queue")
        if full is not None and self.details.get("queued_tasks", 0) >= max(1, full):
            return "overloaded"
        return "ok"

    def tell(self, *, known: bool) -> dict[str, Any]:
        """For `/health`. A caller that is not `known` gets numbers and plain words alone."""
        told = {
            name: value
            for name, value in self.details.items()
            if known
            or isinstance(value, int | float)
            or (isinstance(value, str) and _WORD.fullmatch(value))
        }
        if self.code is not None:
            told["code"] = self.code
            if known:
                told["message"] = self.message
        return {"status": self.status, **told}


class Health:
    """Asks the components."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._asking = asyncio.Lock()
        self._findings: list[Finding] = []
        self._asked_at: float | None = None
        self._born = time.monotonic()

    @property
    def uptime(self) -> float:
        """Seconds since the app was made."""
        return time.monotonic() - self._born

    async def findings(self) -> list[Finding]:
        """One for each component, at most `FRESH_S` old."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if self._asked_at is None or now - self._asked_at > FRESH_S:
                checks = (_ask(component) for component in self._services.components)
                self._findings = list(await asyncio.gather(*checks))
                self._asked_at = asyncio.get_running_loop().time()
            return self._findings

    async def not_ready_because(self) -> str | None:
        """Why requests should go elsewhere; None where they are welcome."""
        if reason := self._services.not_ready_because():
            return reason
        for finding in await self.findings():
            if finding.component.critical and finding.status == "down":
                return f"{finding.component.name}_not_ready"
        return None


async def _ask(component: Component) -> Finding:
    try:
        async with asyncio.timeout(CHECK_S):
            return Finding(component, await component.check())
    except TimeoutError:
        return Finding(component, {}, "timeout", "It does not answer.")
    except StationmasterError as error:
        return Finding(component, {}, error.error_code, error.message)
    except Exception:
        log.exception("A component could not be checked.", component=component.name)
        return Finding(component, {}, "internal_error", "It could not be checked.")
