"""Pages as tests look at them: parsed, as a browser would, not searched as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset(["area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"])


@dataclass
class Node:
    """One element."""

    tag: str
    attrs: dict[str, str] = field(default_factory=dict)
    parts: list[Node | str] = field(default_factory=list)

    def all(self, tag: str | None = None, **attrs: str) -> Iterator[Node]:
        """Yield the elements below with a tag and attributes, spelt `class_` and `data_x`."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attrs.items()}
        for part in self.parts:
            if isinstance(part, str):
                continue
            if tag in (None, part.tag) and all(_has(part, *pair) for pair in wanted.items()):
                yield part
            yield from part.all(tag, **attrs)

    def one(self, tag: str | None = None, **attrs: str) -> Node:
        """Return the one such element."""
        (found,) = self.all(tag, **attrs)
        return found

    @property
    def text(self) -> str:
        """All text below."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def words(self) -> str:
        """All text below, in one line."""
        return " ".join(self.text.split())


def _has(node: Node, name: str, value: str) -> bool:
    given = node.attrs.get(name)
    return given is not None and (given == value or (name == "class" and value in given.split()))


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def parsed(html: str) -> Node:
    """Return HTML as a tree; every element must be closed where it should be."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == [parser.root], f"<{parser.open[-1].tag}> is not closed"
    return parser.root


def assert_tame(root: Node) -> None:
    """Check that nothing in a page can act: what the policy of the pages forbids is not there."""
    for node in root.all():
        assert node.tag not in ("style", "iframe", "object", "embed", "base"), node.tag
        assert "style" not in node.attrs, node
        assert not [name for name in node.attrs if name.startswith("on")], node
        for name in ("href", "src", "action", "formaction"):
            address = node.attrs.get(name, "")
            scheme, colon, _ = address.partition(":")
            assert not colon or scheme in ("http", "https", "mailto"), address
        if node.tag == "script":
            assert node.attrs.get("src"), "a script stands in the page"
