"""Content of people, models and workflows as HTML that can do nothing and hides nothing.

Everything here takes content that may be hostile and returns `Markup` that is safe to put into a
page. The work is bounded: what is too long to be laid out is shown plainly, and cut.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from html import escape as _escaped
from io import StringIO
from time import perf_counter
from typing import TypeVar
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from pydantic import JsonValue
from pygments.formatters.html import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from llama_index_hitl._text import visible
from llama_index_hitl.forms import FormField
from llama_index_hitl.rendering import text_of

MARKDOWN_LIMIT = 40_000
"""Characters up to which a text is read as Markdown."""

CODE_LIMIT = 20_000
"""Characters up to which code is coloured."""

TEXT_LIMIT = 20_000
"""Characters of a text that are shown unless its reader asks for all of it."""

ROWS_LIMIT = 200
"""Rows of a table, and items of a list, that are shown unless its reader asks for all of them."""

_FOLD_CHARACTERS, _FOLD_LINES = 1_200, 18  # a longer text is folded
_CELLS_LIMIT = 3_000  # values laid out one by one; of a whole one that its reader asked for, more
_WHOLE_CELLS_LIMIT = 60_000
_DEEPEST = 6  # levels of nested values that are laid out; what is below is shown as JSON
_COLUMNS_LIMIT = 12

_COLOUR_SECONDS = 0.25  # some code takes a long time to take apart; it is shown without colours

T = TypeVar("T")

_SCHEMES = ("http", "https", "mailto")

# Colouring the languages that reviews are about; any other one might take apart slowly.
_LANGUAGES = frozenset(
    [
        "bash",
        "c",
        "cpp",
        "csharp",
        "css",
        "diff",
        "docker",
        "go",
        "graphql",
        "hcl",
        "html",
        "ini",
        "java",
        "javascript",
        "json",
        "kotlin",
        "make",
        "markdown",
        "php",
        "powershell",
        "python",
        "ruby",
        "rust",
        "sql",
        "swift",
        "toml",
        "typescript",
        "xml",
        "yaml",
    ]
)
_ALIASES = {
    "c#": "csharp",
    "c++": "cpp",
    "dockerfile": "docker",
    "golang": "go",
    "js": "javascript",
    "makefile": "make",
    "patch": "diff",
    "postgresql": "sql",
    "py": "python",
    "python3": "python",
    "rb": "ruby",
    "rs": "rust",
    "sh": "bash",
    "shell": "bash",
    "terraform": "hcl",
    "ts": "typescript",
    "yml": "yaml",
    "zsh": "bash",
}

# --------------------------------------------------------------------------- Markdown

_TAGS = frozenset(
    [
        "a",
        "blockquote",
        "br",
        "code",
        "del",
        "em",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
        "p",
        "pre",
        "s",
        "span",
        "strong",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
_PLAIN_ENTITY = re.compile("&(?:amp|lt|gt|quot|apos|nbsp|ndash|mdash|hellip);")
_CLASSES = re.compile(r"tok-[a-z0-9]+|host|code|language")


def markdown(text: str) -> Markup:
    """Return Markdown as HTML.

    HTML in it is text. Images become links; links lead to http, https and mailto only, say where
    to, and open a page that cannot reach back. A text is shown as it is where it is too long, or
    where Markdown would hide some of it, such as the title of a link.
    """
    source = visible(text)
    if len(source) > MARKDOWN_LIMIT:
        return plain(text)
    tokens = _parser().parse(source)
    if _letters([_PLAIN_ENTITY.sub("", source)]) - _letters(_shown(tokens)):
        return plain(text)
    _tamed(tokens)
    rendered = _parser().renderer.render(tokens, _parser().options, {})
    return Markup(_clean(rendered))  # noqa: S704 - sanitised right here


def is_link(address: str | None) -> bool:
    """Tell whether an address may be a link: an absolute one of a scheme that shows a page."""
    return address is not None and _target(address) is not None


@cache
def _parser() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "highlight": _fence, "langPrefix": ""})
    # Links are looked at below; by default, one that is not followed would lose its address.
    made.validateLink = lambda url: True  # type: ignore[method-assign]
    return made.enable(["strikethrough", "table"]).disable("reference")


def _fence(code: str, language: str, attributes: str) -> str:
    said = _escaped(visible(f"{language} {attributes}".strip()))
    label = f'<span class="language">{said}</span>' if said else ""
    return f'<pre class="code">{label}<code>{highlighted(code.removesuffix(chr(10)), language)}</code></pre>'


def _clean(rendered: str) -> str:
    return nh3.clean(
        rendered,
        tags=set(_TAGS),
        clean_content_tags={"script", "style"},
        attributes={"a": {"href", "title"}, "span": {"class"}, "pre": {"class"}, "ol": {"start"}},
        attribute_filter=_kept_attribute,
        url_schemes=set(_SCHEMES),
        set_tag_attribute_values={"a": {"target": "_blank"}},
        link_rel="noopener noreferrer nofollow",
    )


def _kept_attribute(tag: str, name: str, value: str) -> str | None:
    if name != "class":
        return value
    return " ".join(word for word in value.split() if _CLASSES.fullmatch(word)) or None


def _tamed(tokens: Iterable[Token]) -> None:
    """Put headings below those of the page, and turn what would load or lead astray into text."""
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
        token.content = visible(token.content)  # an entity may have stood for anything
        if token.children is not None:
            token.children = list(_inline(token.children))


def _inline(tokens: Sequence[Token]) -> Iterable[Token]:
    closing: list[Sequence[Token]] = []
    for token in tokens:
        token.content = visible(token.content)
        match token.type:
            case "link_open":
                opening, end = _link(str(token.attrs.get("href", "")), token.markup == "autolink")
                closing.append(end)
                yield from opening
            case "link_close":
                yield from closing.pop()
            case "image":
                opening, end = _link(str(token.attrs.get("src", "")), written=False)
                words = visible(token.content) or "image"
                yield from (*opening, _text(f"[image: {words}]"), *end)
            case _:
                yield token


def _link(address: str, written: bool) -> tuple[Sequence[Token], Sequence[Token]]:
    """Return what stands before and behind the words of a link.

    Args:
        address: Where it leads.
        written: Whether its words are the address.
    """
    target = _target(address)
    if target is None:
        return (), () if written else (_text(f" ({visible(address)[:200]})"),)
    opening = Token("link_open", "a", 1)
    opening.attrs = {"href": target, "title": visible(target)}
    closing: list[Token] = [Token("link_close", "a", -1)]
    if not written:
        host = _text(f" {_host(target)}")
        span = Token("host_open", "span", 1)
        span.attrs = {"class": "host"}
        closing += [span, host, Token("host_close", "span", -1)]
    return (opening,), closing


def _target(address: str) -> str | None:
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return None
    if parts.scheme.lower() not in _SCHEMES or visible(address) != address:
        return None
    return address.strip() if parts.netloc or parts.scheme.lower() == "mailto" else None


def _host(target: str) -> str:
    parts = urlsplit(target)
    return visible(parts.netloc.rpartition("@")[2] or parts.path)[:80]


def _shown(tokens: Iterable[Token]) -> Iterator[str]:
    """Yield the texts of which something is seen on the page, each once."""
    for token in tokens:
        match token.type:
            case "inline":
                yield from _shown(token.children or ())
            case "text" | "text_special" | "code_inline" | "code_block" | "fence":
                yield from (token.content, token.info)
            case "list_item_open":
                yield token.info
            case "link_open" if token.markup != "autolink":
                yield str(token.attrs.get("href", ""))
            case "image":
                yield token.content
                yield str(token.attrs.get("src", ""))


def _letters(texts: Iterable[str]) -> Counter[str]:
    return Counter(letter for text in texts for letter in text if letter.isalnum())


def _text(words: str) -> Token:
    token = Token("text", "", 0)
    token.content = words
    return token


# --------------------------------------------------------------------------- text and code


def plain(text: str, *, whole: bool = False) -> Markup:
    """Return a text as it is, line by line; a long one is folded, and cut unless `whole`.

    Args:
        text: The text.
        whole: Show all of it, however long.
    """
    shown = visible(text)
    rest = 0 if whole else len(shown) - TEXT_LIMIT
    if rest > 0:
        shown = shown[:TEXT_LIMIT]
    body = Markup('<pre class="plain">{}</pre>').format(shown)
    if rest > 0:
        body += cut(f"{rest:,} more characters")
    return _folded(body, shown) if not whole else body


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
            return code_block(given, field.language, whole=self.whole)
        return self._writer.value(given, 0)


def cut(what: str) -> Markup:
    """Return the note that something is not shown; pages lead from it to all of it."""
    return Markup(
        '<p class="cut">{} <a class="cut-all" data-whole href="?whole=1">Show all</a></p>'
    ).format(what)


def _folded(body: Markup, text: str) -> Markup:
    lines = text.count("\n") + 1
    if len(text) <= _FOLD_CHARACTERS and lines <= _FOLD_LINES:
        return body
    size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
    return Markup(
        '<details class="clip"><summary><span class="clip-more">Show all ({})</span>'
        '<span class="clip-less">Show less</span></summary><div class="clip-body">{}</div></details>'
    ).format(size, body)


def highlighted(code: str, language: str | None) -> Markup:
    """Return code with its parts as spans, without the elements around it.

    A language that is not among those that are coloured, or code that is too long, is only escaped.
    """
    shown = visible(code)
    lexer = _lexer(language)
    if lexer is None or len(shown) > CODE_LIMIT:
        return Markup(_escaped(shown))  # noqa: S704 - escaped right here
    formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True, classprefix="tok-")
    written = StringIO()
    try:
        formatter.format(_in_time(lexer.get_tokens(shown)), written)
    except _TooSlowError:
        return Markup(_escaped(shown))  # noqa: S704 - escaped right here
    return Markup(written.getvalue().removesuffix("\n"))  # noqa: S704 - the formatter escapes


class _TooSlowError(Exception):
    """It takes too long to take code apart."""


def _in_time(tokens: Iterable[T]) -> Iterator[T]:
    end = perf_counter() + _COLOUR_SECONDS
    for token in tokens:
        if perf_counter() > end:
            raise _TooSlowError
        yield token


def code_block(code: str, language: str | None, *, whole: bool = False) -> Markup:
    """Return code as numbered lines."""
    rest = 0 if whole else len(code) - CODE_LIMIT
    if rest > 0:
        code = code[:CODE_LIMIT]
    lines = highlighted(code.removesuffix("\n"), language).split("\n")
    numbered = Markup("\n").join(
        Markup('<span class="line">{}</span>').format(line) for line in lines
    )
    block = Markup('<pre class="code code-numbered" tabindex="0"><code>{}</code></pre>').format(
        numbered
    )
    return block + cut(f"{rest:,} more characters") if rest > 0 else block


@cache
def _lexer_named(name: str) -> Lexer | None:
    try:
        return get_lexer_by_name(name, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _lexer(language: str | None) -> Lexer | None:
    name = (language or "").strip().partition(" ")[0].lower()
    name = _ALIASES.get(name, name)
    return _lexer_named(name) if name in _LANGUAGES else None


# --------------------------------------------------------------------------- values


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
    if len(whole.lstrip("-")) > 4 and whole.lstrip("-").isdecimal():
        first = len(whole.lstrip("-")) % 3 or 3
        first += len(whole) - len(whole.lstrip("-"))
        groups = (whole[at : at + 3] for at in range(first, len(whole), 3))
        shown = Markup(whole[:first]) + Markup("").join(
            Markup("<i>{}</i>").format(g) for g in groups
        )
    else:
        shown = Markup(whole)
    return Markup('<span class="num">{}{}{}</span>').format(shown, point, rest)


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
        return Markup('<table class="value-table"><tbody>{}</tbody></table>').format(
            rows
        ) + self._rest(len(items), "fields")

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
        table = Markup(
            '<div class="scroll-x" tabindex="0" role="group" aria-label="Table">'
            '<table class="value-table value-grid"><thead><tr>{}</tr></thead><tbody>{}</tbody>'
            "</table></div>"
        ).format(head, Markup("").join(body))
        rest = len(given) - len(body)
        return table + cut(f"{rest:,} more rows") if rest > 0 else table

    def _rest(self, count: int, what: str) -> Markup:
        rest = count - self._rows
        return cut(f"{rest:,} more {what}") if rest > 0 else Markup("")


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
