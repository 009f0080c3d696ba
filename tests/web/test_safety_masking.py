"""What is hidden from somebody is hidden wherever it stands, and stays as it is when they edit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import BaseModel, Field

from llama_index_hitl.models import (
    Answer,
    Approve,
    Edit,
    GrantTerms,
    Outcome,
    Reject,
    RequestStatus,
    Reviewer,
    ReviewPolicy,
    ReviewRecord,
    ReviewRequest,
    RuleResult,
    RuleVerdict,
    StageApproval,
    Subject,
)
from llama_index_hitl.rendering import diff_of
from llama_index_hitl.stores.protocol import Run, RunStatus, StoredRequest
from llama_index_hitl.web._masking import masked_record
from llama_index_hitl.web._views import detail_of
from llama_index_hitl.web.visibility import HIDDEN, Visibility, masked, masked_value

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ANN, BOB, ROB = Reviewer(id="ann"), Reviewer(id="bob"), Reviewer(id="rule:limit", kind="rule")


class Item(BaseModel):
    name: str = "thing"
    price: int = Field(default=424242, examples=[424242], description="What it costs.")


class Free(BaseModel):
    name: str = "free"
    price: int = 0


class Order(BaseModel):
    payee: str = "ACME"
    salary: int = Field(default=313131, examples=[313131])
    items: list[Item] = Field(default=[Item()], examples=[[{"name": "x", "price": 424242}]])
    by_name: dict[str, Item] = Field(default_factory=dict)
    spare: Item | None = None
    free: Free = Free()


SECRETS = ("424242", "313131")
DATA = {
    "payee": "ACME",
    "salary": 313131,
    "items": [{"name": "a", "price": 424242}, {"name": "b", "price": 424242}],
    "by_name": {"a": {"name": "a", "price": 424242}},
    "spare": {"name": "s", "price": 424242},
    "free": {"name": "f", "price": 0},
}
HIDE = ("salary", "items.*.price", "by_name.*.price", "spare.price")


def subject(**changes: object) -> Subject:
    schema = Order.model_json_schema()
    return Subject(type="Order", data={**DATA, **changes}, json_schema=schema)


def record_with_everything() -> ReviewRecord:
    def answer(by: Reviewer, decision: object) -> Answer:
        return Answer(request_id="r", digest="d", decision=decision, by=by, at=NOON)

    grant = GrantTerms(
        at_most={"salary": Decimal(313131), "free.price": Decimal(7)},
        in_total={"items.0.price": Decimal(424242)},
    )
    edit = Edit(subject={**DATA, "payee": "Umbrella"})
    rule = RuleResult(verdict=RuleVerdict.ASK, rule="limit", reason="salary is 313131")
    request = ReviewRequest(
        request_id="r",
        title="Pay?",
        subject=subject(),
        previous=subject(salary=3131310, payee="Old"),
        created_at=NOON,
        rule=rule,
        approvals=(StageApproval(stage="one", request_id="q", answers=(answer(ANN, edit),)),),
    )
    outcome = Outcome(
        status=RequestStatus.REJECTED, decided_by=("rule:limit",), reason="salary is 313131"
    )
    return ReviewRecord(
        request=request,
        policy=ReviewPolicy(),
        outcome=outcome,
        answers=(
            answer(ANN, edit),
            answer(BOB, Approve(grant=grant)),
            answer(ROB, Reject(comment="salary is 313131")),
        ),
    )


class Hiding(Visibility):
    def hidden_fields(self, person: Reviewer, request: ReviewRequest) -> tuple[str, ...]:
        return () if "payroll" in person.roles else HIDE


def stored(record: ReviewRecord) -> StoredRequest:
    return StoredRequest(run_id="run", record=record)


def test_a_hidden_value_is_nowhere_in_what_is_shown() -> None:
    record = record_with_everything()
    assert all(secret in record.model_dump_json() for secret in SECRETS)

    shown = Hiding().shown(ANN, stored(record))
    assert shown is not None

    everything = shown.record.model_dump_json() + detail_of(shown, ANN, NOON).model_dump_json()
    assert not [secret for secret in SECRETS if secret in everything]
    assert "Umbrella" in everything
    assert shown.record.answers[1].decision.grant.at_most == {"free.price": 7}


def test_who_may_see_all_sees_it_as_it_is_stored() -> None:
    record = record_with_everything()
    payroll = Reviewer(id="pam", roles=("payroll",))
    assert Hiding().shown(payroll, stored(record)).record == record


def test_what_changed_is_told_of_what_is_seen_only() -> None:
    shown = masked_record(record_with_everything(), HIDE)
    assert [change.field for change in diff_of(shown.request)] == ["payee"]
    assert diff_of(record_with_everything().request)[1].field == "salary"


def test_the_digest_of_what_is_shown_is_that_of_what_is_stored() -> None:
    record = record_with_everything()
    assert masked_record(record, HIDE).request.digest == record.request.digest


def test_paths_go_through_lists_and_maps_with_and_without_a_star() -> None:
    data = {"items": [{"price": 1, "n": 2}, [{"price": 3}]], "map": {"k": {"price": 4}}}
    hidden = {"items": [{"price": HIDDEN, "n": 2}, [{"price": HIDDEN}]]}
    assert masked_value(data, ["items.price"]) == {**data, **hidden}
    assert masked_value(data, ["items.*.price"])["items"][0] == {"price": HIDDEN, "n": 2}
    assert masked_value(data, ["items.0.price"])["items"] == [
        {"price": HIDDEN, "n": 2},
        [{"price": HIDDEN}],  # the first item of the second item
    ]
    assert masked_value(data, ["map.*.price"])["map"] == {"k": {"price": HIDDEN}}
    assert masked_value(data, ["items"])["items"] == HIDDEN
    assert masked_value(data, ["nothing.here"]) == data


def test_a_field_with_a_dot_in_its_name_is_hidden_too() -> None:
    assert masked_value({"a.b": {"c": 1}}, ["a.b.c"]) == {"a.b": {"c": HIDDEN}}
    assert masked_value({"a.b": 1, "a": 2}, ["a.b"]) == {"a.b": HIDDEN, "a": 2}


def test_a_hidden_null_is_hidden() -> None:
    assert masked_value({"a": None}, ["a"]) == {"a": HIDDEN}


def test_a_schema_says_nothing_of_a_hidden_field_and_all_of_the_others() -> None:
    schema = masked(subject(), HIDE).json_schema
    assert not [secret for secret in SECRETS if secret in json.dumps(schema["properties"])]
    assert schema["properties"]["salary"] == {"title": "Salary"}
    assert schema["properties"]["payee"] == {"default": "ACME", "title": "Payee", "type": "string"}
    item = schema["properties"]["items"]["items"]["properties"]
    assert item["price"] == {"title": "Price", "description": "What it costs."}
    assert item["name"]["type"] == "string"
    assert list(schema["$defs"]) == ["Free"]


def test_fields_of_the_same_model_that_are_not_hidden_stay_as_they_are() -> None:
    class Two(BaseModel):
        one: Item
        other: Item

    both = {"one": {"name": "a", "price": 1}, "other": {"name": "b", "price": 2}}
    two = Subject(type="Two", data=both, json_schema=Two.model_json_schema())
    shown = masked(two, ["one.price"])
    assert shown.data == {"one": {"name": "a", "price": HIDDEN}, "other": both["other"]}
    one, other = (shown.json_schema["properties"][name] for name in ("one", "other"))
    assert "type" not in one["properties"]["price"]
    assert other == {"$ref": "#/$defs/Item"}
    assert shown.json_schema["$defs"] == two.json_schema["$defs"]


def test_a_definition_that_only_hidden_fields_use_is_left_out() -> None:
    class Only(BaseModel):
        item: Item = Item()

    only = Subject(type="Only", data={"item": {}}, json_schema=Only.model_json_schema())
    schema = masked(only, ["item.price"]).json_schema
    assert "$defs" not in schema
    assert "424242" not in json.dumps(schema)


def test_a_model_that_holds_itself_can_be_hidden_from() -> None:
    class Tree(BaseModel):
        name: str = "424242"
        children: list[Tree] = []

    Tree.model_rebuild(_types_namespace={"Tree": Tree})
    tree = Subject(type="Tree", data={}, json_schema=Tree.model_json_schema())
    for path in ("children.name", "*.name", "children.*.children.*.name", "name"):
        assert masked(tree, [path]).json_schema

    endless = {
        "$ref": "#/$defs/X",
        "$defs": {"X": {"type": "array", "items": {"$ref": "#/$defs/X"}}},
    }
    assert masked(Subject(type="X", data={}, json_schema=endless), ["a.b"]).json_schema


def test_what_a_run_says_is_shown_to_those_only_who_see_all_of_what_it_asked() -> None:
    requests = [stored(record_with_everything())]
    run = Run(
        run_id="run", workflow="pay", status=RunStatus.WAITING, created_at=NOON, updated_at=NOON
    )
    payroll = Reviewer(id="pam", roles=("payroll",))
    assert not Hiding().sees_content(ANN, run, requests)
    assert Hiding().sees_content(payroll, run, requests)
    assert Visibility().sees_content(ANN, run, requests)
