"""Markdown as HTML that can do nothing and hides nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape as _escaped
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from llama_index_hitl._html.texts import highlighted, plain
from llama_index_hitl._text import visible

MARKDOWN_LIMIT = 40_000
"""Characters up to which a text is read as Markdown."""

_SCHEMES = ("http", "https", "mailto")
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
_CLASSES = re.compile(r"tok-[a-z0-9]+|host|code|language|number")


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
    coloured = highlighted(code.removesuffix("\n"), language)
    return f'<pre class="code" tabindex="0">{label}<code>{coloured}</code></pre>'


def _clean(rendered: str) -> str:
    return nh3.clean(
        rendered,
        tags=set(_TAGS),
        clean_content_tags={"script", "style"},
        attributes={
            "a": {"href", "title"},
            "span": {"class"},
            "pre": {"class", "tabindex"},  # what scrolls must be reached with the keyboard
            "td": {"class"},
            "th": {"class"},
            "ol": {"start"},
        },
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
        if token.attrs.pop("style", None) == "text-align:right":
            token.attrs["class"] = "number"
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
