"""The terminal reviewer: what it shows, what it takes for a decision, and what it never does."""

import asyncio
import errno
import gc
import io
import json
import os
import queue
import re
import select
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, model_validator
from workflows import Context, Workflow, step
from workflows.errors import WorkflowCancelledByUser
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
)

from llama_index_hitl import (
    Abstain,
    Answer,
    Approve,
    Approved,
    Delegate,
    Edit,
    Escalate,
    Evidence,
    Expired,
    Reject,
    Rejected,
    Respond,
    Review,
    Reviewer,
    ReviewRequest,
    ReviewRequestEvent,
    Revise,
    Revision,
)
from llama_index_hitl.console import (
    ConsoleReviewer,
    EditorFailed,
    edit_text,
    review_in_console,
)
from llama_index_hitl.errors import MissingExtra, NotAllowed, RequestExpired, Unanswered
from llama_index_hitl.models import Feedback, ReviewPolicy, RuleResult, StageApproval, Subject
from llama_index_hitl.rules import always

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALL = ("approve", "reject", "revise", "edit", "escalate", "delegate", "abstain")
ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    """A stream that says it is a terminal, although nothing is behind it."""

    def isatty(self) -> bool:
        return True


def request_of(subject: dict[str, Any] | None = None, **values: Any) -> ReviewRequest:
    schema = values.pop("schema", {})
    made: dict[str, Any] = {"request_id": "gate-1", "title": "Publish", "created_at": NOW}
    if subject is not None:
        made["subject"] = Subject(type="Draft", data=subject, json_schema=schema)
    if "escalate" in values.get("allowed", ()):
        made["escalate_to"] = ("chief",)
    return ReviewRequest(**{**made, **values})


def decide(request: ReviewRequest, *lines: str, **options: Any) -> tuple[Answer | Exception, str]:
    """Review one request with piped lines; return what came of it, and what was shown."""
    stdin, stdout = io.StringIO("".join(f"{line}\n" for line in lines)), io.StringIO()
    options = {"reviewer": "erin", "stdin": stdin, "stdout": stdout, "clock": lambda: NOW} | options
    try:
        found: Answer | Exception = asyncio.run(ConsoleReviewer(**options).review(request))
    except (Unanswered, NotAllowed, RequestExpired) as error:
        found = error
    return found, options["stdout"].getvalue()


def decision(request: ReviewRequest, *lines: str, **options: Any) -> Any:
    found, shown = decide(request, *lines, **options)
    assert isinstance(found, Answer), shown
    return found.decision


# --------------------------------------------------------------------------- what decides


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("approve", Approve()),
        ("  APPROVE ", Approve()),
        ("1", Approve()),
        ("approve: looks good", Approve(comment="looks good")),
        ("reject", Reject()),
        ("2", Reject()),
        ("Reject : too long", Reject(comment="too long")),
        ("revise: shorter, please", Revise(feedback="shorter, please")),
        ("escalate", Escalate()),
        ("5", Escalate()),
        ("escalate: above my pay", Escalate(comment="above my pay")),
        ("delegate: bob", Delegate(to="bob")),
        ("7", Abstain()),
    ],
)
def test_a_decision_is_its_word_or_its_number(line: str, expected: Any) -> None:
    found, _ = decide(request_of({"text": "x"}, allowed=ALL), line)
    assert isinstance(found, Answer)
    assert found.decision == expected
    assert (found.by, found.channel, found.at) == (Reviewer(id="erin"), "console", NOW)
    assert (found.request_id, found.digest) == (
        "gate-1",
        request_of({"text": "x"}, allowed=ALL).digest,
    )


CONSENT = re.compile(r"\s*(?:approve(?:\s*:\s*\S.*)?|1)\s*", re.IGNORECASE | re.DOTALL)
NEAR = st.sampled_from(
    [
        *(
            "approve",
            "APPROVE",
            "1",
            "yes",
            "y",
            "ok",
            ":",
            "d",
            "aprove",
            "01",
            "+1",
            "1.",
            "not ",
        ),
        *("approve.", "reject", "/", "\\", " ", "", '{"decision": "approve"}', "\ufeff", "\x00"),
        *("\uff11", "\u0430"),  # they only look like 1 and a
    ]
)


@given(
    st.text(st.characters(exclude_characters="\n"), max_size=30)
    | st.lists(NEAR, max_size=4).map("".join)
)
@example("")
@example("yes")
@example("approve:")
@example('{"decision": "approve"}')
@example("approve it")
@settings(max_examples=150, deadline=None)
def test_no_line_but_the_exact_word_or_number_approves(line: str) -> None:
    found, _ = decide(request_of(), line)
    approved = isinstance(found, Answer) and isinstance(found.decision, Approve)
    assert approved == bool(CONSENT.fullmatch(line))


