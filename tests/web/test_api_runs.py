"""Runs over HTTP: started once, looked at, ended and tried again by those who may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from invoices import INVOICE, Broken, Desk, failure, fields
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Question, ask
from llama_index_hitl.audit import AuditRow
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import Visibility

ALICE = "alice:finance"


@pytest.fixture(autouse=True)
def _mended() -> Iterator[None]:
    yield
    Broken.broken = True


async def test_workflows_are_listed_with_what_they_are_started_with(desk: Desk) -> None:
    items = {one["name"]: one for one in (await desk.get("frank", "/workflows")).json()["items"]}
    assert sorted(items) == [
        "article",
        "asking",
        "broken",
        "invoice",
        "laddered",
        "plain",
        "staged",
    ]
    invoice = items["invoice"]
    assert invoice["description"] == "Pays an invoice when finance has approved it."
    assert invoice["start_schema"]["required"] == ["supplier", "amount"]
    asked = [(f["name"], f["widget"], f["required"], f["help"]) for f in invoice["fields"]]
    assert asked == [
        ("supplier", "text", True, ""),
        ("amount", "integer", True, "In euros."),
        ("note", "text", False, ""),
    ]
    assert (invoice["any_fields"], items["article"]["any_fields"]) == (False, True)


async def test_a_start_that_waits_comes_back_at_the_first_question(desk: Desk) -> None:
    body = {"workflow": "invoice", "inputs": INVOICE, "wait": True}
    response = await desk.post("frank", "/runs", body)
    run = response.json()
    assert (response.status_code, run["status"], run["started_by"]) == (201, "waiting", "frank")
    assert (len(run["open_requests"]), run["workflow"]) == (1, "invoice")
    (row, *_) = await desk.runner.history(run["run_id"])
    assert (row.entry.kind, row.entry.actor) == ("started", "frank")


async def test_a_start_that_does_not_wait_is_stored_and_begun_beside(desk: Desk) -> None:
    response = await desk.post("frank", "/runs", {"workflow": "invoice", "inputs": INVOICE})
    run = response.json()
    assert (response.status_code, run["status"], run["open_requests"]) == (202, "running", [])
    await desk.settled()
    assert (await desk.get("frank", f"/runs/{run['run_id']}")).json()["status"] == "waiting"


async def test_a_start_is_repeated_safely_under_the_same_id(desk: Desk) -> None:
    for wait, status in ((True, 201), (False, 202)):
        body = {"workflow": "invoice", "inputs": INVOICE, "run_id": f"r-{wait}", "wait": wait}
        first = await desk.post("frank", "/runs", body)
        await desk.settled()
        again = await desk.post("frank", "/runs", {**body, "inputs": {**INVOICE, "amount": 9}})
        assert (first.status_code, again.status_code) == (status, 200)
        assert again.json()["run_id"] == f"r-{wait}"
        (record,) = await desk.runner.pending(run_id=f"r-{wait}")
        assert record.request.subject.data["amount"] == 1200  # type: ignore[union-attr]


async def test_starts_under_one_id_at_the_same_time_make_one_run(desk: Desk) -> None:
    body = {"workflow": "invoice", "inputs": INVOICE, "run_id": "one"}
    mine = [desk.post("frank", "/runs", body) for _ in range(3)]
    theirs = [desk.post("mallory", "/runs", body) for _ in range(2)]
    *ours, first, second = await asyncio.gather(*mine, *theirs)
    assert {response.status_code for response in ours} <= {200, 202}
    for response in (first, second):
        error = failure(response, 409, "run_exists")
        assert "frank" not in response.text
        assert "invoice" not in error["message"]
    await desk.settled()
    assert len(await desk.runner.pending(run_id="one")) == 1


async def test_an_id_does_not_lead_to_somebody_elses_run(desk: Desk) -> None:
    run_id, _ = await desk.start("invoice")
    for person, workflow in (("mallory", "invoice"), ("root:admin", "article"), ("frank", "plain")):
        inputs = INVOICE if workflow == "invoice" else {}
        body = {"workflow": workflow, "inputs": inputs, "run_id": run_id}
        response = await desk.post(person, "/runs", body)
        assert failure(response, 409, "run_exists")["run_id"] == run_id
        assert "waiting" not in response.text


async def test_a_start_that_cannot_work_stores_nothing(desk: Desk) -> None:
    for inputs, at in (
        ({}, ["supplier", "amount"]),
        ({"supplier": "Acme"}, ["amount"]),
        ({**INVOICE, "amount": "many"}, ["amount"]),
        ({**INVOICE, "amount": 0}, ["amount"]),
        ({**INVOICE, "amount": 1.5}, ["amount"]),
        ({**INVOICE, "amont": 5}, ["amont"]),
        ({**INVOICE, "supplier": None}, ["supplier"]),
        ({**INVOICE, "_data": {}}, ["_data"]),
        ({**INVOICE, "ctx": {}}, ["ctx"]),
        ({**INVOICE, "start_event": {}}, ["start_event"]),
        ({**INVOICE, "run_id": "x"}, ["run_id"]),
    ):
        refused = await desk.post("frank", "/runs", {"workflow": "invoice", "inputs": inputs})
        error = failure(refused, 422, "invalid_start")
        assert fields(error) == at, inputs
        assert all(problem["message"] for problem in error["problems"])
    assert (await desk.runner.runs()).items == ()


async def test_a_form_s_texts_start_a_run_as_what_they_mean(desk: Desk) -> None:
    inputs = {"supplier": "Acme", "amount": "1200", "note": ""}
    _, request = await desk.start("invoice", **inputs)
    assert request["title"] == "Pay 1200 EUR to Acme?"


async def test_a_start_that_makes_no_sense_is_refused(desk: Desk) -> None:
    for body, field in (
        ({}, "workflow"),
        ({"workflow": 7}, "workflow"),
        ({"workflow": "article", "inputs": []}, "inputs"),
        ({"workflow": "article", "wait": "perhaps"}, "wait"),
        ({"workflow": "article", "more": 1}, "more"),
        *(
            ({"workflow": "article", "run_id": run_id}, "run_id")
            for run_id in ("", "a b", "a/b", "..", "x\x00", "é", "x" * 101, "-x", "x\n")
        ),
    ):
        refused = await desk.post("frank", "/runs", body)
        assert fields(failure(refused, 422, "invalid")) == [field], body
    assert (await desk.runner.runs()).items == ()


async def test_a_workflow_that_is_not_there_cannot_be_started(desk: Desk) -> None:
    refused = await desk.post("frank", "/runs", {"workflow": "nothing"})
    assert "invoice" in failure(refused, 404, "unknown_workflow")["message"]


class TestWhoMayStartWhat:
    class Choosy(Visibility):
        def may_start(self, person: Any, workflow: str) -> bool:
            return workflow == "article" or self.is_admin(person)

    @pytest.fixture
    def visibility(self) -> Visibility:
        return self.Choosy()

    async def test_what_somebody_may_not_start_is_not_there_for_them(self, desk: Desk) -> None:
        listed = (await desk.get("frank", "/workflows")).json()["items"]
        assert [one["name"] for one in listed] == ["article"]
        body = {"workflow": "invoice", "inputs": INVOICE}
        refused = await desk.post("frank", "/runs", body)
        assert "(it has: article)" in failure(refused, 404, "unknown_workflow")["message"]
        assert (await desk.post("root:admin", "/runs", body)).status_code == 202


class Slow(Workflow):
    """Waits in a step until it is let go on."""

    begun: asyncio.Event
    go_on: asyncio.Event

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.begun.set()
        await self.go_on.wait()
        await ask(ctx, Question(title="Shall I?"))
        return StopEvent(result="done")


class TestGoneAway:
    @pytest.fixture
    def workflows(self) -> dict[str, type[Workflow]]:
        return {"slow": Slow}

    async def test_a_run_goes_on_when_whoever_waits_for_it_goes_away(
        self, desk: Desk, app: FastAPI
    ) -> None:
        slow = desk.runner.workflows["slow"]
        assert isinstance(slow, Slow)
        slow.begun, slow.go_on = asyncio.Event(), asyncio.Event()
        body = {"workflow": "slow", "run_id": "slow-1", "wait": True}
        waiting = asyncio.create_task(desk.post("frank", "/runs", body))
        await slow.begun.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        slow.go_on.set()
        await desk.settled()
        run = (await desk.get("frank", "/runs/slow-1")).json()
        assert (run["status"], len(run["open_requests"])) == ("waiting", 1)


# --------------------------------------------------------------------------- looked at


async def test_a_run_is_seen_by_those_whom_it_concerns(desk: Desk) -> None:
    run_id, request = await desk.start("invoice")
    for person in ("frank", ALICE, "root:admin", "ann:auditor"):
        run = (await desk.get(person, f"/runs/{run_id}")).json()
        assert run["open_requests"] == [request["request_id"]], person
        assert [one["run_id"] for one in (await desk.get(person, "/runs")).json()["items"]] == [
            run_id
        ]
    assert (await desk.get("mallory", "/runs")).json() == {"items": [], "after": None}
    for path in ("", "/result", "/audit"):
        failure(await desk.get("mallory", f"/runs/{run_id}{path}"), 404, "unknown_run")
    for path in ("/cancel", "/retry"):
        failure(await desk.post("mallory", f"/runs/{run_id}{path}"), 404, "unknown_run")


async def test_runs_are_listed_newest_first_narrowed_and_in_pages(
    desk: Desk, clock: ManualClock
) -> None:
    for number in range(5):
        by = "frank" if number % 2 else "gina"
        body = {"workflow": "article", "run_id": f"run-{number}", "wait": True}
        await desk.post(by, "/runs", body)
        clock.advance(seconds=1)
    await desk.start("asking")

    async def ids(**query: Any) -> list[str]:
        listed = (await desk.get("root:admin", "/runs", **query)).json()["items"]
        return [one["run_id"] for one in listed]

    assert await ids(workflow="article") == ["run-4", "run-3", "run-2", "run-1", "run-0"]
    assert await ids(started_by="gina") == ["run-4", "run-2", "run-0"]
    assert await ids(status="finished") == []
    first = (await desk.get("root:admin", "/runs", limit=4)).json()
    rest = (await desk.get("root:admin", "/runs", limit=4, after=first["after"])).json()
    assert (len(first["items"]), len(rest["items"]), rest["after"]) == (4, 2, None)
    for query in ({"status": "x"}, {"limit": "101"}, {"colour": "red"}):
        failure(await desk.get("frank", "/runs", **query), 422, "invalid")
    refused = await desk.get("frank", "/runs", after="x")
    assert fields(failure(refused, 422, "invalid_cursor")) == ["after"]


async def test_a_page_of_runs_looks_at_so_many_and_goes_on_from_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setattr("llama_index_hitl.web._listing.RUNS_LOOKED_AT", 3)
    await desk.start("invoice", by="frank")
    for _ in range(4):
        clock.advance(seconds=1)
        await desk.start("invoice", by="gina")
    first = (await desk.get("frank", "/runs")).json()
    assert (first["items"], first["after"] is None) == ([], False)
    second = (await desk.get("frank", "/runs", after=first["after"])).json()
    assert [one["started_by"] for one in second["items"]] == ["frank"]
    assert second["after"] is None


async def test_a_result_is_given_when_there_is_one(desk: Desk) -> None:
    run_id, request = await desk.start("invoice")
    failure(await desk.get("frank", f"/runs/{run_id}/result"), 409, "still_waiting")
    await desk.answer(ALICE, request, "reject")
    await desk.settled()
    result = (await desk.get("frank", f"/runs/{run_id}/result")).json()["result"]
    # The result of a run that ends with an event is that event.
    assert result["record"]["request"]["request_id"] == request["request_id"]
    assert [answer["by"]["id"] for answer in result["record"]["answers"]] == ["alice"]


async def test_a_failed_run_says_what_with_and_never_a_stack(desk: Desk) -> None:
    body = {"workflow": "broken", "wait": True}
    run = (await desk.post("frank", "/runs", body)).json()
    assert run["status"] == "failed"
    assert run["error"] == {
        "type": "ConnectionError",
        "message": "the bank at 10.0.0.7 is closed",
    }
    refused = await desk.get("frank", f"/runs/{run['run_id']}/result")
    failure(refused, 409, "run_failed")
    assert "10.0.0.7" not in refused.text


# --------------------------------------------------------------------------- ended, tried again


async def test_a_failed_run_is_tried_again_by_whose_it_is(desk: Desk) -> None:
    run = (await desk.post("frank", "/runs", {"workflow": "broken", "wait": True})).json()
    path = f"/runs/{run['run_id']}/retry"
    failure(await desk.post("ann:auditor", path), 403, "forbidden")
    assert (await desk.post("frank", path)).json()["status"] == "failed"
    Broken.broken = False
    assert (await desk.post("frank", path)).json()["status"] == "finished"
    failure(await desk.post("frank", path), 409, "run_ended")
    result = await desk.get("frank", f"/runs/{run['run_id']}/result")
    assert result.json()["result"] == "done"


async def test_a_run_is_ended_by_whose_it_is_and_its_questions_with_it(desk: Desk) -> None:
    run_id, request = await desk.start("invoice")
    path = f"/runs/{run_id}/cancel"
    for person in (ALICE, "ann:auditor"):
        failure(await desk.post(person, path), 403, "forbidden")
    run = (await desk.post("frank", path, {"reason": "Sent in twice."})).json()
    assert (run["status"], run["open_requests"]) == ("cancelled", [])
    failure(await desk.answer(ALICE, request), 410, "closed")
    failure(await desk.post("frank", path), 409, "run_ended")
    failure(await desk.get("frank", f"/runs/{run_id}/result"), 409, "run_ended")
    rows = (await desk.get("frank", f"/runs/{run_id}/audit")).json()["rows"]
    assert ("cancelled", "frank", "Sent in twice.") in [
        (row["kind"], row["actor"], row["reason"]) for row in rows
    ]


# --------------------------------------------------------------------------- the audit trail


async def test_a_trail_is_shown_and_checked(desk: Desk) -> None:
    run_id, request = await desk.start("invoice")
    await desk.answer(ALICE, request, "edit", subject={"amount": 7})
    await desk.settled()
    trail = (await desk.get("frank", f"/runs/{run_id}/audit")).json()
    assert (trail["intact"], trail["findings"]) == (True, [])
    assert trail["seal"]["number"] == len(trail["rows"])
    assert [row["kind"] for row in trail["rows"]] == ["started", "opened", "answered", "finished"]
    answered = trail["rows"][2]
    assert (answered["actor"], answered["channel"]) == ("alice", "api")
    assert "-1200" in answered["details"]["diff"]


class Tampered(MemoryStore):
    """Gives back one row of each trail otherwise than it was written."""

    row: int | None = None

    async def audit(self, run_id: str) -> list[AuditRow]:
        rows = list(await super().audit(run_id))
        if self.row is not None:
            entry = rows[self.row].entry.model_copy(update={"reason": "changed"})
            rows[self.row] = rows[self.row].model_copy(update={"entry": entry})
        return rows


class TestTampered:
    @pytest.fixture
    def web_store(self) -> Tampered:
        return Tampered()

    async def test_a_trail_that_was_tampered_with_says_so(
        self, desk: Desk, web_store: Tampered
    ) -> None:
        run_id, request = await desk.start("invoice")
        web_store.row = 1
        trail = (await desk.get("frank", f"/runs/{run_id}/audit")).json()
        assert trail["intact"] is False
        assert request["request_id"] in trail["findings"][0]

    async def test_who_does_not_see_all_is_told_only_that_it_was(
        self, desk: Desk, web_store: Tampered
    ) -> None:
        run_id, first = await desk.start("staged")
        for lawyer in ("ann:legal", "bob:legal"):
            await desk.answer(lawyer, first)
        await desk.settled()
        web_store.row = 2
        response = await desk.get("carl:chief", f"/runs/{run_id}/audit")
        trail = response.json()
        said = ["something was done to it after it was written"]
        assert (trail["intact"], trail["findings"]) == (False, said)
        assert first["request_id"] not in response.text


async def test_rows_about_what_somebody_does_not_see_keep_only_their_number(desk: Desk) -> None:
    run_id, first = await desk.start("staged", by="frank")
    await desk.answer("ann:legal", first)
    await desk.answer("bob:legal", first, comment="Only for lawyers.")
    await desk.settled()
    whole = (await desk.get("frank", f"/runs/{run_id}/audit")).json()
    part = await desk.get("carl:chief", f"/runs/{run_id}/audit")
    rows = part.json()["rows"]
    assert [row["number"] for row in rows] == [row["number"] for row in whole["rows"]]
    assert [row["hash"] for row in rows] == [row["hash"] for row in whole["rows"]]
    hidden = [row for row in rows if not row["shown"]]
    assert [row["kind"] for row in rows] == ["started", None, None, None, "opened"]
    assert all(row["actor"] is None and row["request_id"] is None for row in hidden)
    assert "Only for lawyers." not in part.text
    assert first["request_id"] not in part.text


# --------------------------------------------------------------------------- measures


async def test_metrics_count_what_somebody_sees(desk: Desk, clock: ManualClock) -> None:
    empty = (await desk.get(ALICE, "/metrics")).json()
    assert empty == {
        "open": 0,
        "overdue": 0,
        "oldest_seconds": None,
        "complete": True,
        "decided": 0,
        "median_seconds_to_decide": None,
    }
    for seconds in (10, 30, 80):
        _, request = await desk.start("invoice")
        clock.advance(seconds=seconds)
        await desk.answer(ALICE, request)
        await desk.settled()
    await desk.start("invoice")
    clock.advance(days=3)
    await desk.start("staged")
    clock.advance(seconds=5)
    finance = (await desk.get(ALICE, "/metrics")).json()
    assert finance == {
        "open": 1,
        "overdue": 1,
        "oldest_seconds": 3 * 86_400 + 5,
        "complete": True,
        "decided": 3,
        "median_seconds_to_decide": 30,
    }
    legal = (await desk.get("lea:legal", "/metrics")).json()
    assert (legal["open"], legal["overdue"], legal["decided"]) == (1, 0, 0)
    assert (await desk.get("ann:auditor", "/metrics")).json()["open"] == 2


async def test_metrics_look_at_so_many_only(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_index_hitl.web._measures._BATCH", 2)
    monkeypatch.setattr("llama_index_hitl.web._measures.COUNTED", 4)
    for _ in range(5):
        await desk.start("invoice")
    found = (await desk.get("root:admin", "/metrics")).json()
    assert (found["open"], found["complete"]) == (4, False)
