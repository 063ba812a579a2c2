"""The checker finds what is planted: a history in which all is well, and each way to spoil it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tests.chaos.checks import violations
from tests.chaos.plan import KINDS, plan
from tests.chaos.records import Book, Budget, Event, Line, Outside, Run, Served, Told

TASK, TALK = "run_1", "run_2"


def task_events() -> list[Event]:
    return [
        Event(1, "user.message", TASK, "Do word-task-1 now."),
        Event(2, "run.started", TASK),
        Event(3, "run.ended", TASK),
    ]


def talk_events() -> list[Event]:
    return [
        Event(1, "user.message", None, "Do word-message-2 now."),
        Event(2, "run.started", TALK),
        Event(3, "session.status_rescheduled", TALK),
        Event(4, "run.ended", TALK),
        Event(5, "session.status_idle", TALK),
    ]


@dataclass
class History:
    """What is known of a campaign in which every promise was kept."""

    told: Told = field(
        default_factory=lambda: Told(
            tasks={TASK: "word-task-1"},
            doubtful={"word-task-9": None},
            streams={TASK: [[(1, "user.message"), (2, "run.started"), (3, "run.ended")]]},
            sessions={
                "sesn_2": [
                    (1, "user.message"),
                    (3, "session.status_rescheduled"),
                    (5, "session.status_idle"),
                ]
            },
            messages={"word-message-2": "sesn_2"},
            chats={"word-chat-3": "call_1"},
        )
    )
    book: Book = field(
        default_factory=lambda: Book(
            runs=[
                Run(TASK, "sesn_1", "completed", task=True, lost=0),
                Run(TALK, "sesn_2", "completed", task=False, lost=1),
            ],
            events={"sesn_1": task_events(), "sesn_2": talk_events()},
            heads={"sesn_1": 3, "sesn_2": 5},
            ledger=[
                Line("call_1", "complete", (10, 1), 7),
                Line("call_2", "unknown", (0, 0), 90),
            ],
            budgets=[Budget("bud_1", limit=100, spent=97, held=0)],
        )
    )
    outside: Outside = field(
        default_factory=lambda: Outside(
            served=[Served((10, 1), 7, whole=True), Served((11, 1), 8, whole=True)],
            deeds={"word-task-1": ["0", "1"], "word-message-2": ["0", "1", "1"]},
        )
    )

    def violations(self) -> list[str]:
        return violations(self.told, self.book, self.outside)


def test_a_history_in_which_all_is_well() -> None:
    assert History().violations() == []


def spoiled(stream: str, *numbers: int) -> Callable[[History], None]:
    """Leave of a stream's events those at these places."""

    def spoil(history: History) -> None:
        events = history.book.events[stream]
        history.book.events[stream] = [events[number - 1] for number in numbers]

    return spoil


def read_as(*numbers: int) -> Callable[[History], None]:
    def spoil(history: History) -> None:
        [seen] = history.told.streams[TASK]
        history.told.streams[TASK] = [[seen[number - 1] for number in numbers]]

    return spoil


def unmoved(history: History) -> None:
    history.book.events["sesn_2"][2] = Event(3, "agent.message", TALK)
    history.book.runs[1] = replace(history.book.runs[1], lost=0)
    history.told.sessions["sesn_2"][1] = (3, "agent.message")


def twice(history: History) -> None:
    history.told.doubtful["word-task-1"] = None
    history.book.events["sesn_2"].append(Event(6, "user.message", None, "Do word-task-1 now."))


