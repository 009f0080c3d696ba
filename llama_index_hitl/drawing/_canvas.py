"""Shapes and text as SVG, and how much room text takes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from llama_index_hitl._text import storable, visible
from llama_index_hitl.drawing._picture import Picture

Point: TypeAlias = tuple[float, float]

SANS = "system-ui, sans-serif"
MONO = "ui-monospace, monospace"
CELL = 0.602
"""Width of a character of a monospaced font, in font sizes."""

INK = "#1f2328"
MUTED = "#59636e"
FAINT = "#8c959f"
EDGE = "#d1d9e0"
PAPER = "#ffffff"
TINT = "#f6f8fa"

TONES = {"": "#59636e", "good": "#1a7f37", "bad": "#cf222e", "warn": "#9a6700", "ask": "#0969da"}
"""Colours of what went well, went wrong, needs attention, and of what people are asked."""

_LONGEST_HINT = 500
_NOT_XML = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
_NARROW = set("fijlrtIJ.,:;'|!()[]{}/\\ `\"-")
_BROAD = set("mwMW@%")


class Canvas:
    """Collects the shapes of one picture, those behind first."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "none",
        stroke: str = "none",
        radius: float = 0,
        dashed: bool = False,
    ) -> None:
        """Draw a box."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(
            f'<rect x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}" rx="{n(radius)}"'
            f' fill="{fill}" stroke="{stroke}"{dash}/>'
        )

    def path(
        self,
        commands: str,
        *,
        stroke: str = "none",
        fill: str = "none",
        width: float = 1.5,
        dashed: bool = False,
    ) -> None:
        """Draw a line or a shape, given as the commands of an SVG path."""
        dash = ' stroke-dasharray="2 4"' if dashed else ""
        self._parts.append(
            f'<path d="{commands}" fill="{fill}" stroke="{stroke}" stroke-width="{n(width)}"'
            f' stroke-linecap="round"{dash}/>'
        )

    def circle(self, x: float, y: float, radius: float, *, fill: str, stroke: str = "none") -> None:
        """Draw a dot."""
        self._parts.append(
            f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(radius)}" fill="{fill}" stroke="{stroke}"'
            ' stroke-width="2"/>'
        )

    def person(self, x: float, y: float, colour: str) -> None:
        """Draw a small figure, 12 wide and 13 high, around a point."""
        self.circle(x, y - 3.5, 3, fill=colour)
        self.path(
            f"M{n(x - 5.5)} {n(y + 6.5)}a5.5 5.5 0 0 1 11 0z", fill=colour, stroke="none", width=0
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 13,
        colour: str = INK,
        anchor: str = "start",
        bold: bool = False,
        mono: bool = False,
        length: float | None = None,
        whole: str | None = None,
    ) -> None:
        """Write one line.

        Args:
            x: Where it begins, ends or has its middle, as `anchor` says.
            y: Its base line.
            words: What it says; nothing in it acts as markup.
            size: Font size.
            colour: Its colour.
            anchor: `start`, `middle` or `end`.
            bold: Whether it stands out.
            mono: Whether all characters are equally wide.
            length: How wide it is to be, whatever the font; None: as wide as it is.
            whole: What it says in full where it had to be cut; shown as a hint.
        """
        hint = ""
        if whole is not None and whole != words:
            hint = f"<title>{_safe(storable(whole, _LONGEST_HINT))}</title>"
        weight = ' font-weight="600"' if bold else ""
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        wide = (
            "" if length is None else f' textLength="{n(length)}" lengthAdjust="spacingAndGlyphs"'
        )
        self._parts.append(
            f'<text x="{n(x)}" y="{n(y)}" font-family="{MONO if mono else SANS}"'
            f' font-size="{n(size)}" fill="{colour}"{weight}{where}{wide} xml:space="preserve">'
            f"{_safe(words)}{hint}</text>"
        )

    def picture(self, title: str, width: float, height: float) -> Picture:
        """Return what was drawn, on paper of its own."""
        title = " ".join(visible(title).split())
        return Picture(
            svg=(
                f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_safe(title)}"'
                f' width="{n(width)}" height="{n(height)}" viewBox="0 0 {n(width)} {n(height)}"'
                ' style="max-width:100%;height:auto">\n'
                f'<rect x="0.5" y="0.5" width="{n(width - 1)}" height="{n(height - 1)}" rx="8"'
                f' fill="{PAPER}" stroke="{EDGE}"/>\n' + "\n".join(self._parts) + "\n</svg>\n"
            ),
            title=title,
        )


def n(value: float) -> str:
    """Return a number as SVG has it, to a tenth."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _safe(words: str) -> str:
    """Return text that is text in XML, whatever it holds."""
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", visible(words)))


def cells(character: str) -> int:
    """Return how many columns a character takes in a monospaced font."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def width_of(words: str, size: float = 13, *, bold: bool = False, mono: bool = False) -> float:
    """Return about how wide a line of text is, rather more than less."""
    if mono:
        return sum(map(cells, words)) * CELL * size
    em = sum(map(_em, words)) * (1.12 if bold else 1)
    return em * size


def _em(character: str) -> float:
    if character in _NARROW:
        return 0.38
    if character in _BROAD:
        return 0.95
    if cells(character) != 1:
        return float(cells(character))
    return 0.7 if character.isupper() else 0.6


def cut(words: str, room: float, size: float = 13, *, bold: bool = False) -> str:
    """Return a text as one line that fits, with an ellipsis where it was cut."""
    line = " ".join(visible(words).split())
    if width_of(line, size, bold=bold) <= room:
        return line
    while line and width_of(f"{line}…", size, bold=bold) > room:
        line = line[:-1]
    return f"{line.rstrip()}…"


def wrapped(words: str, room: float, size: float = 13, *, most: int = 2) -> list[str]:
    """Return a text as lines that fit, at most so many, with an ellipsis where it was cut."""
    rest = visible(words).split()
    lines: list[str] = []
    while rest and len(lines) < most - 1:
        line = rest.pop(0)
        while rest and width_of(f"{line} {rest[0]}", size) <= room:
            line = f"{line} {rest.pop(0)}"
        lines.append(cut(line, room, size))
    return [*lines, cut(" ".join(rest), room, size)] if rest else lines


def smooth(points: Iterable[Point], *, sideways: bool = False) -> str:
    """Return the path through points that leaves and enters each of them straight."""
    (x, y), *rest = points
    parts = [f"M{n(x)} {n(y)}"]
    for to_x, to_y in rest:
        mid_x, mid_y = (x + to_x) / 2, (y + to_y) / 2
        first, second = ((mid_x, y), (mid_x, to_y)) if sideways else ((x, mid_y), (to_x, mid_y))
        parts.append(
            f"C{n(first[0])} {n(first[1])} {n(second[0])} {n(second[1])} {n(to_x)} {n(to_y)}"
        )
        x, y = to_x, to_y
    return "".join(parts)
