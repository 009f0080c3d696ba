"""Answers over HTTP: taken once, refused with a reason, one by one and several at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from invoices import Desk, failure, fields

from llama_index_hitl import Reviewer
from llama_index_hitl.authorizers import Action
from llama_index_hitl.errors import StoreError
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import Commit
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import create_app

ALICE, BOB = "alice:finance", "bob:finance"


async def test_an_answer_is_taken_and_the_run_goes_on_to_its_end(desk: Desk) -> None:
    run_id, request = await desk.start("invoice")
    response = await desk.answer(ALICE, request, comment="As agreed.")
    receipt = response.json()
    assert response.status_code == 200
    assert (receipt["run_id"], receipt["number"], receipt["decides"]) == (run_id, 1, True)
    taken = receipt["answer"]
    assert (taken["by"]["id"], taken["channel"], taken["digest"]) == (
        "alice",
        "api",
        request["digest"],
    )
    assert taken["decision"] == {"kind": "approve", "comment": "As agreed."}
    await desk.settled()
    result = await desk.get("frank", f"/runs/{run_id}/result")
    assert result.json() == {"run_id": run_id, "result": {"paid": 1200, "to": "DE89-SECRET"}}


async def test_the_same_answer_again_gets_the_same_receipt(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    first = await desk.answer(ALICE, request, comment="ok")
    again = await desk.answer(ALICE, request, comment="ok")
    assert (again.status_code, again.json()) == (200, first.json())
    assert len((await desk.runner.get(request["request_id"])).answers) == 1


async def test_another_answer_is_refused_saying_who_was_first_and_when(
    desk: Desk, clock: ManualClock
) -> None:
    _, request = await desk.start("invoice")
    await desk.answer(ALICE, request)
    clock.advance(hours=1)
    for person, decision in ((BOB, "approve"), (BOB, "reject"), (ALICE, "reject")):
        refused = await desk.answer(person, request, decision)
        error = failure(refused, 409, "already_answered")
        assert (error["by"], error["at"]) == ("alice", "2026-03-02T12:00:00Z")
        assert error["request_id"] == request["request_id"]


async def test_of_two_at_the_same_time_one_wins_and_the_other_sees_who(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    responses = await asyncio.gather(
        desk.answer(ALICE, request, "approve"), desk.answer(BOB, request, "reject")
    )
    assert sorted(response.status_code for response in responses) == [200, 409]
    won, lost = sorted(responses, key=lambda response: response.status_code)
    winner = won.json()["answer"]["by"]["id"]
    assert failure(lost, 409, "already_answered")["by"] == winner
    assert len((await desk.runner.get(request["request_id"])).answers) == 1


async def test_an_answer_about_something_else_is_stale(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    stale = await desk.answer(ALICE, {**request, "digest": "0" * 64})
    assert failure(stale, 409, "stale_request")["request_id"] == request["request_id"]
    assert (await desk.runner.get(request["request_id"])).answers == ()


async def test_an_answer_that_comes_too_late_is_refused(desk: Desk, clock: ManualClock) -> None:
    _, request = await desk.start("invoice")
    clock.advance(days=2)
    for _ in range(2):  # before anybody has swept, and after
        failure(await desk.answer(ALICE, request), 410, "expired")
        await desk.runner.sweep()
    (row,) = (await desk.get(ALICE, "/requests", view="all", status="closed")).json()["items"]
    assert (row["status"], row["can_answer"]) == ("expired", False)


async def test_an_answer_to_what_another_request_has_taken_the_place_of_is_refused(
    desk: Desk,
) -> None:
    run_id, request = await desk.start("invoice")
    await desk.post("root:admin", f"/runs/{run_id}/cancel")
    failure(await desk.answer(ALICE, request), 410, "closed")


UNFIT: list[tuple[Any, dict[str, Any], str]] = [
    ("yes", {}, "decision"),
    ("", {}, "decision"),
    ("Approve", {}, "decision"),
    ("respond", {"response": "x"}, "decision"),
    ({"kind": "maybe"}, {}, "decision"),
    ({}, {}, "decision"),
    ("revise", {}, "feedback"),
    ("revise", {"feedback": "   "}, "feedback"),
    ("edit", {"subject": {"amount": "many"}}, "subject.amount"),
    ("edit", {"subject.amount": "many"}, "subject.amount"),
    ("edit", {"subject": {"amount": 0}}, "subject.amount"),
    ("edit", {"subject": {"colour": "red"}}, "subject.colour"),
    ("edit", {"subject": {"account": {"holder": "A"}}}, "subject.account.iban"),
    ("delegate", {}, "to"),
    ("delegate", {"to": "role:finance"}, "to"),
    ("delegate", {"to": "a\x00b"}, "to"),
    ("approve", {"surprise": 1}, "surprise"),
    ({"kind": "approve", "surprise": 1}, {}, "surprise"),
    ("approve", {"grant": {"arguments": "any"}}, "grant"),
    ("approve", {"kind": "reject"}, "decision"),
]


async def test_a_decision_that_does_not_fit_is_refused_by_its_field(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    for decision, rest, field in UNFIT:
        refused = await desk.answer(ALICE, request, decision, **rest)
        error = failure(refused, 422, "invalid_answer")
        assert fields(error) == [field], (decision, rest)
        assert all(problem["message"] for problem in error["problems"])
    assert (await desk.runner.get(request["request_id"])).answers == ()


async def test_an_edit_is_given_whole_by_parts_or_as_forms_do(desk: Desk) -> None:
    for decision, rest, amount in (
        ("edit", {"subject": {"amount": 7}}, 7),
        ("edit", {"subject.amount": "7"}, 7),
        ({"kind": "edit", "subject": {"amount": 7}}, {}, 7),
        ("edit", {}, 1200),
    ):
        run_id, request = await desk.start("invoice")
        response = await desk.answer(ALICE, request, decision, **rest)
        assert response.json()["answer"]["decision"]["subject"]["amount"] == amount
        await desk.settled()
        result = (await desk.get("frank", f"/runs/{run_id}/result")).json()["result"]
        assert result["paid"] == amount


UNCERTAIN = [
    '{"decision": "reject", "digest": "DIGEST", "decision": "approve"}',
    '{"digest": "x", "digest": "DIGEST", "decision": "approve"}',
    '{"decision": {"kind": "reject", "kind": "approve"}, "digest": "DIGEST"}',
    '{"decision": "approve", "digest": "DIGEST", "comment": NaN}',
    '{"decision": "approve", "digest": "DIGEST"',
    '{"decision": "approve", "digest": "DIGEST"} {}',
    "",
    "approve",
    "[]",
    '"approve"',
    "null",
    '{"decision": "approve"}',
    '{"digest": "DIGEST"}',
    '{"decision": "approve", "digest": null}',
    '{"decision": "approve", "digest": 7}',
    '{"decision": true, "digest": "DIGEST"}',
    '{"decision": "approve", "digest": "DIGEST", "comment": 7}',
    '{"decision": "approve", "digest": "DIGEST", "comment": "\\ud800"}',
    '{"decision": "\\ud800", "digest": "DIGEST"}',
    '{"decision": "approve", "digest": "DIGEST", "\\ud800": 1}',
    '{"decision": "approve", "digest": "DIGEST", "role": "chief"}',
    '{"decision": "edit", "digest": "DIGEST", "subject": {"amount": 1e999}}',
    '{"decision": "edit", "digest": "DIGEST", "subject": {"amount": ' + "9" * 5000 + "}}",
]


async def test_a_body_that_means_nothing_certain_is_refused(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    for body in UNCERTAIN:
        response = await desk.client_of(ALICE).post(
            f"/api/requests/{request['request_id']}/answer",
            content=body.replace("DIGEST", request["digest"]).encode(),
            headers={"Content-Type": "application/json"},
        )
        assert response.status_code == 422, body
        assert response.json()["error"]["type"] in ("invalid", "invalid_answer")
        assert (await desk.runner.get(request["request_id"])).answers == (), body


async def test_binary_is_no_answer(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    for content in (b'{"decision": "\xff"}', b"\x00\x01\x02", b"\xef\xbb\xbf{}"):
        for headers in ({"Content-Type": "application/json"}, {}):
            response = await desk.client_of(ALICE).post(
                f"/api/requests/{request['request_id']}/answer", content=content, headers=headers
            )
            failure(response, 422, "invalid")


async def test_a_huge_body_and_a_deep_one_are_refused(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    huge = await desk.answer(ALICE, request, comment="x" * (2 << 20))
    failure(huge, 413, "too_large")
    deep: Any = 1
    for _ in range(150):
        deep = {"a": deep}
    refused = await desk.answer(ALICE, request, "edit", subject={"account": deep})
    assert refused.status_code == 422
    assert (await desk.runner.get(request["request_id"])).answers == ()


async def test_a_role_that_somebody_does_not_hold_is_refused(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    refused = await desk.answer(ALICE, request, role="chief")
    assert "does not hold the role 'chief'" in failure(refused, 422, "invalid_answer")["message"]
    taken = (await desk.answer(ALICE, request, role="finance")).json()
    assert taken["answer"]["role"] == "finance"


class NoRoles:
    """Vouches for nobody's roles."""

    async def authorize(self, by: Reviewer, action: Action, **about: Any) -> Reviewer:
        return by.model_copy(update={"roles": ()})


