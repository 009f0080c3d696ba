"""How one version of a subject differs from another, as rows that pages lay out in two ways."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from pydantic import JsonValue

from llama_index_hitl._text import visible
from llama_index_hitl.rendering import text_of

LINES_LIMIT = 1_500
"""Lines of each side, without those that both begin and end with, up to which they are compared."""

CHARACTERS_LIMIT = 300_000
"""Characters of both sides together up to which they are compared."""

_CONTEXT = 3  # unchanged lines around a change
_ALIKE = 0.4  # the part that two lines have in common from which on one is the other, changed
_WORK_LIMIT = 1_000_000  # pairs of words compared for one subject
_WORD = re.compile(r"\w+|\s+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line: whether it is different in the other version."""

    text: str
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of both versions.

    Attributes:
        kind: `gap` stands for lines that are the same and not shown.
        before: The line then; empty where it was added.
        after: The line now; empty where it was removed.
        before_number: Its number then, from 1; None: it was not there.
        after_number: Its number now, from 1; None: it is not there.
        count: How many lines a gap stands for.
    """

    kind: Literal["same", "changed", "removed", "added", "gap"]
    before: tuple[Piece, ...] = ()
    after: tuple[Piece, ...] = ()
    before_number: int | None = None
    after_number: int | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class FieldChange:
    """What changed in one field.

    Attributes:
        field: Name of the field.
        label: What it is called.
        rows: The change, line by line; empty if it is too long to be compared.
        short: Whether both versions are one short line.
        added: Lines that are new.
        removed: Lines that are gone.
        note: Why nothing, or not all, can be seen in the rows.
    """

    field: str
    label: str
    rows: tuple[Row, ...]
    short: bool
    added: int
    removed: int
    note: str = ""


def changes(
    before: Mapping[str, JsonValue],
    after: Mapping[str, JsonValue],
    labels: Mapping[str, str] | None = None,
) -> tuple[FieldChange, ...]:
    """Return what differs between two versions of a subject, field by field.

    Args:
        before: The version then.
        after: The version now.
        labels: What fields are called; others by their names.
    """
    budget = _Budget(_WORK_LIMIT)
    names = [*after, *(name for name in before if name not in after)]
    return tuple(
        _change(name, (labels or {}).get(name, name), before, after, budget)
        for name in names
        if _written(before, name) != _written(after, name)
    )


class _Budget:
    """How much work may still be spent on words."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, cost: int) -> bool:
        if cost > self._left:
            return False
        self._left -= cost
        return True


def _written(data: Mapping[str, JsonValue], name: str) -> str | None:
    """Return a value so that no two different ones look alike: True is not 1, null not absent."""
    return json.dumps(data[name], sort_keys=True) if name in data else None


def _change(
    name: str,
    label: str,
    before: Mapping[str, JsonValue],
    after: Mapping[str, JsonValue],
    budget: _Budget,
) -> FieldChange:
    old, new = _text_in(before, name), _text_in(after, name)
    if old == new:
        kinds = f"{_kind(before, name)} became {_kind(after, name)}"
        return FieldChange(name, label, (), True, 0, 0, f"It reads the same: {kinds}.")
    a, b = visible(old).split("\n"), visible(new).split("\n")
    if len(old) + len(new) > CHARACTERS_LIMIT:
        return _too_long(name, label, a, b)
    rows = list(_rows(a, b, budget))
    if not rows:
        return _too_long(name, label, a, b)
    added = sum(row.kind in ("added", "changed") for row in rows)
    removed = sum(row.kind in ("removed", "changed") for row in rows)
    short = len(a) == 1 == len(b) and max(len(old), len(new)) <= 80
    return FieldChange(name, label, tuple(_folded(rows)), short, added, removed)


def _too_long(name: str, label: str, a: Sequence[str], b: Sequence[str]) -> FieldChange:
    note = f"Too long to be compared line by line: {len(a):,} lines became {len(b):,}."
    return FieldChange(name, label, (), False, 0, 0, note)


def _text_in(data: Mapping[str, JsonValue], name: str) -> str:
    return text_of(data[name]) if name in data else ""


def _kind(data: Mapping[str, JsonValue], name: str) -> str:
    if name not in data:
        return "nothing"
    given = data[name]
    return {"str": "text", "bool": "yes or no", "NoneType": "nothing"}.get(
        type(given).__name__, "a value"
    )


