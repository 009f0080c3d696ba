"""Content of people, models and workflows as HTML that can do nothing and hides nothing.

Everything here takes content that may be hostile and returns `Markup` that is safe to put into a
page. The work is bounded: what is too long to be laid out is shown plainly, and cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup
from pydantic import JsonValue

from llama_index_hitl._html.markdown import MARKDOWN_LIMIT, markdown
from llama_index_hitl._html.texts import code_block, cut, plain
from llama_index_hitl._text import visible
from llama_index_hitl.forms import FormField
from llama_index_hitl.rendering import text_of

ROWS_LIMIT = 200
"""Rows of a table, and items of a list, that are shown unless its reader asks for all of them."""

_CELLS_LIMIT = 3_000  # values laid out one by one; of a whole one that its reader asked for, more
_WHOLE_CELLS_LIMIT = 60_000
_DEEPEST = 6  # levels of nested values that are laid out; what is below is shown as JSON
_COLUMNS_LIMIT = 12
_UNGROUPED = 4  # digits of a number that are read without groups, such as those of a year


class Layout:
    """Lays out the parts of one page, and does not work on it without end.

    Args:
        whole: Show texts and tables to their ends.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole
        self._left = 3 * MARKDOWN_LIMIT
        self._writer = _Writer(whole=whole)

    def markdown(self, text: str) -> Markup:
        """Return Markdown as HTML; as plain text where there was much on the page already."""
        if not text:
            return Markup("")
        self._left -= len(text)
        if self._left < 0 or len(text) > MARKDOWN_LIMIT:
            return plain(text, whole=self.whole)
        return Markup('<div class="prose">{}</div>').format(markdown(text))

    def value(self, given: JsonValue, field: FormField | None = None) -> Markup:
        """Return a value as people read it: text, code, a list, or a table."""
        if isinstance(given, str) and field is not None and field.widget == "markdown":
            return self.markdown(given)
        if isinstance(given, str) and field is not None and field.widget == "code":
            self._left -= len(given)
            language = field.language if self._left >= 0 else None
            return code_block(given, language, whole=self.whole)
        return self._writer.value(given, 0)


def is_short(given: JsonValue, field: FormField | None = None) -> bool:
    """Tell whether a value stands beside its name, in one line."""
    if field is not None and field.widget in ("markdown", "code"):
        return False
    if isinstance(given, str):
        return len(given) <= 200 and "\n" not in given
    if isinstance(given, list):
        return _is_row(given)
    return not isinstance(given, dict) or not given


def is_number(given: JsonValue) -> bool:
    """Tell whether a value is a number."""
    return isinstance(given, int | float) and not isinstance(given, bool)


def number(given: float) -> Markup:
    """Return a number, its digits in groups that are seen and not copied."""
    written = json.dumps(given)
    whole, point, rest = written.partition(".")
    digits = whole.removeprefix("-")
    if len(digits) <= _UNGROUPED or not digits.isdecimal():
        return Markup('<span class="num">{}</span>').format(written)
    sign = whole.removesuffix(digits)
    first = len(digits) % 3 or 3
    groups = (digits[at : at + 3] for at in range(first, len(digits), 3))
    grouped = Markup("").join(Markup("<i>{}</i>").format(group) for group in groups)
    return Markup('<span class="num">{}{}{}{}{}</span>').format(
        sign, digits[:first], grouped, point, rest
    )


def gist(data: Mapping[str, JsonValue], limit: int = 140) -> str:
    """Return the short values of a subject in one line, to tell it from others."""
    parts: list[str] = []
    for name, item in data.items():
        if isinstance(item, dict) or (isinstance(item, list) and not _is_row(item)):
            continue
        text = " ".join(visible(text_of(item)[: 2 * limit]).split())
        parts.append(f"{name.replace('_', ' ')}: {text[:60]}{'…' if len(text) > 60 else ''}")
        if sum(map(len, parts)) > limit:
            break
    line = " · ".join(parts)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _is_row(items: Sequence[JsonValue]) -> bool:
    """Tell whether a list is short enough to stand in one line."""
    scalars = all(not isinstance(item, dict | list) for item in items)
    return scalars and sum(len(str(item)) + 2 for item in items) <= 80


