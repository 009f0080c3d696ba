"""How a request reads as plain text, and how a draft differs from the one before."""

from datetime import UTC, datetime, timedelta
from typing import Any

from llama_index_hitl.models import (
    Evidence,
    Feedback,
    ReviewPolicy,
    ReviewRequest,
    Subject,
)
from llama_index_hitl.rendering import diff_of, render_prompt, text_of

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def request(**changes: Any) -> ReviewRequest:
    return ReviewRequest(request_id="gate-1", title="A draft", created_at=NOW, **changes)


def subject(**data: Any) -> Subject:
    return Subject(type="Draft", data=data)


def test_a_prompt_holds_everything_that_was_asked() -> None:
    asked = request(
        body="Is it *true*?",
        subject=subject(text="one\ntwo", n=5),
        evidence=(Evidence(title="Source", body="it says so"),),
        feedback=(Feedback(revision=1, by="erin", at=NOW, text="longer"),),
        revision=2,
        level=1,
        policy=ReviewPolicy(deadline=NOW + timedelta(days=1)),
    )
    prompt = render_prompt(asked)
    for words in ("A draft", "revision 2", "escalated", "due 2026-01-02", "Is it *true*?",
                  "text:\none\ntwo", "n: 5", "Source\nit says so",
                  "Feedback on 1 by erin: longer", "(approve, reject)"):  # fmt: skip
        assert words in prompt


def test_the_first_revision_has_no_diff() -> None:
    assert diff_of(request(subject=subject(text="a"))) == ()


def test_a_diff_names_the_fields_that_changed_and_only_those() -> None:
    asked = request(
        subject=subject(text="one\nthree", n=5, new=True),
        previous=subject(text="one\ntwo", n=5, old="gone"),
        revision=2,
    )
    changes = {change.field: change for change in diff_of(asked)}
    assert set(changes) == {"text", "new", "old"}
    assert changes["text"].lines[-2:] == ("-two", "+three")
    assert (changes["new"].before, changes["new"].after) == ("", "true")
    assert (changes["old"].before, changes["old"].after) == ("gone", "")


def test_lines_that_look_like_diff_headers_are_kept() -> None:
    asked = request(subject=subject(text="+++ b"), previous=subject(text="--- a"), revision=2)
    (change,) = diff_of(asked)
    assert change.lines[-2:] == ("---- a", "++++ b")


def test_text_is_shown_as_it_is_and_everything_else_as_json() -> None:
    assert text_of("ä\n") == "ä\n"
    assert text_of({"b": 1, "a": "ä"}) == '{\n  "a": "ä",\n  "b": 1\n}'
