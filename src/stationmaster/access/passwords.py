"""Passwords: argon2id, in threads of their own and never on the event loop.

A hash takes some 50 ms of a core and 64 MB. So few run at once, and few may wait: beyond that a
caller is told to come back, before anything is computed.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from stationmaster.kernel.errors import Exhausted, Invalid

if TYPE_CHECKING:
    from pwdlib import PasswordHash

T = TypeVar("T")

MIN_LENGTH = 12
MAX_LENGTH = 256  # characters; a longer one only costs time
THREADS = 2
MAX_WAITING = 64


def check_password(password: str, *, param: str = "password") -> str:
    """Return a password that may be set. Raises `Invalid`, which never repeats it."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise Invalid(f"{param} must be {MIN_LENGTH} to {MAX_LENGTH} characters long.", param=param)
    if len(set(password)) < MIN_LENGTH // 3:
        raise Invalid(f"{param} repeats too few characters.", param=param)
    if not _encodable(password):
        raise Invalid(f"{param} must be text.", param=param)
    return password


class Passwords:
    """Hashes and verifies. Close it."""

    def __init__(self, *, passes: int = 3, memory_kib: int = 65_536) -> None:
        """What a hash costs. Stored ones that cost something else are renewed at a sign-in."""
        self._cost = (passes, memory_kib)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._waiting = 0
        self._made: PasswordHash | None = None
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """The text to store. Raises `Exhausted`."""
        return await self._run(lambda: self._hasher().hash(password))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Whether it is the password, and a new text to store where the old one is out of date.

        Without a stored one the same work is done for nothing: how long it takes must not tell
        who has a password here. Raises `Exhausted`.
        """
        if len(password) > MAX_LENGTH or not _encodable(password):
            password = ""  # nobody's
        return await self._run(partial(self._verify, password, stored))

    def _verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        hasher = self._hasher()
        if self._nobodys is None:
            self._nobodys = hasher.hash("nobody's password")
        right, newer = hasher.verify_and_update(password, stored or self._nobodys)
        return (right, newer) if stored is not None else (False, None)

    def _hasher(self) -> "PasswordHash":
        if self._made is None:
            from pwdlib import PasswordHash
            from pwdlib.hashers.argon2 import Argon2Hasher

            passes, memory_kib = self._cost
            self._made = PasswordHash((Argon2Hasher(passes, memory_kib, parallelism=1),))
        return self._made

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Exhausted("Too many people sign in at once.", code="busy", retry_after=1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    async def prepare(self) -> None:
        """Do what the first caller would wait for."""
        await self.verify("", None)

    def close(self) -> None:
        """Take no more. Idempotent."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
