"""Markdown of which nothing stays unseen. Private to `console`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading, Markdown
from rich.syntax import Syntax

from llama_index_hitl._text import visible

CODE_THEME = "ansi_dark"
"""The terminal's own colours, on its own background."""

CODE_LIMIT = 10_000
"""Characters of code up to which it is coloured: some languages take long to take apart."""


class _LeftHeading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class WholeMarkdown(Markdown):
    """Markdown that shows what others hide: HTML, link targets, definitions, images' addresses.

    Attributes:
        is_whole: Whether every letter and digit of the source is shown. It is not where Markdown
            itself drops something, such as a cell too many or the title of a link; the source has
            to be shown then, for nobody can consent to what they have not seen.
    """

    elements = {**Markdown.elements, "heading_open": _LeftHeading}  # noqa: RUF012 - as upstream

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme=CODE_THEME, hyperlinks=False)
        source = visible(text)
        parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
        parser.disable(["reference", "image"])
        self.parsed = parser.parse(source)
        parts = list(_all(self.parsed))
        missing = _count([source]) - _count(seen for part in parts for seen in _shown(part))
        self.is_whole = not missing
        for part in parts:
            part.content = visible(part.content)  # an entity may have stood for anything
            if len(part.content) > CODE_LIMIT:
                part.info = ""


def _all(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from token.children or ()


def _shown(token: Token) -> Iterator[str]:
    """Yield the texts that a token comes to on the screen, each once."""
    match token.type:
        case "text" | "text_special" | "code_inline" | "code_block":
            yield token.content
        case "fence":
            yield token.content
            language = token.info.partition(" ")[0]
            if Syntax("", language).lexer is not None:
                yield language  # it is seen by its colours; any other word would be hidden
        case "list_item_open":
            yield token.info
        case "link_open" if token.markup != "autolink":
            yield str(token.attrs.get("href", ""))


def _count(texts: Iterable[str]) -> Counter[str]:
    return Counter(letter for text in texts for letter in text if letter.isalnum())
