"""The page of pains names a test that exists for each of them."""

import re

from tests.docs.pages import NAMED, ROOT, missing_tests

PAGE = ROOT / "docs" / "pains.md"
PAINS = 16


def test_every_test_that_is_named_exists() -> None:
    assert missing_tests(PAGE) == []


def test_every_pain_has_a_test() -> None:
    rows = re.findall(r"^\| (\d+)\. .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number in rows] == [*range(1, PAINS + 1)]
    lines = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    assert [line for line in lines if re.match(r"\| \d", line) and not NAMED.search(line)] == []
