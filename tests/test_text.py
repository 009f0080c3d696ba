"""Words that are made fit to be stored and shown."""

import pytest

from llama_index_hitl._text import one_line, storable, without_example


@pytest.mark.parametrize(
    ("text", "limit", "fit"),
    [
        ("as it is", 8, "as it is"),
        ("too long", 7, "too lo…"),
        ("half \ud83d", 20, "half \\ud83d"),
        ("half \ud83d", 8, "half \\u…"),
        ("", 1, ""),
    ],
)
def test_text_is_bounded_and_can_be_written(text: str, limit: int, fit: str) -> None:
    assert storable(text, limit) == fit
    fit.encode()


def test_one_line_stays_one() -> None:
    assert one_line(" a\n\tb \u2028c ", 9) == "a b c"


def test_an_example_is_for_readers_of_the_code() -> None:
    assert without_example("Says it.\n\nExample:\n    >>> 1") == "Says it."
    assert without_example("Says it. Example:\nthis") == "Says it. Example:\nthis"