def _rows(a: Sequence[str], b: Sequence[str], budget: _Budget) -> Iterator[Row]:
    """Yield all rows; none if what is different is too long to be compared."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    middle_a, middle_b = a[start : len(a) - end], b[start : len(b) - end]
    if max(len(middle_a), len(middle_b)) > LINES_LIMIT:
        return
    yield from (_same(a[i], i, i) for i in range(start))
    matcher = SequenceMatcher(None, middle_a, middle_b, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        i1, i2, j1, j2 = i1 + start, i2 + start, j1 + start, j2 + start
        if tag == "equal":
            yield from (
                _same(a[i], i, j) for i, j in zip(range(i1, i2), range(j1, j2), strict=True)
            )
            continue
        i, j = i1, j1
        for k, m in (*_pairs(a[i1:i2], b[j1:j2], budget), (i2 - i1, j2 - j1)):
            yield from (Row("removed", (Piece(a[n]),), (), n + 1, None) for n in range(i, i1 + k))
            yield from (Row("added", (), (Piece(b[n]),), None, n + 1) for n in range(j, j1 + m))
            i, j = i1 + k, j1 + m
            if i < i2 and j < j2:
                yield _changed(a[i], b[j], i, j, budget)
                i, j = i + 1, j + 1
    first_a, first_b = len(a) - end, len(b) - end
    yield from (_same(a[first_a + k], first_a + k, first_b + k) for k in range(end))


def _pairs(a: Sequence[str], b: Sequence[str], budget: _Budget) -> list[tuple[int, int]]:
    """Return which lines stand side by side: those most alike, in order; by place if too many."""
    cost = sum(map(len, a)) * len(b) + sum(map(len, b)) * len(a)
    if len(a) * len(b) <= 1 or not budget.spend(cost):
        return [(k, k) for k in range(min(len(a), len(b)))]
    # The best alignment of two sequences (Needleman-Wunsch), where unlike lines earn nothing.
    best = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    alike = [[_alike(x, y) for y in b] for x in a]
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            paired = best[i + 1][j + 1] + alike[i][j]
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    found: list[tuple[int, int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        if alike[i][j] and best[i][j] == best[i + 1][j + 1] + alike[i][j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return found


def _alike(a: str, b: str) -> float:
    """Return how alike two lines are, from 0 to 1; 0 if they have little in common."""
    words, others = set(_WORD.findall(a.strip())), set(_WORD.findall(b.strip()))
    words.discard(" ")
    others.discard(" ")
    common = 2 * len(words & others) / max(1, len(words) + len(others))
    return common if common >= _ALIKE else 0.0


def _same(line: str, i: int, j: int) -> Row:
    piece = (Piece(line),)
    return Row("same", piece, piece, i + 1, j + 1)


def _changed(old: str, new: str, i: int, j: int, budget: _Budget) -> Row:
    before, after = _words(old, new, budget)
    return Row("changed", before, after, i + 1, j + 1)


def _words(old: str, new: str, budget: _Budget) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Mark the words that differ; none where the lines have little in common."""
    a, b = _WORD.findall(old), _WORD.findall(new)
    plain = ((Piece(old),), (Piece(new),))
    if not budget.spend(len(a) * len(b)):
        return plain
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    blocks = matcher.get_matching_blocks()
    common = sum(len("".join(a[i : i + size]).strip()) for i, _, size in blocks)
    if common < _ALIKE * min(len(old.strip()), len(new.strip())):
        return plain
    before: list[Piece] = []
    after: list[Piece] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        is_changed = tag != "equal"
        if i2 > i1:
            before.append(Piece("".join(a[i1:i2]), is_changed))
        if j2 > j1:
            after.append(Piece("".join(b[j1:j2]), is_changed))
    return tuple(before), tuple(after)


def _folded(rows: Sequence[Row]) -> Iterator[Row]:
    """Put gaps in the place of lines that are the same and far from any change."""
    near = [False] * len(rows)
    for index, row in enumerate(rows):
        if row.kind != "same":
            for close in range(max(0, index - _CONTEXT), min(len(rows), index + _CONTEXT + 1)):
                near[close] = True
    index = 0
    while index < len(rows):
        start = index
        while index < len(rows) and not near[index]:
            index += 1
        if index - start > 1:
            yield Row("gap", count=index - start)
        else:
            yield from rows[start:index]
        if index < len(rows):
            yield rows[index]
            index += 1
