"""Content of people and models as HTML: it can do nothing, hides nothing, and takes no time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parsed import Node, assert_tame, parsed

from llama_index_hitl._html.diffs import FieldChange, Row, changes
from llama_index_hitl._html.markdown import MARKDOWN_LIMIT, is_link, markdown
from llama_index_hitl._html.markup import ROWS_LIMIT, Layout, gist, is_short
from llama_index_hitl._html.texts import CODE_LIMIT, TEXT_LIMIT, code_block, highlighted, plain
from llama_index_hitl.forms import FormField

TAGS = {
    "a",
    "bdi",
    "blockquote",
    "br",
    "code",
    "del",
    "details",
    "div",
    "em",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "span",
    "strong",
    "summary",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
}

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "![x](http://tracker.example/p.png)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "[x](//evil.example/)",
    "[x](/sign-out)",
    '[x](http://a.example/" onclick="alert(1))',
    "<javascript:alert(1)>",
    "```html\n</code></pre><script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "|a|\n|-|\n|<img src=x onerror=alert(1)>|",
    "<!-- <script> --> <style>*{display:none}</style>",
    "# <b onmouseover=alert(1)>x</b>",
    "[a]: javascript:alert(1)\n\n[a]",
    "<plaintext>",
    "]]><![CDATA[",
]


def shown(html: str) -> Node:
    root = parsed(html)
    assert_tame(root)
    assert {node.tag for node in root.all()} <= TAGS
    return root


# --------------------------------------------------------------------------- Markdown


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_markdown_becomes_text(text: str) -> None:
    root = shown(markdown(text))
    for link in root.all("a"):
        assert link.attrs["href"].startswith(("http://", "https://", "mailto:"))
        assert set(link.attrs["rel"].split()) == {"noopener", "noreferrer", "nofollow"}
        assert link.attrs["target"] == "_blank"


@given(st.text(alphabet="<>&\"'[]()!`*_#|-:\n aj1/\x00\u202e", max_size=80))
@settings(max_examples=80, deadline=None)
def test_whatever_is_written_can_do_nothing(text: str) -> None:
    shown(markdown(text))


def test_markdown_is_laid_out() -> None:
    root = shown(
        markdown("# Title\n\nSome *words* and `code`.\n\n- one\n- two\n\n|a|b|\n|-|-:|\n|x|2|")
    )
    assert root.one("h3").text == "Title"
    assert root.one("em").text == "words"
    assert [item.text for item in root.all("li")] == ["one", "two"]
    assert [cell.text for cell in root.all(class_="number")] == ["b", "2"]


def test_links_say_where_they_lead() -> None:
    root = shown(markdown("[your bank](https://user@evil.example:8443/login)"))
    assert root.one("a").attrs["href"] == "https://user@evil.example:8443/login"
    assert root.one("span", class_="host").text.strip() == "evil.example:8443"


def test_images_are_links_that_load_nothing() -> None:
    root = shown(markdown("![a chart](https://a.example/chart.png)"))
    assert list(root.all("img")) == []
    assert root.one("a").text == "[image: a chart]"


def test_an_address_that_is_no_link_is_shown() -> None:
    assert parsed(markdown("[click](javascript:alert)")).words == "click (javascript:alert)"


@pytest.mark.parametrize(
    "text",
    [
        "[x](https://a.example 'a title that nobody sees')",
        "|a|\n|-|\n|one|two cells too many|",
        "&#115;ecret",
    ],
)
def test_what_markdown_would_hide_is_shown_as_it_was_written(text: str) -> None:
    assert parsed(markdown(text)).one("pre", class_="plain").text == text


def test_characters_that_turn_or_hide_others_are_seen() -> None:
    assert "\u202e" not in markdown("safe \u202e gnp.exe")
    assert parsed(plain("a\x00b\x1b[31m\u202ec\u200bd")).text == "a␀b␛[31m\\u202ec\\u200bd"


@pytest.mark.parametrize(
    "text",
    ["[" * 60_000, "![" * 30_000, "*a " * 30_000, "`a" * 30_000, "> " * 30_000, "|a" * 30_000],
)
def test_endless_markdown_is_shown_plainly(text: str) -> None:
    assert len(text) > MARKDOWN_LIMIT
    assert [node.tag for node in shown(markdown(text)).all("pre")] == ["pre"]


def test_a_definition_of_a_link_is_text() -> None:
    assert parsed(markdown("[note]: https://a.example/x")).text.strip() == (
        "[note]: https://a.example/x"
    )


@pytest.mark.parametrize(
    ("address", "can_be"),
    [
        ("https://a.example/x", True),
        ("http://a.example", True),
        ("mailto:a@b.example", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//a.example", False),
        ("/path", False),
        ("https:a.example", False),
        ("https://a\u202e.example", False),
        ("http://[broken", False),
        ("Shelf 4B", False),
        ("", False),
        (None, False),
    ],
)
def test_which_addresses_can_be_links(address: str | None, can_be: bool) -> None:
    assert is_link(address) is can_be


# --------------------------------------------------------------------------- texts and code


def test_a_megabyte_of_text_is_cut_until_it_is_asked_for() -> None:
    text = "word " * 200_000
    cut = shown(plain(text))
    assert cut.one("pre").text == text[:TEXT_LIMIT]
    assert cut.one("p", class_="cut").words.startswith("980,000 more characters")
    assert parsed(plain(text, whole=True)).one("pre").text == text


def test_long_texts_are_folded_and_short_ones_are_not() -> None:
    assert list(parsed(plain("x\n" * 100)).all("details")) != []
    assert list(parsed(plain("x\n" * 3)).all("details")) == []


def test_code_is_coloured_and_its_lines_are_numbered() -> None:
    root = shown(code_block("def f():\n    return '<b>'\n", "python"))
    assert [line.text for line in root.all("span", class_="line")] == [
        "def f():",
        "    return '<b>'",
    ]
    assert root.text == "def f():\n    return '<b>'"
    assert list(root.all("span", class_="tok-k"))


@pytest.mark.parametrize("language", [None, "", "brainfuck", "python2000", "<script>"])
def test_code_of_other_languages_is_only_escaped(language: str | None) -> None:
    assert highlighted("<b> if x", language) == "&lt;b&gt; if x"


def test_code_that_takes_too_long_is_not_coloured() -> None:
    # What a lexer needs for this grows with the square of its length.
    code = "\t\n" * (CODE_LIMIT // 2)
    assert highlighted(code, "c") == code
    assert list(shown(code_block("x = 1\n" * CODE_LIMIT, "python")).all("p", class_="cut"))


# --------------------------------------------------------------------------- values


def value(given: Any, **options: Any) -> Node:
    return shown(Layout(**options).value(given))


def test_a_list_of_objects_is_a_table_with_numbers_to_the_right() -> None:
    root = value([{"item": "Paper", "price": 12}, {"item": "<b>", "price": 7.5}])
    assert [cell.text for cell in root.one("thead").all("th")] == ["item", "price"]
    rows = [[cell.text for cell in row.all("td")] for row in root.one("tbody").all("tr")]
    assert rows == [["Paper", "12"], ["<b>", "7.5"]]
    assert [cell.text for cell in root.all("td", class_="number")] == ["12", "7.5"]


def test_a_column_with_anything_but_numbers_is_text() -> None:
    root = value([{"n": 1}, {"n": "two"}, {"n": True}])
    assert list(root.all("td", class_="number")) == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (1234, "1234"),
        (1234567, "1234567"),
        (-12345.5, "-12345.5"),
        (1e22, "1e+22"),
        (True, "Yes"),
        (None, "none"),
        ("", "empty"),
        ("<i>", "<i>"),
        ([], "nothing"),
        ({}, "nothing"),
        ([1, 2, "x"], "1, 2, x"),
    ],
)
def test_values_read_as_they_are(given: Any, text: str) -> None:
    assert value(given).text == text


def test_digits_stand_in_groups() -> None:
    assert [group.text for group in parsed(Layout().value(1234567)).all("i")] == ["234", "567"]


def test_what_is_in_an_object_is_a_table_in_a_table() -> None:
    root = value({"account": {"holder": "Ann", "iban": "DE"}})
    assert root.words.replace(" ", "") == "accountholderAnnibanDE"
    assert len(list(root.all("table"))) == 2


def test_five_thousand_rows_are_cut_until_they_are_asked_for() -> None:
    rows = [{"n": number, "name": f"row {number}"} for number in range(5_000)]
    cut = value(rows)
    assert len(list(cut.one("tbody").all("tr"))) == ROWS_LIMIT
    assert cut.one("p", class_="cut").words.startswith("4,800 more rows")
    assert Layout(whole=True).value(rows).count("<tr>") == 5_000 + 1


def test_what_is_nested_too_deep_is_shown_as_json() -> None:
    deep: Any = {"end": 1}
    for _ in range(100):
        deep = {"level": deep}
    root = value(deep)
    assert len(list(root.all("table"))) == 6
    assert '"end": 1' in root.text


def test_a_page_is_not_laid_out_without_end() -> None:
    layout = Layout()
    grid = [{str(column): [row] for column in range(12)} for row in range(200)]
    cells = sum(str(layout.value(grid)).count("<td") for _ in range(20))
    assert cells < 20 * 200
    fields = [layout.markdown("*a* " + "word " * 7_000) for _ in range(10)]
    assert sum("<em>" in field for field in fields) == 3


def test_fields_are_shown_as_their_schema_says() -> None:
    layout = Layout()
    as_markdown = FormField(name="body", label="Body", widget="markdown")
    as_code = FormField(name="code", label="Code", widget="code", language="python")
    assert parsed(layout.value("**x**", as_markdown)).one("strong").text == "x"
    assert "tok-k" in layout.value("return", as_code)
    assert parsed(layout.value("**x**")).text == "**x**"
    assert (is_short("x"), is_short("x", as_markdown), is_short("x\ny")) == (True, False, False)


def test_the_gist_of_a_subject_is_one_line() -> None:
    data = {"pay_to": "Ann\u202e\nB", "amount": 5, "lines": [{"a": 1}], "note": "x" * 500}
    line = gist(data)
    assert line.startswith("pay to: Ann\\u202e B · amount: 5 · note: xxx")
    assert len(line) <= 140


# --------------------------------------------------------------------------- differences


def lines(change: FieldChange) -> list[tuple[str, str, str]]:
    return [(row.kind, _text(row.before), _text(row.after)) for row in change.rows]


def _text(pieces: Any) -> str:
    return "".join(f"[{piece.text}]" if piece.changed else piece.text for piece in pieces)


def change_of(before: Any, after: Any) -> FieldChange:
    (change,) = changes({"x": before}, {"x": after})
    return change


def test_words_that_differ_are_marked() -> None:
    change = change_of("Pay 100 euros to Ann", "Pay 900 euros to Ann")
    assert lines(change) == [("changed", "Pay [100] euros to Ann", "Pay [900] euros to Ann")]
    assert (change.short, change.added, change.removed) == (True, 1, 1)


def test_lines_stand_beside_those_that_they_came_from() -> None:
    change = change_of("def pay(a):\n    ok", "import x\n\ndef pay(a, b):\n    ok")
    assert lines(change) == [
        ("added", "", "import x"),
        ("added", "", ""),
        ("changed", "def pay(a):", "def pay(a[, b]):"),
        ("same", "    ok", "    ok"),
    ]


def test_lines_that_have_nothing_in_common_are_not_marked() -> None:
    assert lines(change_of("alpha beta", "7 % / 2")) == [("changed", "alpha beta", "7 % / 2")]


def test_unchanged_lines_far_from_a_change_are_left_out() -> None:
    text = [str(number) for number in range(100)]
    change = change_of("\n".join(text), "\n".join([*text[:50], "new", *text[50:]]))
    kinds = [(row.kind, row.count) for row in change.rows]
    assert kinds == [("gap", 47), *[("same", 0)] * 3, ("added", 0), *[("same", 0)] * 3, ("gap", 47)]
    assert [row.after_number for row in change.rows if row.kind == "added"] == [51]


def test_every_line_is_in_one_of_the_rows() -> None:
    before, after = "a\nb\nc\nd\ne", "b\nx\nc\ny\nz\ne"
    rows: tuple[Row, ...] = change_of(before, after).rows
    old = [_plain(row.before) for row in rows if row.before_number]
    new = [_plain(row.after) for row in rows if row.after_number]
    assert (old, new) == (before.split("\n"), after.split("\n"))
    assert [row.before_number for row in rows if row.before_number] == [1, 2, 3, 4, 5]


@given(
    st.lists(st.sampled_from(["pay ann", "pay bob", "x", ""]), min_size=1, max_size=7),
    st.lists(st.sampled_from(["pay ann now", "pay bob", "y", ""]), min_size=1, max_size=7),
)
@settings(max_examples=80, deadline=None)
def test_nothing_is_lost_or_invented_by_a_comparison(old: list[str], new: list[str]) -> None:
    if old == new:
        return
    rows = change_of("\n".join(old), "\n".join(new)).rows
    for texts, side in ((old, "before"), (new, "after")):
        shown = {getattr(row, f"{side}_number"): _plain(getattr(row, side)) for row in rows}
        shown.pop(None, None)
        assert shown == {number: texts[number - 1] for number in shown}
        left_out = sum(row.count for row in rows if row.kind == "gap")
        assert len(shown) + left_out == len(texts)


def _plain(pieces: Any) -> str:
    return "".join(piece.text for piece in pieces)


def test_fields_that_come_and_go_are_changes() -> None:
    found = changes({"gone": "a", "same": 1}, {"new": [1], "same": 1}, {"new": "The new one"})
    assert [(change.field, change.label) for change in found] == [
        ("new", "The new one"),
        ("gone", "gone"),
    ]


@pytest.mark.parametrize(("before", "after"), [("1", 1), (True, "true")])
def test_a_change_that_cannot_be_read_is_said(before: Any, after: Any) -> None:
    change = change_of(before, after)
    assert (change.rows, "reads the same" in change.note) == ((), True)


def test_true_is_not_one() -> None:
    assert lines(change_of(True, 1)) == [("changed", "true", "1")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x " * 200_000, "y " * 200_000),
        ("\n".join(map(str, range(4_000))), "\n".join(map(str, range(4_000, 8_000)))),
    ],
)
def test_what_is_too_long_to_be_compared_is_said(before: str, after: str) -> None:
    change = change_of(before, after)
    assert (change.rows, change.note[:8]) == ((), "Too long")


def test_a_small_change_in_a_long_text_is_found() -> None:
    text = [f"line {number}" for number in range(10_000)]
    change = change_of("\n".join(text), "\n".join([*text[:9_000], "new", *text[9_001:]]))
    assert [row.after_number for row in change.rows if row.kind == "changed"] == [9_001]
    assert (change.added, change.removed) == (1, 1)


def test_structured_values_are_compared_as_json() -> None:
    change = change_of({"a": 1, "b": [2]}, {"a": 1, "b": [3]})
    assert [row.kind for row in change.rows].count("changed") == 1
    assert json.dumps({"a": 1}, indent=2).split("\n")[1].strip(",") in lines(change)[1][1]