@given(
    st.lists(
        st.sampled_from(["", " ", "y", "yes", "edit", "back", "x", '""', "/back", "1", "2 "]),
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_no_way_through_an_edit_sends_anything_without_the_word_edit(lines: list[str]) -> None:
    request = request_of({"a": "x", "b": "y"}, allowed=("edit", "reject"))
    found, shown = decide(request, *lines)
    if isinstance(found, Answer) and isinstance(found.decision, Edit):
        assert "Your changes" in shown
        assert shown.rindex("Type edit to send it so, or back: edit") > shown.rindex("Your changes")


def test_enter_decides_nothing_and_says_what_is_possible() -> None:
    found, shown = decide(request_of(allowed=("approve", "reject", "revise"), subject={}), "", "  ")
    assert isinstance(found, Unanswered)
    assert shown.count("Nothing was decided. Type approve, reject or revise.") == 2


@pytest.mark.parametrize("word", ["yes", "Y", "ok", "approved", "yes!"])
def test_yes_is_explained_and_asked_again(word: str) -> None:
    found, shown = decide(request_of(), word, "reject")
    assert isinstance(found, Answer)
    assert found.decision == Reject()
    assert f'"{word}" is not a decision. Type approve to approve.' in shown


def test_a_decision_that_is_not_offered_is_none() -> None:
    found, shown = decide(request_of(), "revise: x", "3", "yes: please")
    assert isinstance(found, Unanswered)
    assert '"revise: x" is not a decision here. Type approve or reject.' in shown
    assert '"3" is not a decision here' in shown


def test_a_comment_is_taken_where_it_is_typed_and_never_asked_for() -> None:
    _, shown = decide(request_of(), "approve")
    assert "omment" not in shown.split("Decision (erin)")[1]


def test_the_instruction_is_given_once() -> None:
    async def two() -> str:
        stdout = io.StringIO()
        reviewer = ConsoleReviewer(
            reviewer="erin", stdin=io.StringIO("approve\napprove\n"), stdout=stdout
        )
        await reviewer.review(request_of())
        await reviewer.review(request_of(request_id="gate-2"))
        return stdout.getvalue()

    assert asyncio.run(two()).count("Type the word or the number.") == 1


# --------------------------------------------------------------------------- what it needs next


def test_feedback_is_asked_for_until_there_is_some() -> None:
    request = request_of({"text": "x"}, allowed=("approve", "revise"))
    found, shown = decide(request, "revise", "", "  ", "make it\\", "short\\\\")
    assert isinstance(found, Answer)
    assert found.decision == Revise(feedback="make it\nshort\\\\")
    assert shown.count("Feedback is needed.") == 2


def test_inline_text_goes_on_after_a_backslash() -> None:
    request = request_of({"text": "x"}, allowed=("approve", "revise"))
    assert decision(request, "revise: one\\", "two") == Revise(feedback="one\ntwo")


def test_back_returns_to_the_decisions() -> None:
    request = request_of({"text": "x"}, allowed=("approve", "revise"))
    found, shown = decide(request, "revise", "/back", "approve")
    assert isinstance(found, Answer)
    assert found.decision == Approve()
    assert "Choose again: approve or revise." in shown


def test_whom_to_escalate_to_is_asked_where_there_is_a_choice() -> None:
    request = request_of(allowed=("escalate",), escalate_to=("chief", "boss"))
    assert decision(request, "escalate", "chief") == Escalate("chief")
    assert decision(request, "escalate", "") == Escalate()


def test_delegating_needs_somebody() -> None:
    request = request_of(allowed=("delegate", "approve"))
    found, shown = decide(request, "delegate", "", "bob")
    assert isinstance(found, Answer)
    assert found.decision == Delegate(to="bob")
    assert "Delegate to is needed." in shown


class Verdict(BaseModel):
    severity: str = Field(json_schema_extra={"enum": ["low", "high"]}, description="How bad.")
    amount: int = Field(ge=1)
    level: int = Field(default=2, json_schema_extra={"enum": [3, 2, 1]})
    sure: bool
    parts: list[str] = []
    note: str | None = None


def asking(model: type[BaseModel]) -> ReviewRequest:
    return request_of(allowed=("respond",), response_schema=model.model_json_schema())


def test_a_response_is_asked_field_by_field() -> None:
    lines = ["respond", "2", "12", "1", "true", '["a", "b"]', "fine"]
    assert decision(asking(Verdict), *lines).response == {
        "severity": "high",
        "amount": 12,
        "level": 1,
        "sure": True,
        "parts": ["a", "b"],
        "note": "fine",
    }


def test_optional_fields_of_a_response_may_stay_empty() -> None:
    given_ = decision(asking(Verdict), "respond", "low", "1", "", "false", "", "").response
    assert given_ == {"severity": "low", "amount": 1, "sure": False}


def test_what_is_wrong_is_said_at_the_field_and_asked_again() -> None:
    lines = [
        "1",
        "medium",
        "3",
        "low",
        "much",
        "0",
        "5",
        "",
        "",
        "maybe",
        "true",
        "[",
        "[1]",
        "[]",
        "",
    ]
    found, shown = decide(asking(Verdict), *lines)
    assert isinstance(found, Answer), shown
    assert found.decision == Respond(
        response={"severity": "low", "amount": 5, "sure": True, "parts": []}
    )
    for problem in (
        "severity: choose one of: low, high",
        "amount: this must be a whole number",
        "amount: 0 is less than the minimum of 1",
        "Sure is needed.",
        "sure: this must be true or false",
        "parts: this must be JSON",
        "parts.0: 1 is not of type 'string'",
    ):
        assert problem in shown
    assert "How bad." in shown
    assert "1  low" in shown
    assert "-  3" in shown  # numbers are not numbered


def test_a_plain_response_can_be_typed_inline() -> None:
    request = request_of(allowed=("respond",), response_schema={"type": "integer"})
    found, shown = decide(request, "respond: seven", "7")
    assert isinstance(found, Answer)
    assert found.decision == Respond(response=7)
    assert "response: this must be a whole number" in shown


# --------------------------------------------------------------------------- edits


DRAFT = {"title": "Old", "words": 10, "note": None, "live": True}
DRAFT_SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "words": {"type": "integer", "minimum": 0},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "live": {"type": "boolean"},
    },
    "required": ["title", "words"],
}


def draft(**values: Any) -> ReviewRequest:
    return request_of(
        {**DRAFT, **values}, schema=DRAFT_SCHEMA, allowed=("approve", "edit", "reject")
    )


def test_without_an_editor_fields_are_edited_one_by_one_and_enter_keeps() -> None:
    found, shown = decide(draft(), "edit: a typo", "New", "-1", "20", "", "", "edit")
    assert isinstance(found, Answer)
    assert found.decision == Edit(subject={**DRAFT, "title": "New", "words": 20}, comment="a typo")
    assert "words: -1 is less than the minimum of 0" in shown
    changes = shown.split("Your changes")[1]
    for line in ("- Old", "+ New", "- 10", "+ 20"):
        assert line in changes


def test_two_quotes_empty_a_field() -> None:
    lines = ["edit", '""', "", '""', "", "edit"]
    assert decision(draft(note="n"), *lines).subject == {**DRAFT, "title": "", "note": ""}


@pytest.mark.parametrize("back", ["back", "/back"])
def test_an_edit_has_to_be_confirmed_with_its_word(back: str) -> None:
    found, shown = decide(draft(), "edit", "New", "", "", "", "", "yes", "approve", back, "reject")
    assert isinstance(found, Answer)
    assert found.decision == Reject()
    assert shown.count("Nothing was sent.") == 3


def test_an_edit_that_changes_nothing_is_not_sent() -> None:
    found, shown = decide(draft(), "edit", "", "10", "", "")
    assert isinstance(found, Unanswered)
    assert "Nothing was changed." in shown
    assert "Your changes" not in shown


