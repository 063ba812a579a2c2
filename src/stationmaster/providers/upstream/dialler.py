"""Connecting to the first address of a name that answers (RFC 8305, "happy eyeballs")."""

import asyncio
import socket
from itertools import chain, zip_longest
from typing import Any

STAGGER = 0.25
"""Seconds before the next address is tried beside the last: one family of addresses may lead
nowhere without saying so."""

KEEPALIVE_IDLE = 60
"""Seconds of silence before the first probe. A model may think for minutes, and middle boxes forget
what is silent for so long."""

_Address = tuple[int, int, int, Any]  # family, type, protocol, address


async def dial(host: str, port: int) -> socket.socket:
    """A connected socket. Raises `OSError` where no address of the host answers."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    left = _by_turns([(family, kind, proto, address) for family, kind, proto, _, address in found])
    running: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException = OSError("the name has no address")
    try:
        while left or running:
            if left:
                running.add(loop.create_task(_attempt(left.pop(0))))
            done, _ = await asyncio.wait(
                running,
                timeout=STAGGER if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                running.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
                failure = error
        raise failure
    finally:
        await _call_off(running)


async def _attempt(target: _Address) -> socket.socket:
    family, kind, proto, address = target
    connected = socket.socket(family, kind, proto)
    try:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        await asyncio.get_running_loop().sock_connect(connected, address)
    except BaseException:
        connected.close()
        raise
    return connected


def _by_turns(addresses: list[_Address]) -> list[_Address]:
    """The families by turns, beginning with the one that the resolver prefers."""
    families = dict.fromkeys(address[0] for address in addresses)
    columns = [[item for item in addresses if item[0] == family] for family in families]
    return [item for item in chain.from_iterable(zip_longest(*columns)) if item is not None]


async def _call_off(running: set["asyncio.Task[socket.socket]"]) -> None:
    """Close what another address has beaten, also where it connected just now."""
    for task in running:
        task.cancel()
    for result in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(result, socket.socket):
            result.close()
