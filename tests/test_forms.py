"""Fields of a request, and the one parser from raw input to an answer."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from llama_index_hitl.errors import FieldProblem, InvalidAnswer
from llama_index_hitl.forms import (
    check_decision,
    decisions_of,
    fields_of,
    fields_of_schema,
    parse_answer,
    parse_form,
)
from llama_index_hitl.models import (
    Approve,
    DecisionKind,
    Edit,
    GrantOffer,
    Respond,
    Reviewer,
    ReviewRequest,
    Subject,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ERIN = Reviewer(id="erin", roles=("legal",))


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    street: str
    number: int = 1


class Thing(BaseModel):
    """Everything that a form can have."""

    name: str = Field(description="What it is called.")
    size: Literal["s", "m"]
    colour: Colour = Colour.RED
    count: int
    price: float | None = None
    ready: bool = False
    place: Inner = Inner(street="Main")
    notes: list[str] = []
    text: str = Field(default="", json_schema_extra={"format": "markdown"})
    code: str = Field(default="", json_schema_extra={"format": "code", "language": "sql"})


THING = Thing(name="box", size="m", count=3)


def request(**changes: Any) -> ReviewRequest:
    values: dict[str, Any] = {
        "request_id": "gate-1",
        "title": "A thing",
        "created_at": NOW,
        "subject": Subject(
            type="Thing", data=THING.model_dump(mode="json"), json_schema=Thing.model_json_schema()
        ),
        "response_schema": Thing.model_json_schema(),
        "escalate_to": ("role:chief", "carl"),
        "allowed": tuple(DecisionKind),
    }
    return ReviewRequest(**{**values, **changes})


def parse(raw: Any, asked: ReviewRequest | None = None) -> Any:
    return parse_answer(asked or request(), raw, by=ERIN, at=NOW, channel="test").decision


def problems(raw: Any, asked: ReviewRequest | None = None) -> dict[str, str]:
    with pytest.raises(InvalidAnswer) as caught:
        parse(raw, asked)
    return {problem.field: problem.message for problem in caught.value.problems}


# --------------------------------------------------------------------------- fields


def test_decisions_are_offered_in_one_order_whatever_the_request_says() -> None:
    asked = request(allowed=(DecisionKind.REJECT, DecisionKind.APPROVE))
    assert decisions_of(asked) == (DecisionKind.APPROVE, DecisionKind.REJECT)


def test_an_approval_needs_nothing_but_may_have_a_comment() -> None:
    (comment,) = fields_of(request(), DecisionKind.APPROVE)
    assert (comment.name, comment.required) == ("comment", False)


def test_fields_of_an_edit_come_from_the_schema_and_start_from_the_present_values() -> None:
    fields = {field.name: field for field in fields_of(request(), DecisionKind.EDIT)}
    assert fields["subject.name"].help == "What it is called."
    assert fields["subject.name"].value == "box"
    assert fields["subject.name"].required
    assert fields["subject.size"].choices == ("s", "m")
    assert fields["subject.colour"].choices == ("red", "blue")
    assert fields["subject.count"].widget == "integer"
    assert fields["subject.price"].widget == "number"
    assert fields["subject.ready"].widget == "boolean"
    assert fields["subject.place"].widget == "json"
    assert fields["subject.text"].widget == "markdown"
    assert (fields["subject.code"].widget, fields["subject.code"].language) == ("code", "sql")
    assert not fields["subject.price"].required


def test_a_response_that_is_no_object_is_one_field() -> None:
    asked = request(response_schema={"type": "integer", "title": "Age"})
    field, _ = fields_of(asked, DecisionKind.RESPOND)
    assert (field.name, field.label, field.widget) == ("response", "Age", "integer")
    assert parse({"decision": "respond", "response": "42"}, asked) == Respond(response=42)


def test_a_field_is_called_by_its_own_name_and_not_by_that_of_its_class() -> None:
    schema = {
        "type": "object",
        "$defs": {"Kind": {"title": "Kind", "enum": ["bus", "train"]}},
        "properties": {"there_by": {"$ref": "#/$defs/Kind"}, "back_by": {"$ref": "#/$defs/Kind"}},
    }
    asked = request(response_schema=schema)
    there, back, _ = fields_of(asked, DecisionKind.RESPOND)
    assert (there.label, back.label, there.choices) == ("There by", "Back by", ("bus", "train"))


def test_undeclared_fields_of_a_subject_can_be_edited_too() -> None:
    asked = request(subject=Subject(type="Loose", data={"text": "a\nb", "n": 1}))
    fields = {field.name: field.widget for field in fields_of(asked, DecisionKind.EDIT)}
    assert fields == {"subject.text": "textarea", "subject.n": "json", "comment": "textarea"}
    edited = parse({"decision": "edit", "subject.text": "c"}, asked)
    assert edited == Edit(subject={"text": "c", "n": 1})


# --------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("approve", "approve", None),
        ("  APPROVE \n", "approve", None),
        ("approve: looks good", "approve", "looks good"),
        ("reject:too dear", "reject", "too dear"),
        ("abstain", "abstain", None),
        ("approve:", "approve", None),
    ],
)
def test_one_exact_word_is_a_decision(text: str, kind: str, words: str | None) -> None:
    decision = parse(text)
    assert (decision.kind, decision.comment) == (kind, words)


def test_text_after_revise_is_the_feedback() -> None:
    assert parse("revise: shorter: please").feedback == "shorter: please"


def test_text_after_delegate_and_escalate() -> None:
    assert parse("delegate: carl").to == "carl"
    assert parse("escalate: urgent").comment == "urgent"
    assert parse({"decision": "escalate", "to": "carl, role:chief"}).to == ("carl", "role:chief")


@pytest.mark.parametrize(
    "text",
    ["", " ", "yes", "y", "ok", "approved", "I approve", "approve it", "This is NOT approved.",
     "appro\u200bve", "\u0430pprove", "true", "1", "LGTM", "approve\x00", "approve reject"],
)  # fmt: skip
def test_nothing_else_is_consent(text: str) -> None:
    assert "decision" in problems(text)


@given(st.text(max_size=40))
def test_only_the_word_itself_ever_approves(text: str) -> None:
    try:
        decision = parse(text)
    except InvalidAnswer:
        return
    if isinstance(decision, Approve):
        assert text.strip().partition(":")[0].strip().lower() == "approve"


def test_a_decision_that_is_not_allowed_is_named_with_those_that_are() -> None:
    found = problems("edit", request(allowed=(DecisionKind.APPROVE, DecisionKind.REJECT)))
    assert found["decision"] == "'edit' is not one of: approve, reject"


def test_revise_without_feedback_says_which_field_is_missing() -> None:
    assert "feedback" in problems("revise")
    assert "feedback" in problems({"decision": "revise", "feedback": "  "})


# --------------------------------------------------------------------------- forms


def test_strings_of_a_form_become_what_the_schema_says() -> None:
    decision = parse(
        {
            "decision": "edit",
            "subject.count": "12",
            "subject.price": "2.5",
            "subject.ready": "on",
            "subject.size": "s",
            "subject.place": '{"street": "Side", "number": 2}',
            "subject.notes": '["a"]',
            "comment": "",
        }
    )
    assert decision.subject == {
        **THING.model_dump(mode="json"),
        "count": 12,
        "price": 2.5,
        "ready": True,
        "size": "s",
        "place": {"street": "Side", "number": 2},
        "notes": ["a"],
    }
    assert decision.comment is None


def test_an_edit_keeps_what_it_does_not_mention_and_takes_nested_values() -> None:
    decision = parse({"decision": "edit", "subject": {"name": "bag"}})
    assert decision.subject == {**THING.model_dump(mode="json"), "name": "bag"}


def test_every_bad_field_is_named_at_once() -> None:
    found = problems(
        {
            "decision": "edit",
            "subject.count": "many",
            "subject.ready": "perhaps",
            "subject.size": "xl",
        }
    )
    assert found == {
        "subject.count": "this must be a whole number",
        "subject.ready": "this must be true or false",
        "subject.size": "choose one of: s, m",
    }


def test_values_are_checked_against_the_schema() -> None:
    found = problems({"decision": "edit", "subject.place": {"street": 5, "number": "x"}})
    assert set(found) == {"subject.place.street", "subject.place.number"}
    assert "subject.count" in problems({"decision": "edit", "subject.count": 1.5})


def test_a_misspelt_field_is_refused_by_name() -> None:
    assert problems({"decision": "edit", "subject.cuont": 5}) == {
        "subject.cuont": "there is no such field"
    }
    assert "coment" in problems({"decision": "approve", "coment": "x"})


def test_a_response_is_checked_field_by_field() -> None:
    found = problems({"decision": "respond", "response.name": "x", "response.count": "1"})
    assert any("size" in message for message in found.values())
    decision = parse({"decision": "respond", "response": {"name": "x", "size": "s", "count": 2}})
    assert decision.response == {"name": "x", "size": "s", "count": 2}


def test_empty_optional_inputs_are_as_if_not_there() -> None:
    decision = parse(
        {
            "decision": "respond",
            "response.name": "x",
            "response.size": "s",
            "response.count": "1",
            "response.price": "",
        }
    )
    assert "price" not in decision.response


def test_json_text_is_a_whole_form() -> None:
    assert parse('{"decision": "approve", "comment": "ok"}') == Approve(comment="ok")
    assert parse({"decision": {"kind": "approve", "comment": "ok"}}) == Approve(comment="ok")


@pytest.mark.parametrize("text", ["{", '{"decision": "approve"', "{}", '{"decision": null}'])
def test_broken_json_is_refused(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    "raw",
    [{"decision": ["approve"]}, {"decision": {"kind": ["approve"]}}, {"decision": True},
     {"decision": {}}, {"decision": "approve", "kind": "reject"}, {"decision": 1}, {}],
)  # fmt: skip
def test_a_decision_of_another_shape_is_refused(raw: Any) -> None:
    assert problems(raw)


def test_a_huge_value_gives_a_short_message() -> None:
    found = problems({"decision": "edit", "subject.count": ["x" * 1_000_000]})
    assert all(len(message) < 400 for message in found.values())


def test_a_schema_that_points_elsewhere_is_never_fetched() -> None:
    asked = request(response_schema={"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(InvalidAnswer, match="cannot be checked"):
        check_decision(asked, Respond(response={"a": 1}))


def test_a_role_that_is_not_held_is_refused_at_its_field() -> None:
    with pytest.raises(InvalidAnswer, match="does not hold the role"):
        parse_answer(request(), "approve", by=ERIN, at=NOW, role="chief")


def test_the_answer_carries_who_when_where_and_about_what() -> None:
    asked = request()
    answer = parse_answer(asked, "approve", by=ERIN, at=NOW, channel="web", role="legal")
    assert (answer.request_id, answer.digest) == (asked.request_id, asked.digest)
    assert (answer.by, answer.role, answer.channel, answer.at) == (ERIN, "legal", "web", NOW)


class TestHidden:
    """What somebody does not see of a subject they neither change nor find out."""

    def request(self) -> ReviewRequest:
        subject = Subject(
            type="Pay",
            data={"salary": 5000, "to": {"name": "Ann", "iban": "DE1"}, "free": 7},
            json_schema={"type": "object", "properties": {"salary": {"type": "integer"}}},
        )
        return ReviewRequest(
            request_id="r1",
            title="Pay?",
            subject=subject,
            allowed=(DecisionKind.APPROVE, DecisionKind.EDIT),
            grantable=GrantOffer(tool="pay", version="1"),
            created_at=NOW,
        )

    def shown(self) -> Subject:
        subject = self.request().subject
        assert subject is not None
        data = {"salary": "•••", "to": {"name": "Ann", "iban": "•••"}, "free": 7}
        return subject.model_copy(update={"data": data})

    def parsed(self, raw: dict[str, Any]) -> Any:
        request = self.request()
        return parse_answer(
            request, raw, by=Reviewer(id="ann"), at=NOW, shown=self.shown()
        ).decision

    def test_an_edit_keeps_it(self) -> None:
        changes = {"to": {"name": "Bob"}, "salary": "•••"}
        edit = self.parsed({"decision": "edit", "subject": changes})
        assert edit.subject == {"salary": 5000, "to": {"name": "Bob", "iban": "DE1"}, "free": 7}

    def test_an_edit_cannot_change_it(self) -> None:
        for name, value in (("salary", 1), ("salary", "1"), ("to", {"iban": "DE2"}), ("to", None)):
            with pytest.raises(InvalidAnswer) as refused:
                self.parsed({"decision": "edit", "subject": {name: value}})
            assert [p.field for p in refused.value.problems] == [f"subject.{name}"]

    def test_a_limit_on_it_does_not_tell_how_large_it_is(self) -> None:
        said = set()
        for limit in (1, 10_000):
            terms = {"arguments": "any", "at_most": {"salary": limit}}
            with pytest.raises(InvalidAnswer) as refused:
                self.parsed({"decision": "approve", "grant": terms})
            said.add(str(refused.value))
        assert len(said) == 1
        terms = {"arguments": "any", "at_most": {"free": 10}}
        assert self.parsed({"decision": "approve", "grant": terms}).grant is not None


class TestForm:
    """Any object has a form, such as what a run is started with."""

    schema = Thing.model_json_schema()

    def test_its_fields_are_those_of_its_schema(self) -> None:
        names = [field.name for field in fields_of_schema(self.schema)]
        assert names == list(Thing.model_fields)
        prefixed = fields_of_schema(self.schema, prefix="thing", data={"name": "x", "more": 1})
        assert (prefixed[0].name, prefixed[0].value) == ("thing.name", "x")
        assert (prefixed[-1].name, prefixed[-1].value) == ("thing.more", 1)

    def test_texts_become_what_they_mean_and_empty_ones_are_left_out(self) -> None:
        typed = {"name": "x", "size": "s", "count": "3", "price": ""}
        found, problems = parse_form(self.schema, typed)
        assert (found, problems) == ({"name": "x", "size": "s", "count": 3}, ())

    def test_all_that_is_wrong_is_told_by_its_field(self) -> None:
        _, problems = parse_form(self.schema, {"size": "s", "cuont": 1})
        assert {problem.field for problem in problems} == {"name", "count", "cuont"}
        _, problems = parse_form(self.schema, {"name": "x", "size": "xl", "count": "many"})
        assert FieldProblem("count", "this must be a whole number") in problems
        assert {problem.field for problem in problems} == {"size", "count"}

    def test_without_a_schema_it_takes_any_fields(self) -> None:
        assert parse_form({}, {"a": 1, "b": ""}) == ({"a": 1, "b": ""}, ())


def test_a_yes_or_no_that_is_left_open_is_not_a_no() -> None:
    class Kept(BaseModel):
        keep: bool
        tell: bool = True

    schema = Kept.model_json_schema()
    found, (problem,) = parse_form(schema, {"keep": "", "tell": ""})
    assert (found, problem.field, problem.message) == ({}, "keep", "this must be true or false")
    assert parse_form(schema, {"keep": "false", "tell": ""}) == ({"keep": False}, ())
