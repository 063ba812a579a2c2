"""The promises, checked on what is known of a campaign. Each check says what it found broken."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from stationmaster.http.routes.managed.event_view import SHOWN
from tests.chaos.records import Book, Event, Outside, Seen, Told

ENDED = "run.ended"
MOVED = "session.status_rescheduled"
OPEN = frozenset({"queued", "running"})


def violations(told: Told, book: Book, outside: Outside) -> list[str]:
    """Everything that is not as promised."""
    checks: tuple[Callable[[Told, Book, Outside], Iterator[str]], ...] = (
        _answers,
        _settled,
        _ends,
        _accepted,
        _numbers,
        _task_streams,
        _session_streams,
        _messages,
        _deeds,
        _ledger,
        _chats,
        _budgets,
    )
    return [found for check in checks for found in check(told, book, outside)]


def _answers(told: Told, _book: Book, _outside: Outside) -> Iterator[str]:
    yield from told.wrong


def _settled(_told: Told, book: Book, outside: Outside) -> Iterator[str]:
    yield from (f"did not settle: {each}" for each in outside.unsettled)
    yield from (f"a job is not done: {job}" for job in book.jobs)
    yield from (f"a hold is left: {hold}" for hold in book.holds)
    yield from (f"an agent without a server: {agent}" for agent in outside.agents)
    yield from (f"a server did not stop in good order: {each}" for each in outside.exits)


def _ends(_told: Told, book: Book, _outside: Outside) -> Iterator[str]:
    """Each run has exactly one end in the book, and its row knows."""
    ends = Counter(
        event.run_id for events in book.events.values() for event in events if event.type == ENDED
    )
    for run in book.runs:
        if ends[run.id] != 1:
            yield f"run {run.id} ({run.state}) has {ends[run.id]} ends"
        if run.state in OPEN:
            yield f"run {run.id} is {run.state} for ever"


def _accepted(told: Told, book: Book, _outside: Outside) -> Iterator[str]:
    """What was accepted is there, once; what may have been is there at most once."""
    runs = {run.id: run for run in book.runs}
    said: Counter[str] = Counter()
    for events in book.events.values():
        said.update(word for event in events for word in _words(event))
    for task_id, word in told.tasks.items():
        if task_id not in runs:
            yield f"task {task_id} was accepted and is not there"
        if said[word] != 1:
            yield f"task {word} was accepted, and is {said[word]} times in the book"
    for word in told.doubtful:
        if said[word] > 1:
            yield f"{word} was sent under one key, and is {said[word]} times in the book"


def _words(event: Event) -> list[str]:
    return event.words.split() if event.type == "user.message" else []


def _numbers(_told: Told, book: Book, _outside: Outside) -> Iterator[str]:
    """Streams of the book have each number once, up to their head."""
    for stream, events in book.events.items():
        numbers = [event.seq for event in events]
        if numbers != list(range(1, book.heads.get(stream, 0) + 1)):
            yield f"stream {stream} has a gap, or a number twice: {_first_odd(numbers)}"


def _first_odd(numbers: list[int]) -> str:
    odd = next((each for each in enumerate(numbers, 1) if each[0] != each[1]), None)
    return f"at {odd[0]} is {odd[1]}" if odd else f"it ends at {len(numbers)}"


def _task_streams(told: Told, book: Book, _outside: Outside) -> Iterator[str]:
    """Who followed a task saw what the book has, from the first event to its end, each once."""
    stream_of = {run.id: run.stream for run in book.runs}
    for task_id in told.tasks:
        if not told.streams.get(task_id):
            yield f"task {task_id} was never followed to its end"
    for task_id, readers in told.streams.items():
        kept = [
            (event.seq, event.type) for event in book.events.get(stream_of.get(task_id, ""), ())
        ]
        ends = [at for at, (_, kind) in enumerate(kept, 1) if kind == ENDED]
        wanted = kept[: ends[0]] if ends else kept
        for seen in readers:
            if seen != wanted:
                yield f"a reader of task {task_id} {_unlike(seen, wanted)}"


def _session_streams(told: Told, book: Book, _outside: Outside) -> Iterator[str]:
    """Who followed a session saw each event once, in order, and left out none that are shown."""
    for session_id, seen in told.sessions.items():
        if not all(one < other for (one, _), (other, _) in pairwise(seen)):
            yield f"a reader of session {session_id} was told something twice, or out of order"
        last = seen[-1][0] if seen else 0
        kept = [(event.seq, event.type) for event in book.events.get(session_id, ())]
        wanted = [each for each in kept if each[0] <= last and each[1] in SHOWN]
        if seen != wanted:
            yield f"a reader of session {session_id} {_unlike(seen, wanted)}"


def _unlike(seen: list[Seen], wanted: list[Seen]) -> str:
    for number, (one, other) in enumerate(zip(seen, wanted, strict=False)):
        if one != other:
            return f"saw {one} where the book has {other}, after {number}"
    if len(seen) < len(wanted):
        return f"did not see {wanted[len(seen)]}"
    return f"saw {seen[len(wanted)]}, which the book has not"


def _messages(told: Told, book: Book, _outside: Outside) -> Iterator[str]:
    """A message that was taken is in its session's book once."""
    for word, session_id in told.messages.items():
        times = sum(word in _words(event) for event in book.events.get(session_id, ()))
        if times != 1:
            yield f"message {word} was taken, and is {times} times in the book of its session"


