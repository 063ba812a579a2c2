"""Ctrl-C in a chat: whenever it comes, it is for the agent's turn."""

import os
import signal
from collections.abc import Callable

import pytest

from stationmaster.cli.chat import _Chat
from stationmaster.cli.conversation import Conversation, Turn


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Sessions:
    """Notes what is asked of it. `saying` happens in the middle of what begins a turn."""

    def __init__(self, saying: Callable[[], None] = lambda: None) -> None:
        self.asked: list[str] = []
        self._saying = saying

    def say(self, _session: str, text: str) -> None:
        self.asked.append(f"begins to say {text}")
        self._saying()
        self.asked.append("has said it")

    def interrupt(self, _session: str) -> None:
        self.asked.append("interrupt")


def chat(monkeypatch: pytest.MonkeyPatch, sessions: Sessions, watching: Callable[[], None]) -> None:
    """A chat of one message, and its end."""
    lines = iter(["hello", None])
    monkeypatch.setattr("stationmaster.cli.chat._read", lambda _prompt: next(lines))

    def watch(_shown: Conversation, _events: object) -> Turn:
        watching()
        return Turn()

    monkeypatch.setattr(Conversation, "watch", watch)
    _Chat(sessions, "sesn_1", iter(())).run()  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _ctrl_c_as_usual() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_before_its_turn_has_begun_it_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(press)
    chat(monkeypatch, sessions, lambda: None)
    assert sessions.asked == ["begins to say hello", "has said it", "interrupt"]


def test_during_a_turn_it_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    chat(monkeypatch, sessions, press)
    assert sessions.asked == ["begins to say hello", "has said it", "interrupt"]


@pytest.mark.parametrize("early", [True, False])
def test_the_second_one_leaves(monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
    def twice() -> None:
        press()
        press()

    sessions = Sessions(twice if early else lambda: None)
    with pytest.raises(KeyboardInterrupt):
        chat(monkeypatch, sessions, twice)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