PLANTED: dict[str, tuple[Callable[[History], object], str]] = {
    "an end that is lost": (spoiled("sesn_1", 1, 2), "has 0 ends"),
    "a second end": (
        lambda h: h.book.events["sesn_1"].append(Event(4, "run.ended", TASK)),
        "has 2 ends",
    ),
    "a run that never ends": (
        lambda h: h.book.runs.append(Run("run_9", "sesn_9", "running", task=True, lost=0)),
        "is running for ever",
    ),
    "a gap in the book": (spoiled("sesn_2", 1, 2, 4, 5), "has a gap"),
    "a number twice in the book": (spoiled("sesn_2", 1, 1, 2, 3, 4, 5), "has a gap"),
    "an event after the head": (lambda h: h.book.heads.update(sesn_1=2), "has a gap"),
    "a gap in what a reader saw": (read_as(1, 3), "a reader of task"),
    "an event that a reader saw twice": (read_as(1, 2, 2, 3), "a reader of task"),
    "a reader that never saw the end": (lambda h: h.told.streams.clear(), "never followed"),
    "an event that a session's reader missed": (
        lambda h: h.told.sessions["sesn_2"].pop(1),
        "a reader of session",
    ),
    "an event that a session's reader saw twice": (
        lambda h: h.told.sessions["sesn_2"].insert(1, (1, "user.message")),
        "told something twice",
    ),
    "a task that was accepted and is gone": (lambda h: h.book.runs.pop(0), "is not there"),
    "a task that is there twice": (
        lambda h: h.book.events["sesn_2"].append(
            Event(6, "user.message", None, "Do word-task-1 now.")
        ),
        "is 2 times in the book",
    ),
    "one key, two tasks": (twice, "sent under one key"),
    "a message that was taken and is gone": (
        lambda h: h.told.messages.update({"word-message-5": "sesn_2"}),
        "is 0 times",
    ),
    "a deed of a task that was done twice": (
        lambda h: h.outside.deeds["word-task-1"].append("1"),
        "did 1 again",
    ),
    "a deed of a turn that was done twice, and nothing says so": (unmoved, "did 1 again"),
    "work that nobody was told of": (
        lambda h: h.outside.deeds.update({"word-task-7": ["0"]}),
        "nobody had been told",
    ),
    "a call that is billed twice": (
        lambda h: h.book.ledger.append(Line("call_3", "complete", (10, 1), 7)),
        "billed twice",
    ),
    "a call that is billed and was never served": (
        lambda h: h.book.ledger.append(Line("call_3", "complete", (99, 1), 7)),
        "served never",
    ),
    "a call that is billed too cheap": (
        lambda h: h.book.ledger.__setitem__(0, Line("call_1", "complete", (10, 1), 6)),
        "is billed with 6",
    ),
    "a call that is served and not billed": (
        lambda h: h.outside.served.append(Served((12, 1), 8, whole=True)),
        "have no line of their own",
    ),
    "a chat that was answered and is not in the ledger": (
        lambda h: h.told.chats.update({"word-chat-4": "call_9"}),
        "is None in the ledger",
    ),
    "a budget that is passed at the end": (
        lambda h: h.book.budgets.append(Budget("bud_2", limit=100, spent=101, held=0)),
        "was passed",
    ),
    "a budget that was passed for a moment": (
        lambda h: h.outside.passed.append("bud_1"),
        "was passed",
    ),
    "a hold of a budget that is left": (
        lambda h: h.book.budgets.append(Budget("bud_2", limit=100, spent=1, held=2)),
        "held for nothing",
    ),
    "a hold that is left": (lambda h: h.book.holds.append("call_9"), "a hold is left"),
    "a job that is not done": (lambda h: h.book.jobs.append("job_9"), "a job is not done"),
    "books that differ": (lambda h: h.book.differences.append("spent"), "the books differ"),
    "an agent that is left": (lambda h: h.outside.agents.append("123"), "without a server"),
    "a server that did not stop": (lambda h: h.outside.exits.append("api-0"), "in good order"),
    "what does not settle": (lambda h: h.outside.unsettled.append("a run"), "did not settle"),
    "an answer that is never right": (lambda h: h.told.wrong.append("500"), "500"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found(what: str) -> None:
    spoil, words = PLANTED[what]
    history = History()
    spoil(history)
    found = history.violations()
    assert any(words in each for each in found), found


def test_a_seed_is_a_plan() -> None:
    servers, parts = ["api-0", "worker-0"], ["database", "redis", "broker", "disk"]
    one = plan(7, 500, servers, parts=parts, gap=1.0)
    assert one == plan(7, 500, servers, parts=parts, gap=1.0)
    assert one != plan(8, 500, servers, parts=parts, gap=1.0)
    assert {(each.kind, each.target in servers) for each in one} == {
        (kind.name, kind.targets == "servers") for kind in KINDS
    }
    assert {each.target for each in one} == {*servers, *parts}
    without = plan(7, 500, servers, parts=["database"], gap=1.0)
    assert {each.target for each in without} == {*servers, "database"}
