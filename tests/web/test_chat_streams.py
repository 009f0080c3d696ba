"""The chat pattern on a real server: no connection is open while somebody makes up their mind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from essays import Essay
from serving import ServerProcess, as_person
from talks import Heard, Served, all_of, listening, served, until

from llama_index_hitl import Approve


@pytest.fixture
async def site() -> AsyncIterator[Served]:
    async with served() as made:
        yield made


async def start(url: str, run_id: str = "chat", **options: Any) -> list[Heard]:
    body = {"workflow": "essay", "inputs": {"topic": "tides"}, "run_id": run_id}
    return await post(url, "/api/chat", {**body, **options.pop("body", {})}, **options)


async def answer(url: str, question: Heard, decision: str = "approve", **fields: Any) -> Any:
    asked = question.data["request"]
    options = {"headers": fields.pop("headers", {}), "params": fields.pop("params", {})}
    body = {"decision": decision, "digest": asked["digest"], **fields}
    return await post(url, f"/api/chat/{asked['request_id']}", body, **options)


async def post(url: str, path: str, body: dict[str, Any], **options: Any) -> list[Heard]:
    async with listening(url, path, method="POST", json=body, **options) as events:
        return await all_of(events)


def names(events: list[Heard]) -> list[str]:
    return [event.name for event in events if event.name not in ("delta", "progress")]


def kept(events: list[Heard]) -> list[Heard]:
    return [event for event in events if event.id is not None]


async def refusal(site: Served, path: str, body: Any, who: str = "alice") -> tuple[int, str]:
    response = await site.post(path, json=body, headers=as_person(who))
    return response.status_code, response.json()["error"]["type"]


async def test_a_chat_streams_until_it_needs_somebody_and_another_post_goes_on(site: Served):
    first = await start(site.url)
    assert names(first) == ["run", "started", "input_required", "waiting"]
    question = first[-2]
    assert first[-1].data["open_requests"] == [question.data["request_id"]]
    assert {option["kind"] for option in question.data["request"]["decisions"]} >= {
        "approve",
        "reject",
    }
    assert site.app.state.site.hub.followers == 0
    second = await answer(site.url, question, "revise", feedback="Longer.")
    assert names(second) == ["receipt", "answered", "input_required", "waiting"]
    third = await answer(site.url, second[-2])
    assert names(third) == ["receipt", "answered", "final_result"]
    assert third[-1].data["result"] == {"published": "On tides. Longer."}
    run = await site.runner.get_run("chat")
    assert run.started_by == "alice"


async def test_the_same_post_again_is_the_same_run_and_tells_it_again(site: Served):
    first = await start(site.url)
    again = await start(site.url)
    assert kept(again) == kept(first)
    assert names(again) == names(first)
    behind = kept(first)[0].id
    rest = await start(site.url, headers={"Last-Event-ID": behind})
    assert kept(rest) == kept(first)[1:]
    nothing_new = await start(site.url, params={"after": kept(first)[-1].id})
    assert kept(nothing_new) == []
    # What is open is asked all the same: whoever has lost the connection may have lost that too.
    assert names(nothing_new) == ["run", "input_required", "waiting"]
    assert len(await site.runner.runs()) == 1


async def test_the_same_answer_again_gets_the_same_receipt_and_tells_the_rest_again(site: Served):
    question = (await start(site.url))[-2]
    body = {"decision": "approve", "digest": question.data["request"]["digest"]}
    path = f"/api/chat/{question.data['request_id']}"
    async with listening(site.url, path, method="POST", json=body) as events:
        receipt = await anext(events)
    again = await answer(site.url, question)
    assert again[0] == receipt
    assert names(again) == ["receipt", "answered", "final_result"]
    once_more = await answer(site.url, question)
    assert once_more == again
    rest = await answer(site.url, question, headers={"Last-Event-ID": again[1].id})
    assert kept(rest) == kept(again)[1:]
    over = await answer(site.url, question, params={"after": again[-1].id})
    assert names(over) == ["receipt", "final_result"]
    rows = await site.runner.history("chat")
    assert [row.entry.kind for row in rows].count("answered") == 1


async def test_the_connection_may_be_lost_while_the_run_is_at_work(site: Served):
    body = {"workflow": "essay", "inputs": {"topic": "tides"}, "run_id": "chat"}
    async with listening(site.url, "/api/chat", method="POST", json=body) as events:
        await until(events, "run")
    async with site.listening("/api/runs/chat/events") as events:
        question = (await until(events, "input_required"))[-1]
    assert names(await start(site.url))[-1] == "waiting"
    await site.runner.answer(question.data["request_id"], Approve(), by="alice")
    site.app.state.site.worker.nudge("chat")
    assert names(await start(site.url)) == ["run", "started", "opened", "answered", "final_result"]


async def test_other_open_questions_are_told_of_and_the_connection_closes(site: Served):
    first = await start(site.url, body={"workflow": "payments", "inputs": {}})
    questions = [event for event in first if event.name == "input_required"]
    assert len(questions) == 3
    left = {event.data["request_id"] for event in questions}
    for number, question in enumerate(questions):
        said = await answer(site.url, question)
        left.remove(question.data["request_id"])
        if number < 2:
            assert set(said[-1].data["open_requests"]) == left
            assert {e.data["request_id"] for e in said if e.name == "input_required"} == left
            assert said[-1].name == "waiting"
    assert said[-1].name == "final_result"


async def test_a_vote_that_does_not_decide_ends_in_the_same_question(site: Served):
    run = await site.runner.start("staged", by="bob")
    (record,) = await site.runner.pending(run_id=run.run_id)
    body = {"decision": "approve", "digest": record.request.digest, "role": "legal"}
    said = await post(
        site.url, f"/api/chat/{record.request_id}", body, who=as_person("ann", "legal")
    )
    assert names(said) == ["receipt", "answered", "input_required", "waiting"]
    assert not said[0].data["decides"]
    assert said[-1].data["open_requests"] == [record.request_id]
    assert not said[-2].data["request"]["can_answer"]


async def test_whoever_started_a_run_sees_what_others_are_asked(site: Served):
    first = await start(site.url, who=as_person("bob"))
    assert names(first) == ["run", "started", "input_required", "waiting"]
    assert not first[-2].data["request"]["can_answer"]


async def test_who_waits_for_others_is_told_so_and_not_what_they_are_asked(site: Served):
    run = await site.runner.start("staged", by="bob")
    (record,) = await site.runner.pending(run_id=run.run_id)
    path, digest = f"/api/chat/{record.request_id}", record.request.digest
    body = {"decision": "approve", "digest": digest, "role": "legal"}
    for name in ("ann", "lea"):
        said = await post(site.url, path, body, who=as_person(name, "legal"))
    assert names(said) == ["receipt", "answered", "waiting"]
    assert said[-1].data["open_requests"] == []
    chiefs = await site.runner.pending(run_id=run.run_id)
    assert [record.request.gate for record in chiefs] == ["chief"]


async def test_a_failed_run_says_so(site: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Essay, "fails", True)
    question = (await start(site.url))[-2]
    said = await answer(site.url, question)
    assert names(said) == ["receipt", "answered", "failed"]
    assert said[-1].data["error"]["message"] == "the printer is out of ink"


async def test_what_is_wrong_is_told_before_anything_is_streamed(site: Served):
    question = (await start(site.url))[-2]
    asked = question.data["request"]
    path, digest = f"/api/chat/{asked['request_id']}", asked["digest"]
    right = {"decision": "approve", "digest": digest}
    assert await refusal(site, path, {**right, "decision": "yes"}) == (422, "invalid_answer")
    assert await refusal(site, path, {"decision": "approve"}) == (422, "invalid")
    assert await refusal(site, path, {**right, "digest": "0" * 64}) == (409, "stale_request")
    assert await refusal(site, path, right, who="mallory") == (404, "unknown_request")
    assert await refusal(site, "/api/chat/none", right) == (404, "unknown_request")
    assert await refusal(site, f"{path}?after=x", right) == (422, "invalid_cursor")
    start_body = {"workflow": "essay", "inputs": {"topic": "x"}}
    assert await refusal(site, "/api/chat", {"workflow": "none"}) == (404, "unknown_workflow")
    assert await refusal(site, "/api/chat", {"workflow": "essay"}) == (422, "invalid_start")
    assert await refusal(site, "/api/chat", {**start_body, "x": 1}) == (422, "invalid")
    taken = {**start_body, "run_id": "chat"}
    assert await refusal(site, "/api/chat", taken, who="mallory") == (409, "run_exists")
    assert await refusal(site, "/api/chat", {**taken, "workflow": "asking", "inputs": {}}) == (
        409,
        "run_exists",
    )
    await answer(site.url, question)
    other = {**right, "decision": "reject"}
    assert await refusal(site, path, other) == (409, "already_answered")
    assert await site.runner.result("chat") == {"published": "On tides."}


async def test_a_server_is_killed_between_question_and_answer_and_another_one_goes_on(
    tmp_path: Any,
):
    path = str(tmp_path / "hitl.db")
    with ServerProcess(path) as first, ServerProcess(path) as second:
        said = await start(first.url)
        question = said[-2]
        async with listening(first.url, "/api/inbox/events") as inbox:
            state = await anext(inbox)
            first.kill()
        rest = await answer(second.url, question)
        assert names(rest) == ["receipt", "answered", "final_result"]
        async with listening(
            second.url, "/api/runs/chat/events", headers={"Last-Event-ID": kept(said)[-1].id}
        ) as events:
            assert [e.id for e in await all_of(events)] == [e.id for e in kept(rest)]
        async with listening(
            second.url, "/api/inbox/events", headers={"Last-Event-ID": state.id}
        ) as inbox:
            assert (await anext(inbox)).name == "answered"
            code, errors = second.stop()  # with a stream open
        assert (code, errors) == (0, "")
