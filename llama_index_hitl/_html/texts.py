"""Texts and code as HTML that can do nothing and hides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from html import escape as _escaped
from io import StringIO
from time import perf_counter
from typing import TypeVar

from markupsafe import Markup
from pygments.formatters.html import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from llama_index_hitl._text import visible

CODE_LIMIT = 20_000
"""Characters up to which code is coloured."""

TEXT_LIMIT = 20_000
"""Characters of a text that are shown unless its reader asks for all of it."""

_FOLD_CHARACTERS, _FOLD_LINES = 1_200, 18  # a longer text is folded
_COLOUR_SECONDS = 0.25  # some code takes a long time to take apart; it is shown without colours

T = TypeVar("T")

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


def plain(text: str, *, whole: bool = False) -> Markup:
    """Return a text as it is, line by line; a long one is folded, and cut unless `whole`.

    Args:
        text: The text.
        whole: Show all of it, however long.
    """
    if whole or len(text) <= TEXT_LIMIT:
        body = Markup('<pre class="plain">{}</pre>').format(visible(text))
        return body if whole else _folded(body, text)
    head = Markup('<pre class="plain">{}</pre>').format(visible(text[:TEXT_LIMIT]))
    rest = cut(f"{len(text) - TEXT_LIMIT:,} more characters")
    return _folded(head, text[:TEXT_LIMIT], of=len(text)) + rest


def cut(what: str) -> Markup:
    """Return the note that something is not shown; pages lead from it to all of it."""
    return Markup(
        '<p class="cut">{} <a class="cut-all" data-whole href="?whole=1">Show all</a></p>'
    ).format(what)


def _folded(body: Markup, text: str, *, of: int = 0) -> Markup:
    lines = text.count("\n") + 1
    if len(text) <= _FOLD_CHARACTERS and lines <= _FOLD_LINES:
        return body
    size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
    words = f"Show the first {len(text):,} of {of:,} characters" if of else f"Show all ({size})"
    return Markup(
        '<details class="clip"><summary><span class="clip-more">{}</span>'
        '<span class="clip-less">Show less</span></summary>{}</details>'
    ).format(words, body)


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