class Editor:
    """An editor that does what a list says, and remembers what it was given."""

    def __init__(self, *results: Callable[[str], str | None] | str | None) -> None:
        self.results = list(results)
        self.given: list[tuple[str, str]] = []

    def __call__(self, text: str, suffix: str) -> str | None:
        self.given.append((text, suffix))
        result = self.results.pop(0)
        return result(text) if callable(result) else result


def test_a_structured_subject_is_edited_as_json() -> None:
    editor = Editor(lambda text: text.replace("Old", "New").replace("10", "11"))
    found = decision(draft(), "edit", "edit", editor=editor)
    assert found == Edit(subject={**DRAFT, "title": "New", "words": 11})
    assert editor.given[0][1] == ".json"
    assert json.loads(editor.given[0][0]) == DRAFT


@pytest.mark.parametrize(
    ("extra", "suffix"),
    [
        ({"format": "markdown"}, ".md"),
        ({"format": "code", "language": "python"}, ".py"),
        ({"format": "code", "language": "no/such"}, ".txt"),
        ({}, ".txt"),
    ],
)
def test_a_subject_that_is_one_text_is_edited_as_that_text(
    extra: dict[str, Any], suffix: str
) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string", **extra}}}
    request = request_of({"text": '{"a": 1}'}, schema=schema, allowed=("edit",))
    editor = Editor("not json")
    assert decision(request, "edit", "edit", editor=editor) == Edit(subject={"text": "not json"})
    assert editor.given == [('{"a": 1}', suffix)]


def test_broken_json_is_explained_and_opened_again_as_it_was_left() -> None:
    editor = Editor('{"title": ', "[1]", lambda text: text.replace("[1]", '{"title": "New"}'))
    found, shown = decide(draft(), "edit", "edit", "edit", "edit", editor=editor)
    assert isinstance(found, Answer), shown
    assert found.decision == Edit(subject={**DRAFT, "title": "New"})
    assert [text for text, _ in editor.given][1:] == ['{"title": ', "[1]"]
    assert "this is not JSON" in shown
    assert "this must be a JSON object" in shown
    assert "Left out, so they keep their values: words, note, live." in shown


@pytest.mark.parametrize(
    "broken", ['{"words": NaN}', "[" * 100_000, '{"title": 5}', '{"tilte": "x"}']
)
def test_what_an_editor_leaves_has_to_fit(broken: str) -> None:
    found, shown = decide(draft(), "edit", editor=Editor(broken))
    assert isinstance(found, Unanswered)
    assert "Your changes" not in shown


def test_a_text_in_edited_json_is_a_text_whatever_the_field_was() -> None:
    schema = {
        "type": "object",
        "properties": {
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "size": {"enum": ["7", "8"]},
            "count": {"type": "integer"},
        },
    }
    request = request_of({"either": 1, "size": "7", "count": 2}, schema=schema, allowed=("edit",))
    editor = Editor('{"either": "12", "size": "8", "count": 3}', '{"count": "4"}')
    assert decision(request, "edit", "edit", editor=editor).subject == {
        "either": "12",
        "size": "8",
        "count": 3,
    }
    found, shown = decide(request, "edit", editor=editor)
    assert isinstance(found, Unanswered)
    assert "count: this must be a whole number" in shown


def test_after_back_the_editor_goes_on_from_the_draft() -> None:
    editor = Editor('{"title": "New"}', None)
    found, _ = decide(draft(), "edit", "back", "edit", "edit", editor=editor)
    assert isinstance(found, Answer)
    assert found.decision == Edit(subject={**DRAFT, "title": "New"})
    assert editor.given[1][0] == '{"title": "New"}'