async def test_a_role_that_the_host_does_not_vouch_for_is_refused(clock: ManualClock) -> None:
    from invoices import WORKFLOWS

    flow = WORKFLOWS["article"](timeout=None)
    flow.clock = clock  # type: ignore[attr-defined]
    runner = Runner(MemoryStore(), {"article": flow}, clock=clock, authorizer=NoRoles())
    app = create_app(
        runner,
        authenticate=lambda _: Reviewer(id="alice", roles=("chief",)),
        works=False,
        clock=clock,
    )
    await runner.start("article", topic="Bees")
    (record,) = await runner.pending()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x.test") as client:
        body = {"decision": "approve", "digest": record.request.digest, "role": "chief"}
        response = await client.post(f"/api/requests/{record.request_id}/answer", json=body)
    failure(response, 422, "invalid_answer")


async def test_who_sees_a_request_and_is_not_asked_may_not_answer_it(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    error = failure(await desk.answer("root:admin", request), 403, "not_allowed")
    assert (error["by"], error["request_id"]) == ("root", request["request_id"])
    assert failure(await desk.answer("ann:auditor", request), 403, "not_allowed")["by"] == "ann"


# --------------------------------------------------------------------------- delegated


async def test_a_vote_is_handed_to_somebody_who_then_sees_it(desk: Desk) -> None:
    run_id, request = await desk.start("laddered")
    path = f"/requests/{request['request_id']}"
    assert request["reviewers"] == ["alice"]
    body = {"to": "carl", "digest": request["digest"]}
    refused = await desk.post("alice", f"{path}/delegate", body)
    assert fields(failure(refused, 422, "invalid_answer")) == ["decision"]

    _, request = await desk.start("invoice")
    path = f"/requests/{request['request_id']}"
    failure(await desk.get("carl", path), 404, "unknown_request")
    response = await desk.post(ALICE, f"{path}/delegate", {**body, "digest": request["digest"]})
    assert (response.status_code, response.json()["decides"]) == (200, False)
    assert (await desk.get("carl", path)).json()["can_answer"] is True
    failure(await desk.answer(ALICE, request), 403, "not_allowed")
    assert (await desk.answer("carl", request)).json()["decides"] is True
    assert run_id


async def test_a_delegation_says_to_whom_and_about_what(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    path = f"/requests/{request['request_id']}/delegate"
    for body, missing in (({"to": "carl"}, "digest"), ({"digest": "x"}, "to")):
        assert fields(failure(await desk.post(ALICE, path, body), 422, "invalid")) == [missing]
    stale = await desk.post(ALICE, path, {"to": "carl", "digest": "x"})
    failure(stale, 409, "stale_request")


# --------------------------------------------------------------------------- several


def item(request: dict[str, Any], decision: str = "approve", **rest: Any) -> dict[str, Any]:
    return {
        "request_id": request["request_id"],
        "digest": request["digest"],
        "decision": decision,
        **rest,
    }


async def test_of_several_answers_each_counts_by_itself(desk: Desk) -> None:
    (_, good), (_, stale), (_, taken), (_, unfit) = [await desk.start("invoice") for _ in range(4)]
    _, unseen = await desk.start("staged")
    await desk.answer(BOB, taken, "reject")
    answers = [
        item({**stale, "digest": "0" * 64}),
        item(good, comment="fine"),
        item(taken),
        item(unseen),
        item(unfit, "edit", subject={"amount": 0}),
        item(good, "reject"),
        {**item(good), "request_id": "nothing"},
    ]
    response = await desk.post(ALICE, "/answers", {"answers": answers})
    assert response.status_code == 200
    items = response.json()["items"]
    assert [one["request_id"] for one in items] == [one["request_id"] for one in answers]
    assert [one["status"] for one in items] == [409, 200, 409, 404, 422, 422, 404]
    kinds = [one["error"] and one["error"]["type"] for one in items]
    assert kinds == [
        "stale_request",
        None,
        "already_answered",
        "unknown_request",
        "invalid_answer",
        "invalid_answer",
        "unknown_request",
    ]
    assert items[2]["error"]["by"] == "bob"
    assert fields(items[5]["error"]) == ["request_id"]
    assert items[1]["receipt"]["answer"]["decision"]["comment"] == "fine"
    assert (items[1]["error"], items[0]["receipt"]) == (None, None)
    assert [
        len((await desk.runner.get(r["request_id"])).answers) for r in (good, stale, unfit)
    ] == [
        1,
        0,
        0,
    ]


class Failing(MemoryStore):
    """Cannot be reached any more after so many changes."""

    left = 1_000

    async def commit(self, commit: Commit) -> None:
        if self.left == 0:
            raise StoreError("db.example:5432 is gone")
        self.left -= 1
        await super().commit(commit)


class TestFailing:
    @pytest.fixture
    def web_store(self) -> Failing:
        return Failing()

    async def test_what_was_taken_before_the_store_was_lost_is_told(
        self, desk: Desk, web_store: Failing
    ) -> None:
        requests = [(await desk.start("invoice"))[1] for _ in range(4)]
        web_store.left = 1
        response = await desk.post(ALICE, "/answers", {"answers": [item(r) for r in requests[:2]]})
        items = response.json()["items"]
        assert [one["status"] for one in items] == [200, 503]
        assert items[1]["error"]["type"] == "unavailable"
        web_store.left = 1
        listed = [f"{request['request_id']} {request['digest']}" for request in requests[2:]]
        page = await desk.client_of(ALICE).post("/bulk", data={"item": listed})
        assert page.status_code == 200
        assert page.text.count("Approved.") == 1
        assert page.text.count("cannot be reached") == 1
        assert "db.example" not in page.text + response.text
        web_store.left = 1_000
        await desk.settled()


async def test_a_body_that_names_another_request_is_refused(desk: Desk) -> None:
    (_, one), (_, other) = [await desk.start("invoice") for _ in range(2)]
    error = failure(
        await desk.answer(ALICE, one, request_id=other["request_id"]), 422, "invalid_answer"
    )
    assert fields(error) == ["request_id"]
    assert (await desk.answer(ALICE, one, request_id=one["request_id"])).status_code == 200


async def test_several_answers_again_get_the_same_receipts(desk: Desk) -> None:
    requests = [(await desk.start("invoice"))[1] for _ in range(2)]
    body = {"answers": [item(request) for request in requests]}
    first = await desk.post(ALICE, "/answers", body)
    assert (await desk.post(ALICE, "/answers", body)).json() == first.json()


async def test_there_are_one_to_a_hundred_at_once(desk: Desk) -> None:
    one = {"digest": "x", "decision": "approve"}
    for count in (0, 101):
        answers = [{"request_id": f"r{n}", **one} for n in range(count)]
        refused = await desk.post(ALICE, "/answers", {"answers": answers})
        assert fields(failure(refused, 422, "invalid")) == ["answers"]


async def test_each_of_several_needs_the_digest_of_what_was_seen(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    without = {name: value for name, value in item(request).items() if name != "digest"}
    refused = await desk.post(ALICE, "/answers", {"answers": [item(request), without]})
    assert fields(failure(refused, 422, "invalid")) == ["answers.1.digest"]
    assert (await desk.runner.get(request["request_id"])).answers == ()


async def test_one_answer_that_is_said_twice_over_refuses_the_whole_body(
    desk: Desk, app: FastAPI
) -> None:
    _, request = await desk.start("invoice")
    text = json.dumps({"answers": [item(request)]})
    doubled = text.replace('"decision": "approve"', '"decision": "reject", "decision": "approve"')
    response = await desk.client_of(ALICE).post(
        "/api/answers", content=doubled, headers={"Content-Type": "application/json"}
    )
    failure(response, 422, "invalid")
    assert (await desk.runner.get(request["request_id"])).answers == ()
