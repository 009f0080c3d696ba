"""Requests over HTTP: listed, looked at, claimed and taken back, by those who may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from durable import NOON
from invoices import Desk, failure, fields

from llama_index_hitl import Reviewer
from llama_index_hitl.lifecycle import open_record
from llama_index_hitl.models import ReviewPolicy, ReviewRequest
from llama_index_hitl.stores import Commit, MemoryStore, StoredRequest
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import Visibility


def titles(response: Any) -> list[str]:
    return [item["title"] for item in response.json()["items"]]


async def put(store: Any, name: str, **changes: Any) -> ReviewRequest:
    """Store an open request."""
    policy = ReviewPolicy(reviewers=changes.pop("reviewers", ("alice",)))
    request = ReviewRequest(
        request_id=name, title=name, workflow="Flow", policy=policy, created_at=NOON, **changes
    )
    stored = StoredRequest(run_id=f"run-of-{name}", record=open_record(request))
    await store.commit(Commit(requests=(stored,)))
    return request


async def test_what_waits_for_somebody_is_listed_for_them_and_for_nobody_else(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    assert request["title"] == "Pay 1200 EUR to Acme?"
    assert titles(await desk.get("alice:finance", "/requests")) == [request["title"]]
    assert titles(await desk.get("bob:legal", "/requests")) == []
    assert titles(await desk.get("bob:legal", "/requests", view="all")) == []


async def test_whoever_started_a_run_sees_what_it_asks_others(desk: Desk) -> None:
    run_id, request = await desk.start("invoice", by="frank")
    await desk.start("invoice", by="fred")
    assert titles(await desk.get("frank", "/requests")) == []
    for narrowed in ({}, {"run_id": run_id}):
        listed = await desk.get("frank", "/requests", view="all", **narrowed)
        assert [item["request_id"] for item in listed.json()["items"]] == [request["request_id"]]
    assert titles(await desk.get("fred", "/requests", view="all", run_id=run_id)) == []
    assert (await desk.get("frank", f"/runs/{run_id}")).json()["open_requests"] == [
        request["request_id"]
    ]
    seen = (await desk.get("frank", f"/requests/{request['request_id']}")).json()
    assert (seen["title"], seen["can_answer"]) == (request["title"], False)
    assert failure(await desk.answer("frank", request), 403, "not_allowed")["by"] == "frank"


async def test_views_are_of_people_of_roles_and_of_all_that_is_seen(
    desk: Desk, web_store: MemoryStore
) -> None:
    await put(web_store, "by name", reviewers=("alice",))
    await put(web_store, "by role", reviewers=("role:legal",))
    await put(web_store, "for all", reviewers=())
    await put(web_store, "asked for", reviewers=("bob",), requester="alice")
    await put(web_store, "not hers", reviewers=("bob",))
    alice = "alice:legal"
    assert titles(await desk.get(alice, "/requests")) == ["by name", "by role", "for all"]
    assert titles(await desk.get(alice, "/requests", view="roles")) == ["by role"]
    seen = titles(await desk.get(alice, "/requests", view="all"))
    assert seen == ["asked for", "by name", "by role", "for all"]
    assert len(titles(await desk.get("root:admin", "/requests", view="all"))) == 5
    assert titles(await desk.get("root:auditor", "/requests", view="roles")) == []
    assert titles(await desk.get("carl", "/requests", view="roles")) == []


async def test_what_somebody_has_answered_waits_for_them_no_more(desk: Desk) -> None:
    _, request = await desk.start("staged")
    assert (await desk.answer("alice:legal", request)).status_code == 200
    assert titles(await desk.get("alice:legal", "/requests")) == []
    (seen,) = (await desk.get("alice:legal", "/requests", view="all")).json()["items"]
    assert (seen["voted"], seen["can_answer"], seen["approvals"]) == (True, False, 1)
    (other,) = (await desk.get("bea:legal", "/requests")).json()["items"]
    assert (other["voted"], other["can_answer"], other["needed"]) == (False, True, 2)


async def test_closed_ones_are_listed_for_those_whom_they_concerned(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    await desk.answer("alice:finance", request)
    assert titles(await desk.get("alice:finance", "/requests")) == []
    for person, view in (("alice:finance", "mine"), ("bob:finance", "roles")):
        for status in ("closed", "all"):
            listed = await desk.get(person, "/requests", view=view, status=status)
            assert titles(listed) == [request["title"]]
    assert titles(await desk.get("carl", "/requests", view="mine", status="closed")) == []


async def test_lists_are_narrowed(desk: Desk, web_store: MemoryStore) -> None:
    await put(web_store, "a", priority="urgent", tags=("red", "Größe"), gate="one")
    await put(web_store, "b", body="Some WORDS here", gate="two")
    soon = {"policy": ReviewPolicy(reviewers=("alice",), deadline=NOON + timedelta(hours=1))}
    request = ReviewRequest(request_id="c", title="c", workflow="Other", created_at=NOON, **soon)
    due = StoredRequest(
        run_id="run-c", record=open_record(request), next_due=NOON + timedelta(hours=1)
    )
    await web_store.commit(Commit(requests=(due,)))

    async def found(**query: str) -> list[str]:
        return titles(await desk.get("alice", "/requests", **query))

    assert await found() == ["a", "b", "c"]
    assert await found(priority="urgent") == ["a"]
    assert await found(tag="red") == ["a"]
    assert await found(gate="two") == ["b"]
    assert await found(workflow="Other") == ["c"]
    assert await found(run_id="run-of-b") == ["b"]
    assert await found(due_before="2026-03-02T14:00:00+00:00") == ["c"]
    assert await found(due_before="2026-03-02T13:00:00+00:00") == []
    assert await found(text="words") == ["b"]
    assert await found(text="GRÖSSE") == ["a"]
    assert await found(text="OTHER") == ["c"]
    assert await found(text="nothing") == []


async def test_a_query_that_means_nothing_is_refused_by_its_field(desk: Desk) -> None:
    for field, value in (
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "x"),
        ("view", "everything"),
        ("status", "OPEN"),
        ("priority", "higher"),
        ("due_before", "2026-03-02T14:00:00"),
        ("due_before", "soon"),
        ("text", ""),
        ("text", "x" * 201),
        ("after", "no cursor"),
        ("after", "é\x00" * 5000),
        ("colour", "red"),
    ):
        kind = "invalid_cursor" if field == "after" else "invalid"
        refused = await desk.get("alice", "/requests", **{field: value})
        error = failure(refused, 422, kind)
        assert fields(error) == [field]
        assert "cannot be reached" not in error["message"]


async def test_pages_lead_through_all_of_a_long_list(desk: Desk, web_store: MemoryStore) -> None:
    for number in range(250):
        mine = ("alice",) if number % 2 else ("bob",)
        await put(web_store, f"r{number:03}", reviewers=mine)
    seen: list[str] = []
    after: dict[str, str] = {}
    pages = 0
    while True:
        body = (await desk.get("alice", "/requests", limit=40, **after)).json()
        seen += [item["request_id"] for item in body["items"]]
        pages += 1
        if body["after"] is None:
            break
        assert len(body["items"]) == 40
        after = {"after": body["after"]}
    assert seen == [f"r{number:03}" for number in range(250) if number % 2]
    assert pages == 4


async def test_a_search_looks_at_so_many_requests_and_goes_on_from_there(
    desk: Desk, web_store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_index_hitl.web._listing.LOOKED_AT", 30)
    for number in range(100):
        await put(web_store, f"r{number:03}", body="needle" if number == 97 else "hay")
    first = (await desk.get("alice", "/requests", text="needle")).json()
    assert (first["items"], first["after"] is None) == ([], False)
    found, after = [], first["after"]
    while after is not None:
        page = (await desk.get("alice", "/requests", text="needle", after=after)).json()
        found += [item["request_id"] for item in page["items"]]
        after = page["after"]
    assert found == ["r097"]


async def test_a_request_is_shown_with_its_history_and_what_changed(desk: Desk) -> None:
    run_id, request = await desk.start("invoice")
    await desk.answer("alice:finance", request, "revise", feedback="Ltd.")
    await desk.settled()
    (again,) = (await desk.get("alice:finance", "/requests", run_id=run_id)).json()["items"]
    detail = (await desk.get("alice:finance", f"/requests/{again['request_id']}")).json()
    assert detail["revision"] == 2
    assert [f["text"] for f in detail["request"]["feedback"]] == ["Ltd."]
    assert [(d["field"], d["after"]) for d in detail["diff"]] == [("supplier", "Acme, Ltd.")]
    kinds = [option["kind"] for option in detail["decisions"]]
    assert kinds == ["approve", "reject", "revise", "edit", "delegate"]
    (edit,) = [option for option in detail["decisions"] if option["kind"] == "edit"]
    names = [field["name"] for field in edit["fields"]]
    assert names[:2] == ["subject.supplier", "subject.amount"]


async def test_what_is_not_there_is_unknown_whatever_it_is_called(desk: Desk) -> None:
    evil = ("nothing", "%00", "a%2Fb", "é", "%F0%9F%92%A9", "x" * 10_000, "%2e%2e", "..%2f..%2fme")
    for name in evil:
        for path in (f"/requests/{name}", f"/runs/{name}", f"/runs/{name}/audit"):
            response = await desk.get("root:admin", path)
            kind = response.json()["error"]["type"]
            assert (response.status_code, kind.partition("_")[0]) in (
                (404, "unknown"),
                (404, "not"),
            )
            assert len(response.text) < 3_000


async def test_somebody_elses_request_is_as_if_it_were_not_there(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    mallory, path = "mallory:legal", f"/requests/{request['request_id']}"
    there = [
        await desk.get(mallory, path),
        await desk.answer(mallory, request),
        await desk.post(mallory, f"{path}/claim"),
        await desk.client_of(mallory).delete(f"/api{path}/claim"),
        await desk.post(mallory, f"{path}/delegate", {"to": "x", "digest": request["digest"]}),
        await desk.post(mallory, f"{path}/withdraw", {}),
    ]
    path = "/requests/nothing"
    nowhere = [
        await desk.get(mallory, path),
        await desk.answer(mallory, {**request, "request_id": "nothing"}),
        await desk.post(mallory, f"{path}/claim"),
        await desk.client_of(mallory).delete(f"/api{path}/claim"),
        await desk.post(mallory, f"{path}/delegate", {"to": "x", "digest": request["digest"]}),
        await desk.post(mallory, f"{path}/withdraw", {}),
    ]
    for here, not_here in zip(there, nowhere, strict=True):
        error = failure(here, 404, "unknown_request")
        assert error == {**failure(not_here, 404, "unknown_request"), **_ids(error)}
    assert await desk.runner.history(request["run_id"]) == await _without_refusals(desk, request)


def _ids(error: dict[str, Any]) -> dict[str, Any]:
    return {"request_id": error["request_id"]}


async def _without_refusals(desk: Desk, request: dict[str, Any]) -> list[Any]:
    rows = await desk.runner.history(request["run_id"])
    return [row for row in rows if row.entry.kind != "refused"]


# --------------------------------------------------------------------------- claims


async def test_a_claim_is_seen_by_others_ends_and_can_be_released(
    desk: Desk, clock: ManualClock
) -> None:
    _, request = await desk.start("invoice")
    path = f"/requests/{request['request_id']}/claim"
    claim = (await desk.post("alice:finance", path)).json()
    assert claim == {"by": "alice", "until": "2026-03-02T12:15:00Z"}
    (seen,) = (await desk.get("bob:finance", "/requests")).json()["items"]
    assert seen["claim"] == claim

    error = failure(await desk.post("bob:finance", path), 409, "already_claimed")
    assert (error["by"], error["until"]) == ("alice", "2026-03-02T12:15:00Z")
    released = await desk.client_of("bob:finance").delete(f"/api{path}")
    assert failure(released, 409, "already_claimed")["by"] == "alice"

    longer = (await desk.post("alice:finance", path, {"minutes": 480})).json()
    assert longer["until"] == "2026-03-02T20:00:00Z"
    released = await desk.client_of("alice:finance").delete(f"/api{path}")
    assert (released.status_code, released.content) == (204, b"")
    assert (await desk.client_of("alice:finance").delete(f"/api{path}")).status_code == 204
    assert (await desk.post("bob:finance", path)).json()["by"] == "bob"
    clock.advance(minutes=15)
    assert (await desk.post("alice:finance", path)).status_code == 200


async def test_a_claim_binds_nobody(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    await desk.post("alice:finance", f"/requests/{request['request_id']}/claim")
    assert (await desk.answer("bob:finance", request)).status_code == 200


async def test_a_claim_lasts_a_minute_to_eight_hours(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    path = f"/requests/{request['request_id']}/claim"
    for minutes in (0, 481, -1, "x", 1.5, None):
        response = await desk.post("alice:finance", path, {"minutes": minutes})
        assert fields(failure(response, 422, "invalid")) == ["minutes"]


async def test_only_who_can_answer_what_is_open_claims_it(desk: Desk) -> None:
    _, request = await desk.start("invoice")
    path = f"/requests/{request['request_id']}/claim"
    assert failure(await desk.post("root:admin", path), 403, "not_allowed")["by"] == "root"
    await desk.answer("alice:finance", request)
    failure(await desk.post("bob:finance", path), 409, "invalid_transition")


# --------------------------------------------------------------------------- taken back


async def test_whoever_started_a_run_takes_its_question_back(desk: Desk) -> None:
    run_id, request = await desk.start("invoice", by="frank:finance")
    path = f"/requests/{request['request_id']}/withdraw"
    failure(await desk.post("alice:finance", path, {"reason": "mine"}), 403, "forbidden")
    response = await desk.post("frank:finance", path, {"reason": "A duplicate."})
    assert response.json()["status"] == "withdrawn"
    failure(await desk.post("frank:finance", path), 409, "invalid_transition")
    await desk.settled()
    assert (await desk.get("frank", f"/runs/{run_id}")).json()["status"] == "finished"

    error = failure(await desk.answer("alice:finance", request), 410, "closed")
    assert "withdrawn" in error["message"]


async def test_what_was_asked_inside_a_step_cannot_be_taken_back(desk: Desk) -> None:
    _, request = await desk.start("asking")
    path = f"/requests/{request['request_id']}/withdraw"
    failure(await desk.post("frank", path), 409, "question_error")


# --------------------------------------------------------------------------- what is hidden


class Hiding(Visibility):
    """From all but payroll the account, and what each item costs, are hidden."""

    def hidden_fields(self, person: Reviewer, request: ReviewRequest) -> tuple[str, ...]:
        return () if "payroll" in person.roles else ("account.iban", "lines.price")


class TestMasks:
    @pytest.fixture
    def visibility(self) -> Visibility:
        return Hiding()

    async def test_hidden_values_are_nowhere(self, desk: Desk) -> None:
        run_id, request = await desk.start("invoice", supplier="Acme", amount=4321)
        edited = await desk.answer("pat:finance,payroll", request, "edit", subject={"amount": 77})
        await desk.settled()
        path = f"/requests/{request['request_id']}"
        shown = [
            await desk.get("alice:finance", path),
            await desk.get("alice:finance", "/requests", view="all", status="all"),
            await desk.get("alice:finance", f"/runs/{run_id}"),
            await desk.get("alice:finance", f"/runs/{run_id}/audit"),
        ]
        assert "DE89-SECRET" in edited.text
        for response in shown:
            assert response.status_code == 200
            assert "DE89-SECRET" not in response.text
            assert '"price":4321' not in response.text
        assert "•••" in shown[0].text
        assert '"diff"' not in shown[3].json()["rows"][-2]["details"]
        failure(await desk.get("alice:finance", f"/runs/{run_id}/result"), 403, "forbidden")
        result = await desk.get("frank:payroll", f"/runs/{run_id}/result")
        assert result.json()["result"] == {"paid": 77, "to": "DE89-SECRET"}

    async def test_a_search_does_not_find_what_is_hidden(self, desk: Desk) -> None:
        await desk.start("invoice")
        assert titles(await desk.get("alice:finance", "/requests", text="de89")) == []

    async def test_an_edit_keeps_what_its_editor_cannot_see(self, desk: Desk) -> None:
        for changes in (
            {"amount": 5},
            {"amount": 5, "account": {"holder": "Acme", "iban": "•••"}},
            {"amount": 5, "account": {"holder": "Acme"}},
            {"amount": 5, "lines": [{"name": "Paper", "price": "•••"}]},
        ):
            run_id, request = await desk.start("invoice")
            receipt = await desk.answer("alice:finance", request, "edit", subject=changes)
            assert receipt.status_code == 200
            taken = receipt.json()["answer"]["decision"]["subject"]
            assert taken["account"] == {"holder": "Acme", "iban": "•••"}
            assert taken["lines"] == [{"name": "Paper", "price": "•••"}]
            await desk.settled()
            result = await desk.get("frank:payroll", f"/runs/{run_id}/result")
            assert result.json()["result"] == {"paid": 5, "to": "DE89-SECRET"}
            again = await desk.answer("alice:finance", request, "edit", subject=changes)
            assert (again.status_code, again.json()) == (200, receipt.json())

    async def test_what_is_seen_beside_what_is_hidden_can_be_edited(self, desk: Desk) -> None:
        _, request = await desk.start("invoice")
        changes = {"account": {"holder": "Acme Ltd.", "iban": "•••"}}
        await desk.answer("alice:finance", request, "edit", subject=changes)
        (stored,) = (await desk.runner.get(request["request_id"])).answers
        account = stored.decision.subject["account"]
        assert account == {"holder": "Acme Ltd.", "iban": "DE89-SECRET"}

    async def test_what_is_hidden_cannot_be_changed(self, desk: Desk) -> None:
        _, request = await desk.start("invoice")
        for field, value in (
            ("account", {"holder": "Acme", "iban": "DE00"}),
            ("account", "gone"),
            ("lines", []),
            ("lines", [{"name": "Pens", "price": "•••"}]),
        ):
            response = await desk.answer("alice:finance", request, "edit", subject={field: value})
            error = failure(response, 422, "invalid_answer")
            assert fields(error) == [f"subject.{field}"]
            assert "DE89" not in response.text
        assert (await desk.runner.get(request["request_id"])).answers == ()
