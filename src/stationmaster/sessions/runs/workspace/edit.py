"""The shortest way from one list of lines to another, within bounds that hostile input cannot move.

Myers' O(ND) algorithm (Algorithmica 1, 1986). The standard library's difflib takes cubic time on
input made for it; this takes at most the effort it is given, and then calls all of it replaced.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CONTEXT = 3  # unchanged lines around a change, as everywhere
_MAX_EDITS = 1_000  # lines; the search remembers its square in integers

Range = tuple[int, int, int, int]  # old[a:b] becomes new[c:d]


@dataclass(slots=True)
class Effort:
    """Comparisons of lines that may still be made."""

    left: int


def split_lines(content: bytes) -> list[bytes]:
    r"""Split at "\n" alone, keeping it; the last line may lack it."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def edits(old: Sequence[bytes], new: Sequence[bytes], effort: Effort) -> list[Range]:
    """Return the ranges that differ, in order. Without effort left, one range of all between."""
    start, end_old, end_new = 0, len(old), len(new)
    while start < min(end_old, end_new) and old[start] == new[start]:
        start += 1
    while min(end_old, end_new) > start and old[end_old - 1] == new[end_new - 1]:
        end_old -= 1
        end_new -= 1
    if start == end_old and start == end_new:
        return []
    numbers: dict[bytes, int] = {}
    a = [numbers.setdefault(line, len(numbers)) for line in old[start:end_old]]
    b = [numbers.setdefault(line, len(numbers)) for line in new[start:end_new]]
    effort.left -= len(old) + len(new)
    pairs = _matches(a, b, effort)
    if pairs is None:
        return [(start, end_old, start, end_new)]
    return list(_ranges(pairs, len(a), len(b), start))


def _ranges(pairs: list[tuple[int, int]], n: int, m: int, start: int) -> Iterator[Range]:
    x = y = 0
    for i, j in [*pairs, (n, m)]:
        if i > x or j > y:
            yield start + x, start + i, start + y, start + j
        x, y = i + 1, j + 1


def _matches(a: list[int], b: list[int], effort: Effort) -> list[tuple[int, int]] | None:
    """Pairs of equal lines of a longest common subsequence; None where it takes too much."""
    if not a or not b:
        return []
    most = min(len(a) + len(b), _MAX_EDITS)
    zero = most + 1  # where diagonal 0 is; entry k is the furthest x on diagonal k = x - y
    furthest = [0] * (2 * most + 3)
    trace: list[list[int]] = []
    for d in range(most + 1):
        if effort.left <= 0:
            return None
        trace.append(furthest[zero - d - 1 : zero + d + 2])
        effort.left -= d + 1
        for k in range(-d, d + 1, 2):
            x = first = _step(furthest, zero, d, k)
            y = x - k
            while x < len(a) and y < len(b) and a[x] == b[y]:
                x += 1
                y += 1
            effort.left -= x - first
            furthest[zero + k] = x
            if x >= len(a) and y >= len(b):
                return _backtrack(trace, len(a), len(b))
    return None


def _step(furthest: list[int], zero: int, d: int, k: int) -> int:
    below, above = furthest[zero + k - 1], furthest[zero + k + 1]
    return above if k == -d or (k != d and below < above) else below + 1


def _backtrack(trace: list[list[int]], x: int, y: int) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for d in range(len(trace) - 1, -1, -1):
        furthest, zero, k = trace[d], d + 1, x - y
        down = k == -d or (k != d and furthest[zero + k - 1] < furthest[zero + k + 1])
        before = k + 1 if down else k - 1
        came = furthest[zero + before]
        while x > came and y > came - before:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        x, y = came, came - before
    pairs.reverse()
    return pairs


def hunks(old: Sequence[bytes], new: Sequence[bytes], effort: Effort) -> Iterator[bytes]:
    """Yield the hunks of a unified diff, each with its header; nothing where both are equal."""
    group: list[Range] = []
    for change in edits(old, new, effort):
        if group and change[0] - group[-1][1] > 2 * CONTEXT:
            yield _hunk(old, new, group)
            group = []
        group.append(change)
    if group:
        yield _hunk(old, new, group)


def _hunk(old: Sequence[bytes], new: Sequence[bytes], group: list[Range]) -> bytes:
    lead = min(CONTEXT, group[0][0])
    tail = min(CONTEXT, len(old) - group[-1][1])
    first_old, last_old = group[0][0] - lead, group[-1][1] + tail
    first_new, last_new = group[0][2] - lead, group[-1][3] + tail
    head = f"@@ -{_span(first_old, last_old)} +{_span(first_new, last_new)} @@\n"
    out = [head.encode()]
    at = first_old
    for a, b, c, d in group:
        out.extend(_line(b" ", line) for line in old[at:a])
        out.extend(_line(b"-", line) for line in old[a:b])
        out.extend(_line(b"+", line) for line in new[c:d])
        at = b
    out.extend(_line(b" ", line) for line in old[at:last_old])
    return b"".join(out)


def _span(first: int, last: int) -> str:
    """A range as a hunk writes it: lines count from 1, an empty one names the line before."""
    length = last - first
    if length == 1:
        return str(first + 1)
    return f"{first + 1 if length else first},{length}"


def _line(sign: bytes, line: bytes) -> bytes:
    if line.endswith(b"\n"):
        return sign + line
    return sign + line + b"\n\\ No newline at end of file\n"
