"""Clients that behave well: each sends again what may be sent again, and keeps what it was told."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx

from tests.chaos.records import Seen, Told
from tests.chaos.server import WORD
from tests.http.streams import Frame, frames

ENDED = "run.ended"
IDLE = "session.status_idle"
GONE = "session.status_terminated"
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
UNKNOWN = "nobody knows how it ended"  # in the shape of every route
MODEL = "claude-haiku-4-5"
TOOLSET = {"type": "agent_toolset_20260401"}
CUT = 0.05  # of the events of a stream: after these its reader leaves and comes again
PAYS_FOR = 6  # calls, by a spender's budget
WORST = 30_000  # micro-dollars: about what one call is held for


class Clients:
    """They run until `stop`; what they have begun they see to its end."""

    def __init__(self, client: httpx.AsyncClient, told: Told, *, seed: int) -> None:
        self._client = client
        self._told = told
        self._chance = random.Random(f"clients {seed}")
        self._numbers = itertools.count(1)
        self._over = asyncio.Event()  # nothing new is begun
        self._given_up = asyncio.Event()  # what is not answered by now will not be
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, *, tasks: int, chats: int, sessions: int, spenders: int) -> None:
        """Begin so many of each kind."""
        kinds: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (tasks, self._works),
            (chats, self._chats),
            (sessions, self._talks),
            (spenders, self._spends),
        )
        for count, kind in kinds:
            for _ in range(count):
                self._spawn(kind())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

    def stop(self) -> None:
        """Begin nothing new."""
        self._over.set()

    async def done(self, seconds: float) -> list[str]:
        """Wait for all that was begun; what was not over in time."""
        deadline = time.monotonic() + seconds
        while pending := [task for task in self._tasks if not task.done()]:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await asyncio.wait(pending, timeout=min(left, 1.0))
        self._given_up.set()
        for task in pending:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        broken = [repr(each) for each in results if isinstance(each, Exception)]
        return [f"a client still waited: {task.get_coro()}" for task in pending] + broken

    # --- requests -----------------------------------------------------------------------------

    def _word(self, kind: str) -> str:
        return f"{WORD}{kind}-{next(self._numbers)}"

    async def _ask(self, path: str, body: Any, key: str, **headers: str) -> httpx.Response | None:
        """POST until there is an answer that says what became of it; None where nobody knows."""
        headers = {"idempotency-key": key, **headers}
        while True:
            try:
                answer = await self._client.post(path, json=body, headers=headers)
            except httpx.TransportError as error:
                self._told.answers[type(error).__name__] += 1
            else:
                self._note(path, answer)
                if not _again(answer):
                    return None if UNKNOWN in answer.text.replace("\n", " ") else answer
            await asyncio.sleep(self._chance.uniform(0.1, 0.6))

    def _note(self, path: str, answer: httpx.Response) -> None:
        took = answer.elapsed.total_seconds()
        self._told.slowest = max(self._told.slowest, took)
        self._told.answers[str(answer.status_code)] += 1
        if answer.status_code == 500:
            self._told.wrong.append(f"POST {path} was answered 500: {answer.text[:300]}")

    async def _pause(self, most: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._chance.uniform(0, most)):
                await self._over.wait()

    # --- tasks --------------------------------------------------------------------------------

    async def _works(self) -> None:
        while not self._over.is_set():
            word = self._word("task")
            self._told.doubtful[word] = None
            answer = await self._ask("/v1/tasks", {"description": f"Do {word} now."}, word)
            if answer is not None:
                del self._told.doubtful[word]
                if answer.status_code == 202:
                    self._accepted(answer.json()["task_id"], word)
                else:
                    self._told.wrong.append(f"a task was answered {answer.status_code}")
            await self._pause(2.0)

    def _accepted(self, task_id: str, word: str) -> None:
        if task_id in self._told.tasks:
            self._told.wrong.append(f"task {task_id} was given out twice")
        self._told.tasks[task_id] = word
        for _ in range(2 if self._chance.random() < 0.3 else 1):
            self._spawn(self._follow_task(task_id))

    async def _follow_task(self, task_id: str) -> None:
        seen: list[Seen] = []
        async for frame in self._follow(f"/v1/tasks/{task_id}/events", seen):
            if frame.type == ENDED:
                break
        self._told.streams.setdefault(task_id, []).append(seen)

    async def _follow(self, path: str, seen: list[Seen]) -> AsyncIterator[Frame]:
        """What comes, with a new connection whenever one ends, from the last number on."""
        while True:
            last = str(seen[-1][0]) if seen else "0"
            headers = {"last-event-id": last, "accept": "text/event-stream"}
            with suppress(httpx.TransportError):
                async with self._client.stream("GET", path, headers=headers) as answer:
                    self._told.answers[f"stream {answer.status_code}"] += 1
                    if answer.status_code in {404, 500}:
                        self._told.wrong.append(f"GET {path} was answered {answer.status_code}")
                    async for frame in frames(answer) if answer.is_success else _nothing():
                        if frame is None or frame.id is None:
                            continue
                        seen.append((frame.id, frame.type))
                        yield frame
                        if self._chance.random() < CUT:
                            break
            self._told.reconnects += 1
            await asyncio.sleep(0.1)

    # --- chats --------------------------------------------------------------------------------

    async def _chats(self) -> None:
        while not self._over.is_set():
            word = self._word("chat")
            if self._chance.random() < 0.5:
                await self._chat(word, {"stream": False})
            else:
                await self._stream(word)
            await self._pause(0.6)

    async def _chat(self, word: str, more: Any) -> None:
        path, body = self._call(word)
        answer = await self._ask(path, {**body, **more}, word)
        if answer is None:
            return
        if answer.status_code != 200:
            self._told.wrong.append(f"a chat was answered {answer.status_code} {answer.text[:200]}")
            return
        self._told.chats[word] = answer.headers["x-stationmaster-call"]
        if self._chance.random() < 0.3:
            await self._again(path, {**body, **more}, word, answer)

    def _call(self, word: str) -> tuple[str, dict[str, Any]]:
        said = [{"role": "user", "content": f"What about {word}?"}]
        if self._chance.random() < 0.5:
            return "/v1/chat/completions", {"model": MODEL, "messages": said, "max_tokens": 1_500}
        return "/v1/messages", {"model": MODEL, "messages": said, "max_tokens": 1_500}

    async def _again(self, path: str, body: Any, word: str, first: httpx.Response) -> None:
        """What was answered once is answered again."""
        answer = await self._ask(path, body, word)
        if answer is None:
            self._told.replays["unknown"] += 1  # its reply could not be kept
        elif answer.status_code == 200 and answer.content == first.content:
            self._told.replays["same"] += 1
        elif answer.headers.get("idempotent-replayed"):
            self._told.wrong.append(f"chat {word} was answered otherwise when asked again")
        else:
            self._told.replays["done again"] += 1  # the server was lost before it kept its reply

    async def _stream(self, word: str) -> None:
        """A streamed call; one that is cut off is not asked again."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"What about {word}?"}],
            "max_tokens": 1_500,
            "stream": True,
        }
        with suppress(httpx.TransportError):
            async with self._client.stream("POST", "/v1/messages", json=body) as answer:
                self._told.answers[str(answer.status_code)] += 1
                if answer.status_code != 200:
                    await answer.aread()
                    self._note("/v1/messages", answer)
                    return
                leaves = self._chance.random() < 0.1
                async for line in answer.aiter_lines():
                    if line == "event: message_stop":
                        self._told.chats[word] = answer.headers["x-stationmaster-call"]
                    if leaves and "content_block_delta" in line:
                        return

    # --- sessions -----------------------------------------------------------------------------

    async def _talks(self) -> None:
        while not self._over.is_set():
            session_id = await self._session()
            if session_id is None:
                continue
            seen = self._told.sessions[session_id] = []
            for _ in range(self._chance.randrange(2, 6)):
                word = self._word("message")
                if not await self._say(session_id, word) or not await self._idle(session_id, seen):
                    break
                await self._pause(1.0)
                if self._over.is_set():
                    break

    async def _session(self) -> str | None:
        agent = await self._made("agents", {"name": "a", "model": MODEL, "tools": [TOOLSET]})
        box = await self._made("environments", {"name": self._word("box")})
        if agent is None or box is None:
            return None
        return await self._made("sessions", {"agent": agent, "environment_id": box})

    async def _made(self, what: str, body: Any) -> str | None:
        answer = await self._ask(f"/v1/{what}", body, self._word(what))
        if answer is None:
            return None
        if not answer.is_success:
            self._told.wrong.append(
                f"{what} were answered {answer.status_code} {answer.text[:200]}"
            )
            return None
        made: str = answer.json()["id"]
        return made

    async def _say(self, session_id: str, word: str) -> bool:
        """Send a message; False where nobody knows whether it was taken."""
        content = [{"type": "text", "text": f"Do {word} now."}]
        body = {"events": [{"type": "user.message", "content": content}]}
        self._told.doubtful[word] = session_id
        answer = await self._ask(f"/v1/sessions/{session_id}/events", body, word)
        if answer is None:
            return False
        del self._told.doubtful[word]
        if answer.is_success:
            self._told.messages[word] = session_id
        else:
            self._told.wrong.append(
                f"a message was answered {answer.status_code} {answer.text[:200]}"
            )
        return answer.is_success

    async def _idle(self, session_id: str, seen: list[Seen]) -> bool:
        """Follow to the end of the turn; False where that was the session's."""
        async for frame in self._follow(f"/v1/sessions/{session_id}/events/stream", seen):
            if frame.type == GONE:
                return False
            if frame.type == IDLE:
                return True
        return False

    # --- money --------------------------------------------------------------------------------

    async def _spends(self) -> None:
        """A key with a small budget, spent until it is gone; then the next."""
        while not self._over.is_set():
            name = self._word("key")
            rights = {"name": name, "permissions": ["read:*", "write:*"]}
            made = await self._ask("/api/admin/keys", rights, name)
            if made is None or not made.is_success:
                continue
            key = made.json()
            limit = f"{WORST * PAYS_FOR / 1_000_000:.6f}"
            budget = {"subject": {"type": "key", "id": key["id"]}, "limit_usd": limit}
            if await self._ask("/v1/budgets", budget, f"budget {name}") is None:
                continue
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(self._spend(key["key"]))

    async def _spend(self, key: str) -> None:
        refused = 0
        while refused < 2 and not self._over.is_set():
            said = [{"role": "user", "content": "Hello " + "and so on " * 200}]
            body = {"model": MODEL, "messages": said, "max_tokens": 2_000}
            try:
                answer = await self._client.post(
                    "/v1/messages", json=body, headers={"authorization": f"Bearer {key}"}
                )
            except httpx.TransportError as error:
                self._told.answers[type(error).__name__] += 1
                continue
            self._note("/v1/messages", answer)
            refused += answer.status_code == 402
            await self._pause(0.3)


async def _nothing() -> AsyncIterator[Frame | None]:
    nothing: tuple[Frame, ...] = ()
    for each in nothing:
        yield each


def _again(answer: httpx.Response) -> bool:
    """Whether the same may be sent again."""
    if answer.status_code == 409:
        return bool(answer.headers.get("x-should-retry") == "true")
    return answer.status_code in AGAIN
