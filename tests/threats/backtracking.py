"""A regular expression's matcher that counts its steps, backtracking as CPython's does.

How long a match takes on a clock depends on the machine; how many steps it takes does not.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

sre: Any = importlib.import_module("re._constants")
parser: Any = importlib.import_module("re._parser")

Nodes = Sequence[Any]
Then = Callable[[int], bool]

_WORD = re.compile(r"\w")


class TooManyStepsError(Exception):
    """The matcher was given up."""


class Counting:
    """Matches one text, and counts the steps that it takes."""

    def __init__(self, pattern: "re.Pattern[Any]", text: Sequence[int], limit: int) -> None:
        self.steps = 0
        self._nodes = list(parser.parse(pattern.pattern, pattern.flags))
        self._flags = pattern.flags
        self._text = text
        self._limit = limit

    def match(self, start: int, *, full: bool = False) -> int | None:
        """Where a match from `start` ends; None where there is none."""
        found: list[int] = []

        def end(at: int) -> bool:
            if full and at != len(self._text):
                return False
            found.append(at)
            return True

        return found[-1] if self._walk(self._nodes, start, end) else None

    def search(self) -> None:
        """Every match from everywhere, as `finditer` and `sub` look for them."""
        at = 0
        while at <= len(self._text):
            end = self.match(at)
            at = at + 1 if end is None else max(end, at + 1)

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self._limit:
            raise TooManyStepsError

    def _walk(self, nodes: Nodes, at: int, then: Then) -> bool:
        self._step()
        if not nodes:
            return then(at)
        (kind, value), rest = nodes[0], nodes[1:]
        match kind:
            case sre.BRANCH:
                return any(self._walk([*each, *rest], at, then) for each in value[1])
            case sre.SUBPATTERN:
                return self._walk([*value[3], *rest], at, then)
            case sre.MAX_REPEAT | sre.MIN_REPEAT:
                lazy = kind is sre.MIN_REPEAT
                return self._repeat(value, at, lambda i: self._walk(rest, i, then), lazy=lazy)
            case sre.POSSESSIVE_REPEAT:
                low, high, body = value
                return self._once([(sre.MAX_REPEAT, (low, high, body))], at, rest, then)
            case sre.ATOMIC_GROUP:
                return self._once(value, at, rest, then)
            case sre.ASSERT | sre.ASSERT_NOT:
                there = self._looks(value, at)
                return there is (kind is sre.ASSERT) and self._walk(rest, at, then)
            case sre.AT:
                return self._stands(value, at) and self._walk(rest, at, then)
        if at >= len(self._text) or not fits(kind, value, self._text[at], self._flags):
            return False
        return self._walk(rest, at + 1, then)

    def _looks(self, value: Any, at: int) -> bool:
        ahead, body = value
        if ahead > 0:
            return self._walk(list(body), at, lambda _: True)
        start = at - body.getwidth()[0]  # what is looked for behind has one width
        return start >= 0 and self._walk(list(body), start, lambda end: end == at)

    def _once(self, body: Nodes, at: int, rest: Nodes, then: Then) -> bool:
        ends: list[int] = []

        def end(at: int) -> bool:
            ends.append(at)
            return True

        return self._walk(list(body), at, end) and self._walk(rest, ends[-1], then)

    def _repeat(self, value: Any, at: int, then: Then, *, lazy: bool) -> bool:
        low, high, body = value

        def more(count: int, at: int, last: int) -> bool:
            self._step()
            again = high is sre.MAXREPEAT or count < high
            if count >= low and at == last and count:
                again = False  # it matched nothing: once more would be for ever

            def go() -> bool:
                return again and self._walk(list(body), at, lambda i: more(count + 1, i, at))

            if count < low:
                return go()
            return (then(at) or go()) if lazy else (go() or then(at))

        return more(0, at, -1)

    def _stands(self, code: Any, at: int) -> bool:
        match code:
            case sre.AT_BEGINNING | sre.AT_BEGINNING_STRING:
                line = self._flags & re.MULTILINE and code is sre.AT_BEGINNING
                return at == 0 or bool(line and self._text[at - 1] == 10)
            case sre.AT_END | sre.AT_END_STRING:
                line = self._flags & re.MULTILINE and code is sre.AT_END
                return at == len(self._text) or bool(line and self._text[at] == 10)
        before = at > 0 and _WORD.match(chr(self._text[at - 1])) is not None
        after = at < len(self._text) and _WORD.match(chr(self._text[at])) is not None
        return (before != after) is (code is sre.AT_BOUNDARY)


def fits(kind: Any, value: Any, letter: int, flags: int) -> bool:
    """Whether one character is what a node asks for."""
    letters = {letter}
    if flags & re.IGNORECASE:
        letters |= {ord(each) for each in chr(letter).lower() + chr(letter).upper()}
    return any(_fits(kind, value, each, flags) for each in letters)


def _fits(kind: Any, value: Any, letter: int, flags: int) -> bool:
    match kind:
        case sre.LITERAL:
            return bool(letter == value)
        case sre.NOT_LITERAL:
            return bool(letter != value)
        case sre.ANY:
            return bool(flags & re.DOTALL) or letter != 10
        case sre.RANGE:
            return bool(value[0] <= letter <= value[1])
        case sre.CATEGORY:
            name = str(value).removeprefix("CATEGORY_")
            tests = {"DIGIT": str.isdecimal, "SPACE": str.isspace, "WORD": _WORD.match}
            there = bool(tests[name.removeprefix("NOT_")](chr(letter)))  # type: ignore[operator]
            return there is not name.startswith("NOT_")
        case sre.IN:
            negated = value[0][0] is sre.NEGATE
            there = any(_fits(each[0], each[1], letter, flags) for each in value[negated:])
            return there is not negated
    raise AssertionError(f"{kind} is not understood here")


def letters(nodes: Nodes) -> Iterator[int]:
    """Of each place in a pattern, one character that it takes: from these attacks are made."""
    for kind, value in nodes:
        if kind is sre.BRANCH:
            for each in value[1]:
                yield from letters(each)
        elif kind in {sre.SUBPATTERN, sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}:
            yield from letters(value[-1])
        elif kind is sre.ATOMIC_GROUP:
            yield from letters(value)
        elif kind in {sre.ASSERT, sre.ASSERT_NOT}:
            yield from letters(value[1])
        elif kind is not sre.AT:
            yield from (each for each in _SAMPLES if _fits(kind, value, each, 0))


_SAMPLES = [ord(each) for each in 'a0 .-:/\\"<;\n=_@&\x1b']


def words(nodes: Nodes) -> Iterator[list[int]]:
    """Runs of literals in a pattern, as a whole: what it looks for."""
    run: list[int] = []
    for kind, value in nodes:
        if kind is sre.LITERAL:
            run.append(value)
            continue
        if run:
            yield run
            run = []
        if kind is sre.BRANCH:
            for each in value[1]:
                yield from words(each)
        elif kind in {sre.SUBPATTERN, sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}:
            yield from words(value[-1])
    if run:
        yield run


def attacks(pattern: "re.Pattern[Any]") -> Iterator[list[int]]:
    """Pieces which, repeated, might keep a matcher busy."""
    nodes = list(parser.parse(pattern.pattern, pattern.flags))
    top = 255 if isinstance(pattern.pattern, bytes) else 0x10FFFF
    alphabet = [[each] for each in sorted({each for each in letters(nodes) if each <= top})]
    long = [word for word in words(nodes) if len(word) > 1]
    yield from alphabet
    yield from long
    yield from ([*one, *two] for one in alphabet for two in alphabet if one != two)
    yield from (piece for one in alphabet for two in long for piece in ([*one, *two], [*two, *one]))
