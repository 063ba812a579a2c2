"""The small programs that the scripted model writes."""

import re
from dataclasses import dataclass

MAX_COUNT = 200
"""What a prompt may ask for at most: the output is to be read by a person."""


@dataclass(frozen=True, slots=True)
class Program:
    """`subject` completes the sentence "a small program that …"."""

    stem: str
    subject: str
    source: str


_FIBONACCI = '''\
"""The first {count} Fibonacci numbers."""


def fibonacci(count: int) -> list[int]:
    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:count]


if __name__ == "__main__":
    print(*fibonacci({count}))
'''

_PRIMES = '''\
"""The first {count} prime numbers."""


def primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found if prime * prime <= candidate):
            found.append(candidate)
        candidate += 1
    return found


if __name__ == "__main__":
    print(*primes({count}))
'''

_FIZZBUZZ = '''\
"""FizzBuzz up to {count}."""


def fizzbuzz(number: int) -> str:
    return "Fizz" * (number % 3 == 0) + "Buzz" * (number % 5 == 0) or str(number)


if __name__ == "__main__":
    for number in range(1, {count} + 1):
        print(fizzbuzz(number))
'''

_WORDS = '''\
"""Count words, and write the counts as CSV."""

import csv
import sys
from collections import Counter

TEXT = """\\
The signal is green, the line is clear,
the train may go; the next is near.
The signal falls, the line is closed,
the next train waits, as was supposed.
"""


def count_words(text: str) -> list[tuple[str, int]]:
    words = (word.strip(".,;:!?").lower() for word in text.split())
    return Counter(words).most_common({count})


if __name__ == "__main__":
    table = csv.writer(sys.stdout, lineterminator="\\n")
    table.writerow(["word", "count"])
    table.writerows(count_words(TEXT))
'''

_HELLO = '''\
"""Say hello."""


def greet(name: str) -> str:
    return f"Hello, {{name}}!"


if __name__ == "__main__":
    print(greet("world"))
'''


@dataclass(frozen=True, slots=True)
class _Entry:
    words: re.Pattern[str]
    stem: str
    subject: str
    source: str
    count: int


def _entry(words: str, stem: str, subject: str, source: str, count: int) -> _Entry:
    return _Entry(re.compile(words, re.IGNORECASE), stem, subject, source, count)


_PROGRAMS = (
    _entry("fibonacci", "fibonacci", "prints the first {count} Fibonacci numbers", _FIBONACCI, 10),
    _entry(r"\bprime", "primes", "prints the first {count} prime numbers", _PRIMES, 10),
    _entry("fizz ?buzz", "fizzbuzz", "plays FizzBuzz up to {count}", _FIZZBUZZ, 15),
    _entry(
        r"\bcsv\b|\bwords?\b|\bcount", "words", "counts words and prints them as CSV", _WORDS, 5
    ),
)
_DEFAULT = _entry("", "hello", "says hello", _HELLO, 1)

_NUMBER = re.compile(r"\b\d{1,9}\b")


def choose(prompt: str) -> Program:
    """The program that suits a prompt best, the same for the same prompt.

    The first number in the prompt is how many lines or numbers are wanted, within bounds.
    """
    entry = next((one for one in _PROGRAMS if one.words.search(prompt)), _DEFAULT)
    number = _NUMBER.search(prompt)
    count = min(max(1, int(number[0])), MAX_COUNT) if number else entry.count
    return Program(
        stem=entry.stem,
        subject=entry.subject.format(count=count),
        source=entry.source.format(count=count),
    )
