"""What happened in a run as a picture: who was asked, how long it took, who decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from llama_index_hitl.drawing._canvas import (
    EDGE,
    FAINT,
    INK,
    MUTED,
    PAPER,
    TONES,
    Canvas,
    cut,
    n,
    wrapped,
)
from llama_index_hitl.drawing._picture import Picture
from llama_index_hitl.drawing._story import RUN, Moment, Story, story_of
from llama_index_hitl.drawing._times import day, duration, needs_seconds, time

if TYPE_CHECKING:
    from llama_index_hitl.runner import Runner

_WIDTH = 760.0
_MARGIN = 24.0
_HEAD = 62.0
_TIMES = 84.0  # where the column of times ends
_RUN_AT = 108.0
_LANE = 18.0  # between two lanes
_LANES_SHOWN = 12
_LINE = 16.0
_MOMENTS_SHOWN = 200
_GAP = timedelta(minutes=1)  # waiting from which on it is told
_LANE_COLOURS = ("#54aeff", "#c297ff", "#ff80c8", "#3fb3ba", "#fb8f44", "#bda07a")


@dataclass(frozen=True, slots=True)
class _Row:
    """A moment, or the time between two, where it stands in the picture.

    Attributes:
        y: The base line of its first line of words.
        height: How high it is.
        moment: What happened; None: time went by.
        notes: What stands under it, or what is said of the time.
    """

    y: float
    height: float
    moment: Moment | None
    notes: tuple[str, ...]


async def draw_run(runner: Runner, run_id: str) -> Picture:
    """Draw what happened in a run, from top to bottom, as its audit trail tells it.

    Each request has a line beside the run's, from when it was asked until it was closed: those that
    are open at the same time stand side by side. Between two moments stands how long it took; times
    are in UTC. A run that waits ends with what it waits for. Of a very long run the beginning is
    left out.

    Args:
        runner: A runner with the store that the run waits in; it needs no workflows.
        run_id: The run.

    Raises:
        UnknownRun: There is no such run.

    Example:
        >>> import asyncio
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def wait() -> Picture:
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     await runner.start("draft", run_id="tea", inputs={"topic": "t", "content": "Hot."})
        ...     return await draw_run(runner, "tea")
        >>> asyncio.run(wait())
        Picture('Run tea of draft: waiting')
    """
    run = await runner.get_run(run_id)
    story = story_of(await runner.history(run_id))
    words = _RUN_AT + _LANE * min(_LANES_SHOWN, story.lanes) + 16
    room = _WIDTH - words - _MARGIN
    rows = list(_rows(story, room))
    canvas = Canvas()
    canvas.text(
        _MARGIN, 30, cut(run.run_id, 700, 16, bold=True), size=16, bold=True, whole=run.run_id
    )
    took = _took(story)
    about = f"{run.workflow}, {run.status.value}{took}"
    canvas.text(_MARGIN, 47, cut(about, 700, 12), size=12, colour=MUTED, whole=about)
    _draw_lines(canvas, story, rows)
    seconds = needs_seconds([moment.at for moment in story.moments])
    for row in rows:
        if row.moment is None:
            _draw_time(canvas, row, words)
        else:
            _draw_moment(canvas, row, row.moment, words, room, seconds=seconds)
    bottom = rows[-1].y + rows[-1].height if rows else _HEAD
    bottom = _draw_waiting(canvas, story, bottom, words, room)
    title = f"Run {run.run_id} of {run.workflow}: {run.status.value}"
    return canvas.picture(title, _WIDTH, bottom + 4)


def _took(story: Story) -> str:
    if not story.moments:
        return ""
    length = story.moments[-1].at - story.moments[0].at
    return f" after {duration(length)}" if length >= _GAP else ""


# --------------------------------------------------------------------------- rows


def _rows(story: Story, room: float) -> Iterator[_Row]:
    y, before = _HEAD + 16, None
    left_out = len(story.moments) - _MOMENTS_SHOWN
    if left_out > 0:
        yield _Row(y, 26, None, (f"… {left_out:,} earlier moments are not shown",))
        y += 26
    for moment in story.moments[-_MOMENTS_SHOWN:]:
        if said := _time_between(before, moment):
            yield _Row(y, 26, None, (said,))
            y += 26
        notes = tuple(wrapped(moment.quote, room, 12))
        height = 26 + _LINE * len(notes)
        yield _Row(y, height, moment, notes)
        y, before = y + height, moment


def _time_between(before: Moment | None, moment: Moment) -> str:
    """Return what there is to say of the time between two moments; empty: nothing."""
    if before is None:
        return day(moment.at)
    waited = moment.at - before.at
    later = f"{duration(waited)} later" if waited >= _GAP else ""
    new_day = day(moment.at) if day(moment.at) != day(before.at) else ""
    return ", ".join(part for part in (later, new_day) if part)


# --------------------------------------------------------------------------- lines


def _x(lane: int) -> float:
    return _RUN_AT + _LANE * min(lane, _LANES_SHOWN)


def _colour(lane: int) -> str:
    return FAINT if lane == RUN else _LANE_COLOURS[(lane - 1) % len(_LANE_COLOURS)]


def _draw_lines(canvas: Canvas, story: Story, rows: Sequence[_Row]) -> None:
    """Draw the line of the run and of each request, behind the dots."""
    dots = [row for row in rows if row.moment is not None]
    if not dots:
        return
    last = rows[-1].y + rows[-1].height
    end = dots[-1].y if story.is_over else last
    canvas.path(f"M{n(_x(RUN))} {n(dots[0].y - 4)}V{n(end - 4)}", stroke=EDGE, width=2)
    since: dict[int, float] = {}
    for row in dots:
        moment = row.moment
        if moment is None or moment.lane == RUN:
            continue
        x, y = _x(moment.lane), row.y - 4
        if moment.opens:
            since[moment.lane] = y
            canvas.path(_branch(_x(RUN), y - 12, x, y), stroke=_colour(moment.lane), width=2)
        if moment.closes:
            top = since.pop(moment.lane, dots[0].y - 4)
            canvas.path(f"M{n(x)} {n(top)}V{n(y)}", stroke=_colour(moment.lane), width=2)
            canvas.path(_branch(x, y, _x(RUN), y + 12), stroke=_colour(moment.lane), width=2)
    for lane, top in since.items():
        canvas.path(f"M{n(_x(lane))} {n(top)}V{n(last)}", stroke=_colour(lane), width=2)


def _branch(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (y + to_y) / 2
    return f"M{n(x)} {n(y)}C{n(x)} {n(middle)} {n(to_x)} {n(middle)} {n(to_x)} {n(to_y)}"


# --------------------------------------------------------------------------- words


def _draw_time(canvas: Canvas, row: _Row, words: float) -> None:
    canvas.text(words, row.y, row.notes[0], size=11, colour=FAINT)


def _draw_moment(
    canvas: Canvas, row: _Row, moment: Moment, words: float, room: float, *, seconds: bool
) -> None:
    colour = TONES[moment.tone]
    canvas.text(
        _TIMES, row.y, time(moment.at, seconds=seconds), size=12, colour=MUTED, anchor="end"
    )
    canvas.circle(
        _x(moment.lane), row.y - 4, 5, fill=PAPER if moment.opens else colour, stroke=colour
    )
    canvas.text(
        words,
        row.y,
        cut(moment.words, room, bold=True),
        bold=True,
        colour=colour if moment.tone in ("good", "bad", "warn") else INK,
        whole=moment.words,
    )
    whole = moment.quote if row.notes and row.notes[-1].endswith("…") else None
    for index, note in enumerate(row.notes, 1):
        canvas.text(words, row.y + _LINE * index, note, size=12, colour=MUTED, whole=whole)


def _draw_waiting(canvas: Canvas, story: Story, y: float, words: float, room: float) -> float:
    """Say what a run waits for; return where the picture ends."""
    for lane, title in list(story.waits_for.items())[:_LANES_SHOWN]:
        canvas.circle(_x(lane), y - 4, 5, fill=PAPER, stroke=_colour(lane))
        said = f"waits for an answer: {title}"
        canvas.text(words, y, cut(said, room, 12), size=12, colour=MUTED, whole=said)
        y += 22
    if (more := len(story.waits_for) - _LANES_SHOWN) > 0:
        canvas.text(words, y, f"… and for {more:,} more", size=12, colour=MUTED)
        y += 22
    return y