def _deeds(told: Told, book: Book, outside: Outside) -> Iterator[str]:
    """What an agent does it does once, unless its session's book says that it moved."""
    moved = {
        stream
        for stream, events in book.events.items()
        if any(event.type == MOVED for event in events)
    }
    moved |= {run.stream for run in book.runs if run.lost}
    for word, steps in outside.deeds.items():
        twice = [step for step, times in Counter(steps).items() if times > 1]
        session_id = told.messages.get(word) or told.doubtful.get(word)
        if twice and session_id not in moved:
            yield f"{word} did {twice[0]} again, and nothing says so"
        if word not in {*told.doubtful, *told.tasks.values(), *told.messages}:
            yield f"{word} was worked at, and nobody had been told that it was taken"


def _ledger(_told: Told, book: Book, outside: Outside) -> Iterator[str]:
    """The ledger has what the provider counted; what it cannot know is at most its lost calls."""
    served = defaultdict(list)
    for call in outside.served:
        served[call.tokens].append(call)
    outcomes = Counter(line.outcome for line in book.ledger)
    for line in book.ledger:
        if line.outcome != "complete":
            continue
        if not served[line.tokens]:
            yield f"call {line.call_id} is billed with {line.tokens}: served never, or billed twice"
        elif (call := served[line.tokens].pop()).cost != line.cost:
            yield f"call {line.call_id} cost {call.cost}, and is billed with {line.cost}"
    left = sum(call.whole for calls in served.values() for call in calls)
    if left > outcomes["unknown"] + outcomes["partial"]:
        yield (
            f"{left} calls were served and have no line of their own, and only"
            f" {outcomes['unknown']} are billed as lost and {outcomes['partial']} as cut off"
        )


def _chats(told: Told, book: Book, _outside: Outside) -> Iterator[str]:
    """A call that was answered whole is billed as that."""
    outcomes = {line.call_id: line.outcome for line in book.ledger}
    for word, call_id in told.chats.items():
        if outcomes.get(call_id) not in {"complete", "unknown"}:
            yield f"chat {word} was answered, and is {outcomes.get(call_id)} in the ledger"


def _budgets(_told: Told, book: Book, outside: Outside) -> Iterator[str]:
    yield from (f"a budget was passed: {each}" for each in outside.passed)
    yield from (f"the books differ: {each}" for each in book.differences)
    for budget in book.budgets:
        if budget.spent + budget.held > budget.limit:
            yield f"budget {budget.id} was passed: {budget}"
        if budget.held:
            yield f"budget {budget.id} has {budget.held} held for nothing"