def test_an_editor_that_fails_or_changes_nothing_leaves_the_question_open() -> None:
    def fail(text: str) -> str:
        raise EditorFailed("The editor ended with status 3.")

    found, shown = decide(draft(), "edit", "edit", "reject", editor=Editor(fail, None))
    assert isinstance(found, Answer)
    assert found.decision == Reject()
    assert "The editor ended with status 3. Nothing was changed." in shown
    assert "Nothing was changed. Edit it, or decide otherwise." in shown


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Make a program the person's editor; it finds the file's name in `file`."""

    def make(code: str) -> Path:
        program, trace = tmp_path / "an editor.py", tmp_path / "trace"
        head = "import pathlib, sys\nfile = pathlib.Path(sys.argv[-1])\n"
        head += f"pathlib.Path({str(trace)!r}).write_text(str(file))\n"
        program.write_text(head + code)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", f"'{sys.executable}' -S '{program}'")
        return trace

    return make


def test_the_editor_of_the_environment_is_used_at_a_terminal(
    script: Callable[[str], Path],
) -> None:
    trace = script("file.write_text(file.read_text().replace('Old', 'New'))")
    stdin = Terminal("edit\nedit\n")
    found = decision(draft(), stdin=stdin, stdout=Terminal())
    assert found == Edit(subject={**DRAFT, "title": "New"})
    assert trace.read_text().endswith(".json")
    assert not Path(trace.read_text()).parent.exists()


def test_without_a_terminal_the_editor_is_not_used(script: Callable[[str], Path]) -> None:
    trace = script("")
    decision(draft(), "edit", "New", "", "", "", "edit")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("sys.exit(3)", "ended with status 3"),
        ("file.unlink()", "cannot be read"),
        (r"file.write_bytes(b'\xff')", "cannot be read"),
    ],
)
def test_an_editor_that_goes_wrong_is_reported_and_its_file_removed(
    script: Callable[[str], Path], code: str, problem: str
) -> None:
    trace = script(code)
    with pytest.raises(EditorFailed, match=problem):
        edit_text("text")
    assert not Path(trace.read_text()).parent.exists()


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("no-such-editor-here", "could not be started"),
        ("a 'b", "cannot be read"),
        (" ", "no editor"),
    ],
)
def test_an_editor_that_is_none_is_reported(
    monkeypatch: pytest.MonkeyPatch, command: str, problem: str
) -> None:
    monkeypatch.setenv("VISUAL", command)
    monkeypatch.delenv("EDITOR", raising=False)
    with pytest.raises(EditorFailed, match=problem):
        edit_text("text")


def test_an_editor_that_adds_a_line_end_has_changed_nothing(script: Callable[[str], Path]) -> None:
    script("file.write_text(file.read_text() + '\\n')")
    assert edit_text("text", ".md") is None
    script("file.write_text('new\\r\\n\\n')")
    assert edit_text("text") == "new\r\n"


# --------------------------------------------------------------------------- leaving, and who asks


def test_the_end_of_input_leaves_the_request_open_and_says_so() -> None:
    found, shown = decide(request_of())
    assert isinstance(found, Unanswered)
    assert found.request_id == "gate-1"
    assert "Left unanswered: 'Publish' stays open; nothing was decided." in shown


class Broken(io.StringIO):
    def __init__(self, *found: Exception | type[BaseException] | str) -> None:
        super().__init__()
        self.found = list(found)

    def readline(self, size: int = -1, /) -> str:
        found = self.found.pop(0)
        if isinstance(found, str):
            return found
        raise found


def test_ctrl_c_and_a_terminal_that_is_gone_leave_it_open() -> None:
    for error in (KeyboardInterrupt, OSError(errno.EIO, "gone"), ValueError("closed")):
        found, shown = decide(request_of(), stdin=Broken(error))
        assert isinstance(found, Unanswered)
        assert "stays open" in shown


def test_a_line_that_is_not_text_is_asked_again() -> None:
    bytes_ = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")
    found, shown = decide(request_of(), stdin=Broken(bytes_, "reject\n"))
    assert isinstance(found, Answer)
    assert "That line is not text" in shown


def test_the_name_is_asked_once_and_never_guessed() -> None:
    async def two() -> tuple[list[str], str]:
        stdin, stdout = io.StringIO("\n \n\x1b[A\n" + "x" * 201 + "\n Erin \n1\n1\n"), io.StringIO()
        reviewer = ConsoleReviewer(stdin=stdin, stdout=stdout)
        answers = [await reviewer.review(request_of(request_id=f"gate-{n}")) for n in (1, 2)]
        return [answer.by.id for answer in answers], stdout.getvalue()

    names, shown = asyncio.run(two())
    assert names == ["Erin", "Erin"]
    assert shown.count("Every decision is on record with a name: type yours.") == 3
    assert shown.count("That is too long for a name.") == 1


def test_somebody_who_may_not_answer_is_told_and_not_asked() -> None:
    policy = ReviewPolicy(reviewers=("role:legal",))
    found, shown = decide(request_of(policy=policy), "approve")
    assert isinstance(found, NotAllowed)
    assert "Not asked: 'Publish'. erin may not answer: the request is for role:legal." in shown
    assert "Decision" not in shown
    legal = Reviewer(id="lea", roles=("legal",))
    assert decision(request_of(policy=policy), "approve", reviewer=legal) == Approve()


def test_after_the_deadline_nothing_is_asked_and_nothing_counts() -> None:
    request = request_of(policy=ReviewPolicy(deadline=NOW + timedelta(hours=1)))
    found, shown = decide(request, "approve", clock=lambda: NOW + timedelta(hours=1))
    assert isinstance(found, RequestExpired)
    assert "Too late" in shown
    assert "Decision" not in shown
    times = iter([NOW, NOW, NOW, NOW + timedelta(hours=2)])
    found, shown = decide(request, "approve", clock=lambda: next(times))
    assert isinstance(found, RequestExpired)
    assert "Decision (erin): approve\nToo late" in shown


# --------------------------------------------------------------------------- what it shows


def shown_for(request: ReviewRequest, **options: Any) -> str:
    return decide(request, **options)[1]


def test_the_facts_stand_above_the_subject() -> None:
    answers = tuple(Answer.to(request_of(), Approve(), by=by, at=NOW) for by in ("lea", "leo"))
    request = request_of(
        {"text": "x"},
        allowed=("approve", "revise", "escalate"),
        policy=ReviewPolicy(
            reviewers=("role:legal", "erin"), approvals=2, deadline=NOW + timedelta(days=2)
        ),
        requester="ana",
        priority="urgent",
        revision=2,
        max_revisions=3,
        level=1,
        on_deadline=Escalate("boss"),
        rule=RuleResult(verdict="ask", rule="large", reason="more than 100"),
        approvals=(StageApproval(stage="legal", request_id="gate-1", answers=answers),),
    )
    shown = " ".join(shown_for(request).split())
    for fact in (
        "Publish revision 2 of at most 4 · escalated · for role:legal, erin · 2 approvals needed",
        "on behalf of ana",
        "due 2026-03-03 12:00 UTC (in 2 d), then escalated to boss",
        "legal approved by lea, leo · gate-1",
        "Priority: urgent",
        "Asked because: more than 100",
        "1 approve 2 revise Send back with feedback 3 escalate Type the word",
    ):
        assert fact in shown, shown


def test_approvals_by_role_and_from_anyone_are_named() -> None:
    by_role = ReviewPolicy(per_role={"legal": 2, "chief": 1})
    assert "approvals needed: 2 of legal, 1 of chief" in shown_for(request_of(policy=by_role))
    assert "for anyone · 1 approval needed" in shown_for(request_of())


RICH_SCHEMA = {
    "type": "object",
    "properties": {
        "article": {"type": "string", "format": "markdown"},
        "snippet": {"type": "string", "format": "code", "language": "python"},
        "amount": {"type": "integer", "title": "Amount in euro"},
    },
}
RICH = {
    "amount": 12,
    "name": "Ana",
    "nothing": None,
    "empty": "",
    "article": "# Heading\n\nSome *words* and a [link](https://example.org).\n\n- one\n- two",
    "snippet": "def f():\n    return 1\n",
    "address": {"city": "Rome", "codes": [1, {"a": "b"}], "lines": "x\ny", "none": []},
    "lines": "first\nsecond",
}


def test_a_subject_is_a_table_with_its_texts_laid_out() -> None:
    shown = shown_for(request_of(RICH, schema=RICH_SCHEMA))
    subject = shown.split("Draft\n")[1].split("\n  1  approve")[0]
    assert subject.rstrip() == textwrap.dedent(
        """\
        |  Amount in euro  12
        |  Name            Ana
        |  Nothing         null
        |  Empty           ""
        |  Article
        |    Heading
        |
        |    Some words and a link (https://example.org).
        |
        |     • one
        |     • two
        |  Snippet
        |    def f():
        |        return 1
        |  Address
        |    city: Rome
        |    codes:
        |      - 1
        |      - a: b
        |    lines:
        |      x
        |      y
        |    none: []
        |  Lines
        |    first
        |    second"""
    ).replace("|", "")


def test_a_revision_shows_what_changed_and_what_was_said() -> None:
    old = Subject(type="Draft", data={"text": "same\nold\n", "gone": 1, "space": "a\r\nb"})
    request = request_of(
        {"text": "same\nnew\n", "space": "a\nb"},
        previous=old,
        revision=2,
        feedback=(Feedback(revision=1, by="ann", at=NOW, text="Make it\nnew"),),
        evidence=(
            Evidence(title="Guide", body="Use **plain** words", source="http://x.y", score=0.5),
        ),
    )
    shown = shown_for(request)
    assert "Changed since revision 1\n  Text\n      same\n    - old\n    + new\n" in shown
    assert "  Space\n    Only white space or line ends differ.\n" in shown
    assert "  gone\n    - 1\n" in shown
    assert "Feedback so far\n  ann, on revision 1\n    Make it\n    new\n" in shown
    assert "Evidence: Guide (score 0.50)\n  http://x.y\n  Use plain words\n" in shown


def test_a_terminal_gets_colours_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    old = Subject(type="Draft", data={"snippet": "old"})
    request = request_of({**RICH, "snippet": "new"}, schema=RICH_SCHEMA, previous=old, revision=2)
    coloured = shown_for(request, stdin=Terminal(), stdout=Terminal())
    assert "\x1b[32m+" in coloured
    assert "\x1b[31m-" in coloured
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    plain = shown_for(request)
    assert "\x1b" not in plain
    assert not re.search(r"[ \t]+$", plain.replace("Decision (erin): ", ""), re.MULTILINE)


ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\x08\x7f\r\u202egnp\u2066\u200b\U000e0041\u2028"


def test_nothing_in_the_content_acts_on_the_terminal_or_hides() -> None:
    evil = f"[bold red]x[/] :smile: {ESCAPES}"
    request = request_of(
        {"a": evil, "b": f"{evil}\n{evil}", "article": evil, "snippet": evil, evil: {evil: [evil]}},
        schema=RICH_SCHEMA,
        title=evil,
        body=f"{evil} &#x202e; &#27; &#x9b;31m",
        requester=evil,
        previous=Subject(type=evil, data={"a": evil + "!", evil: evil}),
        revision=2,
        feedback=(Feedback(revision=1, by=evil, at=NOW, text=evil),),
        evidence=(Evidence(title=evil, body=evil, source=evil),),
        policy=ReviewPolicy(reviewers=("erin", evil)),
    )
    for options in ({}, {"stdin": Terminal(evil + "\n"), "stdout": Terminal()}):
        shown = shown_for(request, **options)
        assert "[bold red]" in shown
        assert ":smile:" in shown
        without_colours = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert not set(without_colours) & set(ESCAPES) - set("[]0;2Jowned31mgnp")
        assert "\\u202e" in shown
        assert "␛[2J" in shown


@pytest.mark.parametrize(
    "hidden",
    [
        "a <!-- secret --> b",
        "<div>secret</div>",
        "[//]: # (secret)",
        "[x]: http://a.b 'secret'",
        "![alt](http://secret)",
        "[x](http://a.b 'secret')",
        "|a|b|\n|-|-|\n|1|2|secret|",
        "```secret\nx\n```",
        "```python secret\nx\n```",
        "> " * 40 + "secret",
        "".join("  " * depth + "- x\n" for depth in range(40)) + "  " * 40 + "- secret",
    ],
)
def test_markdown_hides_nothing(hidden: str) -> None:
    assert "secret" in shown_for(request_of(body=hidden))


def test_html_and_images_are_shown_as_they_are_and_the_rest_is_laid_out() -> None:
    text = "# Top\n\n*a* <b>c</b> ![d](http://e)\n\n[f]: http://g\n\n```python\nh\n```"
    shown = shown_for(request_of(body=text))
    assert "  Top\n\n  a <b>c</b> !d (http://e)\n\n  [f]: http://g\n" in shown


MARKS = st.sampled_from(
    [
        *(
            "x",
            "k7",
            " ",
            "    ",
            "\n",
            "\n\n",
            "*",
            "_",
            "`",
            "```",
            "~~",
            "[",
            "](",
            ")",
            "![",
            "|",
        ),
        *(
            "# ",
            "- ",
            "1. ",
            "> ",
            "<b>",
            "<!--",
            "-->",
            "\n|-|-|\n",
            "\\",
            "&amp;",
            "<http://q.z>",
        ),
    ]
)


@given(st.lists(MARKS, max_size=40).map("".join))
@example("~~~~x")
@settings(max_examples=60, deadline=None)
def test_every_letter_of_markdown_is_on_the_screen(text: str) -> None:
    body = shown_for(request_of(body=text)).split("gate-1")[1].split("\n  1  approve")[0]
    for letter in "xk7":
        assert body.count(letter) >= text.count(letter)


@pytest.mark.parametrize("columns", ["1", "25", "40", "200"])
def test_any_width_will_do(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    request = request_of({**RICH, "long": "word " * 60}, schema=RICH_SCHEMA, title="word " * 30)
    shown = shown_for(request)
    assert max(map(len, shown.splitlines()[:-3])) <= max(24, min(int(columns), 100))


@pytest.mark.parametrize(
    "text", ["word é " * 140_000, "x" * 1_000_000, "x y\n" * 250_000, "[" * 19_000, ">" * 19_000]
)
def test_a_huge_text_is_shown_whole_and_soon(text: str) -> None:
    schema = {"properties": {"text": {"type": "string", "format": "markdown"}}}
    old = Subject(type="Draft", data={"text": text[:-1]})
    request = request_of({"text": text}, schema=schema, previous=old, revision=2)
    began = time.process_time()
    shown = shown_for(request)
    assert time.process_time() - began < 5
    letters = [letter for letter in "wxé[" if letter in text]
    assert all(shown.count(letter) >= text.count(letter) for letter in letters)


def test_an_output_that_knows_few_characters_gets_signs_for_the_others() -> None:
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    with pytest.raises(Unanswered):
        asyncio.run(
            ConsoleReviewer(reviewer="erin", stdin=io.StringIO(), stdout=stdout).review(
                request_of({"text": "é 日"}, title="Ünal…")
            )
        )
    assert "\\xdcnal..." in raw.getvalue().decode("ascii")
    assert "\\u65e5" in raw.getvalue().decode("ascii")


def test_without_rich_only_the_use_of_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingExtra, match=r"pip install 'llama-index-hitl\[cli\]'"):
        ConsoleReviewer()


def test_the_import_brings_no_rich() -> None:
    code = "import sys, llama_index_hitl.console; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --------------------------------------------------------------------------- whole runs


class Written(Event):
    message: str


class LLMCalledEvent(Event):
    msg: str = "two\n lines"


class Article(Event):
    title: str
    text: str = Field(json_schema_extra={"format": "markdown"})
    words: int = 1

    @model_validator(mode="after")
    def _not_too_long(self) -> "Article":
        if self.words > len(self.text):
            raise ValueError("more words than letters")
        return self


class LegalApproved(Approved):
    pass


class Publishing(Workflow):
    @step
    async def write(self, ctx: Context, ev: StartEvent | Revision) -> Article:
        number = ev.revision + 1 if isinstance(ev, Revision) else 1
        ctx.write_event_to_stream(Written(message=f"Draft {number}"))
        for _ in range(3):
            ctx.write_event_to_stream(LLMCalledEvent())
        return Article(title="On tests", text=f"Draft {number}\n\nThe rest.")

    legal = Review(Article, title="Legal check", revise=Revision, approved=LegalApproved)
    editor = Review(LegalApproved, revise=Revision, editable=True, title="Last look")

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject)


async def run_through(workflow: Workflow, *lines: str, **options: Any) -> tuple[Any, str]:
    stdin, stdout = io.StringIO("".join(f"{line}\n" for line in lines)), io.StringIO()
    options = {"reviewer": "erin", "stdin": stdin, "stdout": stdout} | options
    try:
        result = await review_in_console(workflow.run(), **options)
    except Unanswered as error:
        result = error
    return result, options["stdout"].getvalue()


async def test_a_run_goes_from_draft_to_result() -> None:
    result, shown = await run_through(
        Publishing(timeout=None),
        "revise: better",
        "approve",
        "edit",
        "Better title",
        "",
        "",
        "edit",
    )
    assert result.title == "Better title"
    assert result.text == "Draft 2\n\nThe rest."
    for line in (
        "Written: Draft 1\nLlm called: two lines\n\n",  # the same line thrice is shown once
        "Legal check — revised. erin sent it back.\nWritten: Draft 2",
        "    - Draft 1\n    + Draft 2\n",
        "Feedback so far\n  erin, on revision 1\n    better",
        "Legal check — approved. erin approved it.",
        "legal approved by erin",
        "Last look — approved. erin approved it.",
    ):
        assert line in shown, shown


async def test_leaving_cancels_the_run_and_decides_nothing() -> None:
    handler = Publishing(timeout=None).run()
    stdout = io.StringIO()
    with pytest.raises(Unanswered) as caught:
        await review_in_console(handler, reviewer="erin", stdin=io.StringIO("yes\n"), stdout=stdout)
    assert caught.value.request_id.startswith("legal-")
    assert "Left unanswered: 'Legal check' stays open" in stdout.getvalue()
    with pytest.raises(WorkflowCancelledByUser):
        await handler


class Amount(Event):
    number: int


class Three(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Amount | None:
        for number in (1, 2, 3):
            ctx.send_event(Amount(number=number))

    check = Review(Amount, title=lambda workflow, event: f"Pay {event.number}", rejected=Rejected)

    @step
    async def gather(self, ctx: Context, ev: Approved | Rejected) -> StopEvent | None:
        found = ctx.collect_events(ev, [Approved, Approved, Rejected])
        if found is None:
            return None
        return StopEvent(result=[(type(one).__name__, one.subject.number) for one in found])


async def test_requests_open_at_the_same_time_are_asked_one_after_another() -> None:
    result, shown = await run_through(Three(timeout=None), "approve", "reject", "approve")
    assert result == [("Approved", 1), ("Approved", 3), ("Rejected", 2)]
    places = re.findall(r"─ (\d of \d)\nPay (\d)", shown)
    assert places == [("1 of 3", "1"), ("2 of 3", "2"), ("3 of 3", "3")]
    assert shown.index("Pay 1 — approved") < shown.index("2 of 3")


async def test_an_answer_that_the_gate_refuses_is_asked_again_with_the_reason() -> None:
    result, shown = await run_through(
        Publishing(timeout=None), "approve", "edit", "", "", "999", "edit",
        "edit", "", "", "3", "edit",
    )  # fmt: skip
    assert result.words == 3
    assert "That answer was not taken; the request is still open." in shown
    assert "more words than letters" in shown
    assert shown.count("\nLast look\n") == 1  # it is on the screen already
    assert " of 2" not in shown


class Quorum(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Amount:
        return Amount(number=1)

    check = Review(Amount, title="Pay", quorum=2, delegable=True, reviewers=("erin", "bob"))

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        return StopEvent(result="paid")


async def test_where_only_others_can_go_on_the_person_is_told() -> None:
    result, shown = await run_through(Quorum(timeout=None), "approve")
    assert isinstance(result, Unanswered)
    assert "Pay — erin: approve. 1 of 2 approvals." in shown
    assert "The run waits for others: 'Pay' stays open, it needs the answers of others." in shown


async def test_a_request_for_others_is_skipped_with_a_note() -> None:
    result, shown = await run_through(Quorum(timeout=None), "approve", reviewer="zoe")
    assert isinstance(result, Unanswered)
    assert "Not asked: 'Pay'. zoe may not answer: the request is for erin, bob." in shown


class Screen(io.StringIO):
    """Output that calls a function as soon as a text has been written."""

    def __init__(self, text: str, act: Callable[[], object]) -> None:
        super().__init__()
        self.text = text
        self.act = act

    def write(self, text: str, /) -> int:
        written = super().write(text)
        if self.text and self.text in self.getvalue():
            self.text = ""
            self.act()
        return written


async def test_others_can_be_waited_for() -> None:
    handler = Quorum(timeout=None).run()
    asked: list[ReviewRequest] = []

    def bob_approves() -> None:
        gate = Quorum.check
        assert gate.name == "check"
        event = ReviewRequestEvent(request=asked[0])
        handler.ctx.send_event(event.answer(Approve(), by="bob"))

    original = ConsoleReviewer.review
    assert callable(original)
    stdout = Screen("1 of 2 approvals", bob_approves)
    stream = handler.stream_events

    async def tapped(**options: Any) -> Any:
        async for event in stream(**options):
            if isinstance(event, ReviewRequestEvent):
                asked.append(event.request)
            yield event

    handler.stream_events = tapped  # type: ignore[method-assign]
    result = await review_in_console(
        handler,
        reviewer="erin",
        stdin=io.StringIO("approve\n"),
        stdout=stdout,
        wait_for_others=True,
    )
    assert result == "paid"
    assert "Pay — approved. erin, bob approved it." in stdout.getvalue()


class Person(io.StringIO):
    """Somebody who types when told to, however long that takes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: queue.Queue[str] = queue.Queue()
        self.waits = threading.Event()

    def readline(self, size: int = -1, /) -> str:
        self.waits.set()
        return self.lines.get(timeout=10)


class Ticked(Event):
    number: int = 2


class Busy(Workflow):
    """One step waits for a person, another one works on until it has seen them wait."""

    person: ClassVar[Person]

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Amount | Ticked | None:
        ctx.send_event(Amount(number=1))
        ctx.send_event(Ticked())
        return None

    check = Review(Amount, title="Pay")

    @step
    async def work(self, ctx: Context, ev: Ticked) -> None:
        await asyncio.to_thread(self.person.waits.wait, 10)
        for _ in range(100):
            await asyncio.sleep(0)
        gc.collect()
        ctx.write_event_to_stream(Written(message="worked on"))
        self.person.lines.put("approve\n")

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        return StopEvent(result="paid")


async def test_the_run_goes_on_while_a_person_thinks() -> None:
    Busy.person = Person()
    result, shown = await run_through(Busy(timeout=None), stdin=Busy.person)
    assert result == "paid"
    # Nobody is talked over: it is shown once they have answered.
    assert "Decision (erin): approve\nWritten: worked on\n" in shown


class Newer(Workflow):
    """A newer draft of the same thing supersedes the open request for the older one."""

    screen: ClassVar[Screen]

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Amount | Ticked | None:
        for number in (1, 2):
            ctx.send_event(Amount(number=number))
        return None

    check = Review(
        Amount,
        key="number",
        title=lambda workflow, event: f"Pay {event.number}",
        rejected=Rejected,
    )

    @step
    async def again(self, ctx: Context, ev: Ticked) -> Amount:
        return Amount(number=ev.number)

    @step
    async def finish(self, ctx: Context, ev: Approved | Rejected) -> StopEvent | None:
        return StopEvent(result="done") if ctx.collect_events(ev, [Approved, Rejected]) else None


async def test_a_superseded_request_in_the_queue_is_skipped_with_a_note() -> None:
    handler = Newer(timeout=None).run()
    person = Person()

    async def renew() -> None:
        await asyncio.to_thread(person.waits.wait, 10)
        handler.ctx.send_event(Ticked())
        for _ in range(1000):
            await asyncio.sleep(0)
        for line in ("approve", "reject"):
            person.lines.put(f"{line}\n")

    stdout = io.StringIO()
    renewing = asyncio.create_task(renew())
    result = await review_in_console(handler, reviewer="erin", stdin=person, stdout=stdout)
    await renewing
    assert result == "done"
    assert "Skipped: Pay 2 — " in stdout.getvalue()
    assert "asks about a newer draft" in stdout.getvalue()
    assert stdout.getvalue().count("Decision (erin): ") == 2


async def test_what_is_closed_while_it_is_asked_takes_no_answer() -> None:
    handler = Newer(timeout=None).run()
    person = Person()
    stdout = Screen("Nothing was sent", lambda: [person.lines.put(line) for line in typed])
    # The first line is typed for what has been closed: it must not count for what comes next.
    typed = ["approve\n", "reject: second\n", "approve: third\n"]

    async def renew() -> None:
        await asyncio.to_thread(person.waits.wait, 10)
        handler.ctx.send_event(Ticked(number=1))

    renewing = asyncio.create_task(renew())
    result = await review_in_console(handler, reviewer="erin", stdin=person, stdout=stdout)
    await renewing
    shown = stdout.getvalue()
    assert result == "done"
    assert re.search("Nothing was sent: check-.* asks about a newer draft.", shown)
    assert [*re.findall("Pay (\\d) — (\\w+)", shown)] == [
        ("1", "superseded"),
        ("2", "rejected"),
        ("1", "approved"),
    ]


class Unattended(Workflow):
    """Waits for something that nobody is asked for."""

    @step
    async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.wait_for_event(Ticked, timeout=None)
        return StopEvent(result="ticked")


async def test_a_run_that_nobody_else_refers_to_is_kept_alive() -> None:
    handlers: list[weakref.ref[Any]] = []
    results: list[Any] = []

    async def go() -> None:
        handler = Unattended(timeout=None).run()
        handlers.append(weakref.ref(handler))
        options: Any = {"reviewer": "erin", "stdin": io.StringIO(), "stdout": io.StringIO()}
        results.append(await review_in_console(handler, **options))

    asyncio.create_task(go())  # noqa: RUF006 - to see what happens when nobody keeps it
    for _ in range(200):
        await asyncio.sleep(0)
    gc.collect()
    handler = handlers[0]()
    assert handler is not None
    handler.ctx.send_event(Ticked())
    for _ in range(1000):
        await asyncio.sleep(0)
        if results:
            break
    assert results == ["ticked"]


async def test_what_is_settled_elsewhere_is_not_waited_for() -> None:
    handler = Newer(timeout=None).run()
    person, stdout = Person(), io.StringIO()

    async def renew() -> None:
        await asyncio.to_thread(person.waits.wait, 10)
        await handler.cancel_run()

    renewing = asyncio.create_task(renew())
    with pytest.raises(WorkflowCancelledByUser):
        await review_in_console(handler, reviewer="erin", stdin=person, stdout=stdout)
    await renewing
    person.lines.put("")  # let the thread go
    assert "Nothing was sent: the run has ended." in stdout.getvalue()
    assert "Not asked any more: Pay 2" in stdout.getvalue()


class Limited(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Amount:
        return Amount(number=1)

    check = Review(Amount, title="Pay", deadline=timedelta(hours=1), clock=lambda: NOW)

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        return StopEvent(result="paid")


async def test_a_missed_deadline_closes_the_request_and_is_no_decision() -> None:
    late = NOW + timedelta(hours=1)
    result, shown = await run_through(Limited(timeout=None), "approve", clock=lambda: late)
    assert isinstance(result, Expired)
    assert "Too late: the deadline of 'Pay' has passed." in shown
    assert "Pay — expired." in shown


class Failing(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Amount:
        return Amount(number=1)

    check = Review(Amount)

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        raise RuntimeError("no money")


async def test_what_the_run_fails_with_is_raised() -> None:
    with pytest.raises(RuntimeError, match="no money"):
        await run_through(Failing(timeout=None), "approve")


class Asking(Workflow):
    """A workflow that knows nothing of this package."""

    @step
    async def begin(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Your [b]colour[/b]?\x1b[2J ")

    @step
    async def end(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


async def test_a_plain_question_gets_the_very_text() -> None:
    result, shown = await run_through(Asking(timeout=None), "", "  deep blue \\ ")
    assert result == "  deep blue \\ "
    assert "Your [b]colour[/b]?␛[2J" in shown
    assert "An empty line answers nothing. Type your answer." in shown


async def test_a_plain_question_can_be_left() -> None:
    result, shown = await run_through(Asking(timeout=None), "")
    assert isinstance(result, Unanswered)
    assert result.request_id == "InputRequiredEvent"
    assert "the question stays open" in shown


class NameNeeded(InputRequiredEvent):
    user: str


class Waiting(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(
            HumanResponseEvent,
            waiter_event=NameNeeded(user="ana", topic="x"),
            requirements={"user": "ana", "topic": "x"},
        )
        return StopEvent(result=answer.response)


async def test_a_question_with_requirements_is_answered_with_what_it_carries() -> None:
    result, shown = await run_through(Waiting(timeout=None), "hello")
    assert result == "hello"
    assert "  Name needed\n  user: ana\n  topic: x\n" in shown


async def test_a_rule_that_decided_is_named() -> None:
    class Small(Quorum):
        check = Quorum.check.replace(when=always("approve", reason="it is small"))

    result, shown = await run_through(Small(timeout=None))
    assert result == "paid"
    assert "Pay — approved. it is small (rule:always approve)" in shown


# --------------------------------------------------------------------------- a real terminal


CHILD = """
import asyncio, os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))  # makes it the controlling terminal: Ctrl-C reaches us
sys.path[:0] = [{tests!r}, {root!r}]
import warnings; warnings.simplefilter("error")
from test_console import Publishing, review_in_console, Unanswered
async def main():
    return await review_in_console(Publishing(timeout=None).run(), reviewer="erin")
try:
    result = asyncio.run(main())
    sys.stdout.write(f"RESULT {{result.title}}\\n")
except Unanswered as error:
    sys.stdout.write(f"UNANSWERED {{error.reason}}\\n")
"""


class Child:
    """A program at a real pseudo-terminal."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.master, slave = os.openpty()
        code = CHILD.format(tests=str(ROOT / "tests"), root=str(ROOT))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"} | environment,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        """Read until a text comes, colours aside; what comes after it stays for the next."""
        until = time.monotonic() + 15
        while text not in self.seen:
            ready = select.select([self.master], [], [], max(0, until - time.monotonic()))[0]
            assert ready, f"{text!r} did not come:\n{self.seen}"
            try:
                read = os.read(self.master, 65_536).decode()
            except OSError:
                read = ""
            assert read, f"the program ended before {text!r}:\n{self.seen}"
            self.seen += re.sub(r"\x1b\[[0-9;]*m", "", read).replace("\r\n", "\n")
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        with suppress(OSError):
            os.close(self.master)


@contextmanager
def child(**environment: str) -> Iterator[Child]:
    made = Child(environment)
    try:
        yield made
    finally:
        made.close()


needs_terminals = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")


@needs_terminals
def test_at_a_terminal_enter_never_approves_and_ctrl_c_leaves_it_open() -> None:
    with child() as program:
        program.type("approve\n")  # typed before anything was asked: it must not count
        program.expect("Decision (erin): ")
        program.type("\n")
        program.expect("Nothing was decided. Type approve, reject or revise.")
        program.expect("Decision (erin): ")
        program.type("\n")
        program.expect("Nothing was decided.")
        program.expect("Decision (erin): ")
        program.type("approv\x03")
        program.expect("Left unanswered: 'Legal check' stays open; nothing was decided.")
        program.expect("UNANSWERED it was interrupted")
        assert program.process.wait(10) == 0


@needs_terminals
def test_at_a_terminal_an_editor_is_opened_and_may_use_ctrl_c(tmp_path: Path) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, signal, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: print('EDITOR INTERRUPTED', flush=True))\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "print('EDITING', flush=True)\n"
        "file.write_text(file.read_text().replace('On tests', input()))\n"
    )
    with child(VISUAL=f"{sys.executable} -S {editor}") as program:
        program.expect("Decision (erin): ")
        program.type("APPROVE\n")
        program.expect("Last look")
        program.expect("Decision (erin): ")
        program.type("4\n")
        program.expect("EDITING")
        program.type("\x03")
        program.expect("EDITOR INTERRUPTED")
        program.type("A better title\n")
        program.expect("Your changes")
        program.expect("Type edit to send it so, or back: ")
        program.type("\n")
        program.expect("Nothing was sent.")
        program.expect("or back: ")
        program.type("edit\n")
        program.expect("RESULT A better title")
        assert program.process.wait(10) == 0


def test_an_open_pipe_without_input_does_not_keep_the_program_alive() -> None:
    code = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path[:0] = [{str(ROOT / "tests")!r}, {str(ROOT)!r}]
        from test_console import Publishing, review_in_console
        async def main():
            async with asyncio.timeout(0.2):
                await review_in_console(Publishing(timeout=None).run(), reviewer="erin")
        try:
            asyncio.run(main())
        except TimeoutError:
            sys.stdout.write("ENDED")
        """
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert program.stdout is not None
    assert program.stdin is not None
    assert program.wait(15) == 0
    assert program.stdout.read().endswith(b"ENDED")
    program.stdin.close()
    program.stdout.close()