class _Writer:
    """Lays out values, up to a number of cells in all."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._left = _WHOLE_CELLS_LIMIT if whole else _CELLS_LIMIT
        self._rows = _WHOLE_CELLS_LIMIT if whole else ROWS_LIMIT

    def value(self, given: JsonValue, depth: int) -> Markup:
        self._left -= 1
        if isinstance(given, dict | list) and given:
            if depth >= _DEEPEST or self._left <= 0:
                return plain(_json(given), whole=self._whole)
            return (
                self._object(given, depth) if isinstance(given, dict) else self._list(given, depth)
            )
        return self._scalar(given)

    def _scalar(self, given: JsonValue) -> Markup:
        if given is None or given == "":
            return Markup('<span class="none">{}</span>').format("empty" if given == "" else "none")
        if isinstance(given, bool):
            return Markup('<span class="truth">{}</span>').format("Yes" if given else "No")
        if isinstance(given, str):
            if "\n" in given or len(given) > 200:
                return plain(given, whole=self._whole)
            return Markup('<bdi class="words">{}</bdi>').format(visible(given))
        if isinstance(given, dict | list):
            return Markup('<span class="none">nothing</span>')
        return number(given)

    def _object(self, given: Mapping[str, JsonValue], depth: int) -> Markup:
        items = list(given.items())
        rows = Markup("").join(
            Markup('<tr><th scope="row">{}</th><td>{}</td></tr>').format(
                visible(name)[:200], self.value(item, depth + 1)
            )
            for name, item in items[: self._rows]
        )
        table = Markup('<table class="value-table"><tbody>{}</tbody></table>').format(rows)
        if depth == 0:  # what is in it moves along
            table = _sideways(table)
        return table + self._rest(len(items), "fields")

    def _list(self, given: Sequence[JsonValue], depth: int) -> Markup:
        columns = _columns(given)
        if columns is not None:
            return self._table(given, columns, depth)
        if _is_row(given):
            return Markup(", ").join(self._scalar(item) for item in given)
        items = Markup("").join(
            Markup("<li>{}</li>").format(self.value(item, depth + 1))
            for item in given[: self._rows]
        )
        return Markup('<ul class="value-list">{}</ul>').format(items) + self._rest(
            len(given), "items"
        )

    def _table(self, given: Sequence[JsonValue], columns: Sequence[str], depth: int) -> Markup:
        shown = [row for row in given[: self._rows] if isinstance(row, dict)]
        numbers = {name for name in columns if all(is_number(row.get(name, 0)) for row in shown)}
        head = Markup("").join(
            Markup('<th scope="col"{}>{}</th>').format(_side(name in numbers), visible(name)[:80])
            for name in columns
        )
        body: list[Markup] = []
        for row in shown:
            if self._left <= 0:
                break
            cells = Markup("").join(
                Markup("<td{}>{}</td>").format(
                    _side(name in numbers), self.value(row[name], depth + 1) if name in row else ""
                )
                for name in columns
            )
            body.append(Markup("<tr>{}</tr>").format(cells))
        table = _sideways(
            Markup(
                '<table class="value-table value-grid"><thead><tr>{}</tr></thead>'
                "<tbody>{}</tbody></table>"
            ).format(head, Markup("").join(body))
        )
        rest = len(given) - len(body)
        return table + cut(f"{rest:,} more rows") if rest > 0 else table

    def _rest(self, count: int, what: str) -> Markup:
        rest = count - self._rows
        return cut(f"{rest:,} more {what}") if rest > 0 else Markup("")


def _sideways(table: Markup) -> Markup:
    """Return a table so that it can be moved sideways where it is too wide, by keyboard too."""
    return Markup(
        '<div class="scroll-x" tabindex="0" role="group" aria-label="Table">{}</div>'
    ).format(table)


def _side(is_numbers: bool) -> Markup:
    return Markup(' class="number"') if is_numbers else Markup("")


def _columns(given: Sequence[JsonValue]) -> Sequence[str] | None:
    """Return the columns of a list of objects; None: it is no table."""
    names: dict[str, None] = {}
    for row in given[:ROWS_LIMIT]:
        if not isinstance(row, dict) or not row:
            return None
        names.update(dict.fromkeys(row))
        if len(names) > _COLUMNS_LIMIT:
            return None
    if any(not isinstance(row, dict) or not row.keys() <= names.keys() for row in given):
        return None
    return list(names)


def _json(given: JsonValue) -> str:
    try:
        return text_of(given)
    except RecursionError:
        return "(nested too deeply to be shown)"
