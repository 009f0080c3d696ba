"""What has changed since the draft before, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import overload

from llama_index_hitl._html.diffs import FieldChange, Piece, Row, changes
from llama_index_hitl.drawing._canvas import (
    CELL,
    FAINT,
    MUTED,
    TINT,
    Canvas,
    cells,
    cut,
    width_of,
)
from llama_index_hitl.drawing._picture import Picture
from llama_index_hitl.models import ReviewRequest, Subject

ROWS_LIMIT = 120
"""Lines of both versions that are shown; how many more there are is said."""

_MARGIN = 24.0
_HEAD = 62.0
_SIZE = 12.0
_LINE = 18.0
_NUMBERS = 34.0
_COLUMNS = 56  # characters in a line of each side
_WRAPS = 8  # lines that one line of a text may take
_SIDE = _NUMBERS + _COLUMNS * _SIZE * CELL + 14
_MIDDLE = 8.0
_WIDTH = 2 * _MARGIN + 2 * _SIDE + _MIDDLE

_REMOVED, _REMOVED_WORD = "#ffebe9", "#ffc1bc"
_ADDED, _ADDED_WORD = "#dafbe1", "#8fe3a3"

_FIRST = "This is the first version: there is none before it."
_SAME = "Nothing has changed."


@overload
def draw_changes(request: ReviewRequest, /) -> Picture: ...


@overload
def draw_changes(before: str, after: str, /) -> Picture: ...


def draw_changes(request: ReviewRequest | str, after: str | None = None, /) -> Picture:
    r"""Draw what has changed since the version before: that one on the left, this on the right.

    Lines that are the same and far from any change are left out. Long lines are wrapped, very long
    ones and very long texts are cut, and the picture says where.

    Args:
        request: A request; the version before is its `previous`. Or the text before, with `after`.
        after: The text as it is now.

    Raises:
        TypeError: Something else was given.

    Example:
        >>> draw_changes("Tea is hot.\nDrink it.", "Tea is warm.\nDrink it.\nSlowly.")
        Picture('What has changed: 2 lines')
    """
    if isinstance(request, str) and isinstance(after, str):
        return _drawn("What has changed", "", changes({"": request}, {"": after}), _SAME)
    if not isinstance(request, ReviewRequest) or after is not None:
        raise TypeError("draw_changes takes a ReviewRequest, or two texts")
    title, revision = request.title, f"revision {request.revision}"
    if request.previous is None or request.subject is None:
        return _drawn(title, revision, (), _FIRST)
    found = changes(request.previous.data, request.subject.data, _labels(request.subject))
    return _drawn(title, f"{revision} beside revision {request.revision - 1}", found, _SAME)


def _labels(subject: Subject) -> dict[str, str]:
    """Return what the subject's own schema calls its fields."""
    fields = subject.json_schema.get("properties")
    named = fields.items() if isinstance(fields, dict) else ()
    titles = {name: field.get("title") for name, field in named if isinstance(field, dict)}
    return {name: title for name, title in titles.items() if isinstance(title, str)}


def _drawn(title: str, about: str, found: Sequence[FieldChange], otherwise: str) -> Picture:
    canvas = Canvas()
    count = sum(max(change.added, change.removed) for change in found)
    lines = f"{count} line{'s' * (count != 1)}" if found else otherwise
    about = f"{about}: {lines}" if about and found else about or lines
    canvas.text(
        _MARGIN,
        30,
        cut(title, _WIDTH - 2 * _MARGIN, 16, bold=True),
        size=16,
        bold=True,
        whole=title,
    )
    canvas.text(_MARGIN, 47, about, size=12, colour=MUTED)
    y, left = _HEAD, ROWS_LIMIT
    for change in found:
        if change.label:
            canvas.text(_MARGIN, y + 15, cut(change.label, 600, bold=True), bold=True)
            y += 24
        if change.note:
            y = _note(canvas, y, change.note)
        for row in change.rows[:left]:
            y = _draw_row(canvas, y, row)
        if len(change.rows) > left:
            y = _note(canvas, y, f"… and {len(change.rows) - left:,} more lines, not shown")
        left = max(0, left - len(change.rows))
        y += 10
    if not found and about != otherwise:
        y = _note(canvas, y, otherwise)
    said = f"{title}: {lines.removesuffix('.')}"
    return canvas.picture(said, _WIDTH, y + 14)


def _note(canvas: Canvas, y: float, words: str) -> float:
    canvas.text(_MARGIN, y + 13, words, size=12, colour=MUTED)
    return y + _LINE


# --------------------------------------------------------------------------- rows


def _draw_row(canvas: Canvas, y: float, row: Row) -> float:
    """Draw one line of both versions; return where the next one goes."""
    if row.kind == "gap":
        canvas.rect(_MARGIN, y + 2, 2 * _SIDE + _MIDDLE, _LINE, fill=TINT)
        many = f"{row.count:,} lines that are the same"
        canvas.text(_WIDTH / 2, y + 15, many, size=11, colour=FAINT, anchor="middle")
        return y + _LINE + 4
    before, after = _wrapped(row.before), _wrapped(row.after)
    height = _LINE * max(len(before), len(after), 1)
    right = _MARGIN + _SIDE + _MIDDLE
    is_gone, is_new = row.kind in ("changed", "removed"), row.kind in ("changed", "added")
    _draw_side(canvas, _MARGIN, y, height, before, row.before_number, _REMOVED, is_gone)
    _draw_side(canvas, right, y, height, after, row.after_number, _ADDED, is_new)
    return y + height


def _draw_side(
    canvas: Canvas,
    x: float,
    y: float,
    height: float,
    lines: Sequence[Sequence[Piece]],
    number: int | None,
    colour: str,
    is_changed: bool,
) -> None:
    """Draw one line of one version."""
    if number is None:
        canvas.rect(x, y, _SIDE, height, fill=TINT)
        return
    if is_changed:
        canvas.rect(x, y, _SIDE, height, fill=colour)
    where = x + _NUMBERS - 8
    canvas.text(where, y + 13, str(number), size=10, colour=FAINT, anchor="end", mono=True)
    word = _REMOVED_WORD if colour == _REMOVED else _ADDED_WORD
    for index, pieces in enumerate(lines):
        _draw_line(canvas, x + _NUMBERS, y + index * _LINE, pieces, word)


def _draw_line(canvas: Canvas, x: float, y: float, pieces: Sequence[Piece], colour: str) -> None:
    for piece in pieces:
        width = width_of(piece.text, _SIZE, mono=True)
        if piece.changed:
            canvas.rect(x, y + 1, width, _LINE - 2, fill=colour, radius=2)
        if piece.text.strip():
            canvas.text(x, y + 13, piece.text, size=_SIZE, mono=True, length=width)
        x += width


def _wrapped(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Return a line as lines that fit, with an ellipsis where it was cut."""
    characters = [
        (character, piece.changed) for piece in pieces for character in piece.text.expandtabs(4)
    ]
    lines: list[list[Piece]] = []
    while characters and len(lines) < _WRAPS:
        fits = _fitting(characters)
        line, characters = characters[:fits], characters[fits:]
        if characters and len(lines) == _WRAPS - 1:
            line = [*line[:-1], ("…", False)]
        lines.append(_pieces(line))
    return lines


def _fitting(characters: Sequence[tuple[str, bool]]) -> int:
    """Return how many characters fit into a line: up to its last space, if it has one."""
    used = count = 0
    while count < len(characters) and used + cells(characters[count][0]) <= _COLUMNS:
        used += cells(characters[count][0])
        count += 1
    if count == len(characters):
        return count
    spaces = [place for place in range(count) if characters[place][0] == " "]
    return spaces[-1] + 1 if spaces and spaces[-1] > count // 2 else count


def _pieces(characters: Sequence[tuple[str, bool]]) -> list[Piece]:
    """Join characters that stand side by side and are alike."""
    return [
        Piece("".join(character for character, _ in group), is_changed)
        for is_changed, group in groupby(characters, key=itemgetter(1))
    ]
