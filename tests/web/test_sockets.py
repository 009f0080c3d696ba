"""WebSockets of a real server: runs are started, followed and answered over them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from essays import Essay
from serving import as_person
from talks import Served, served
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from llama_index_hitl import Approve, Reviewer
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.web.limits import Limits


class Socket:
    """A client."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def answer(self, question: Any, decision: str = "approve", **more: Any) -> None:
        """Answer what a question asks."""
        asked = question["request"]
        given = {"request_id": asked["request_id"], "digest": asked["digest"], **more}
        await self.say(type="answer", decision=decision, **given)

    async def next(self) -> dict[str, Any]:
        return json.loads(await self.connection.recv())

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Return what is said up to the first message of a type."""
        found = [await self.next()]
        while found[-1]["type"] != kind:
            found.append(await self.next())
        return found

    async def rest(self) -> tuple[list[dict[str, Any]], int]:
        """Return what is said until it is closed, and the code that it is closed with."""
        found = []
        try:
            while True:
                found.append(await self.next())
        except ConnectionClosed as closed:
            return found, -1 if closed.rcvd is None else closed.rcvd.code


@asynccontextmanager
async def socket(
    site: Served, path: str = "/api/socket", who: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Socket]:
    headers = as_person("alice") if who is None else who
    url = site.url.replace("http", "ws") + path
    async with connect(url, additional_headers=headers, proxy=None, **options) as connection:
        yield Socket(connection)


@pytest.fixture
async def site() -> AsyncIterator[Served]:
    async with served() as made:
        yield made


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


# --------------------------------------------------------------------------- as it should be


async def test_a_run_is_started_followed_and_answered_over_one_socket(site: Served):
    async with socket(site) as talk:
        await talk.say(type="start", workflow="essay", inputs={"topic": "tides"})
        started = await talk.next()
        assert started["type"] == "started"
        first = await talk.until("input_required")
        assert "".join(m["text"] for m in first if m["type"] == "delta") == "Once upon a time"
        await talk.answer(first[-1], "revise", feedback="Longer.")
        again = await talk.until("input_required")
        receipt = next(m for m in again if m["type"] == "receipt")
        assert (receipt["kind"], receipt["by"], receipt["decides"]) == ("revise", "alice", True)
        await talk.answer(again[-1], "edit", **{"subject.text": "Shorter."})
        rest, code = await talk.rest()
    assert "receipt" in kinds(rest)
    assert rest[-1]["type"] == "final_result"
    assert rest[-1]["result"] == {"published": "Shorter."}
    assert code == 1000
    run = await site.runner.get_run(started["run_id"])
    assert run.started_by == "alice"
    answered = [
        r.entry for r in await site.runner.history(run.run_id) if r.entry.kind == "answered"
    ]
    assert [entry.channel for entry in answered] == ["socket", "socket"]


async def test_a_start_that_is_repeated_follows_the_same_run(site: Served):
    start = {"type": "start", "workflow": "essay", "inputs": {"topic": "x"}, "run_id": "mine"}
    async with socket(site) as talk:
        await talk.say(**start)
        first = await talk.until("input_required")
    async with socket(site) as talk:
        await talk.say(**start)
        again = await talk.until("input_required")
    kept = [m for m in first if m["type"] != "delta"]
    assert again == kept


async def test_a_client_that_drops_after_each_message_gets_every_message_once(site: Served):
    run = await site.start()
    got: list[dict[str, Any]] = []
    while not got or got[-1]["type"] != "final_result":
        after = f"?after={got[-1]['cursor']}" if got else ""
        async with socket(site, f"/api/runs/{run.run_id}/socket{after}") as talk:
            message = await talk.next()
            while message.get("cursor") is None:  # what is not kept: receipts, text being written
                message = await talk.next()
            got.append(message)
            if message["type"] == "input_required":
                again = "revise" if message["request"]["revision"] == 1 else "approve"
                more = {"feedback": "Longer."} if again == "revise" else {}
                await talk.answer(message, again, **more)
                # Whatever comes between the answer and the receipt comes again.
                await talk.until("receipt")
    whole = [event.cursor for event in await site.runner.store.feed(run_id=run.run_id)]
    assert [message["cursor"] for message in got] == whole


async def test_the_connection_may_be_lost_as_soon_as_an_answer_was_sent(site: Served):
    run = await site.start()
    path = f"/api/runs/{run.run_id}/socket"
    async with socket(site, path) as talk:
        question = (await talk.until("input_required"))[-1]
        await talk.answer(question)
        talk.connection.transport.abort()
    async with socket(site, path) as talk:
        await talk.answer(question)  # as a client does that got no receipt
        everything, code = await talk.rest()
    receipts = [m for m in everything if m["type"] in ("receipt", "refused")]
    assert kinds(receipts) in (["receipt"], [])  # or the run was over before it was heard
    assert everything[-1]["type"] == "final_result"
    assert code == 1000
    rows = await site.runner.history(run.run_id)
    assert [row.entry.kind for row in rows].count("answered") == 1


async def test_a_failed_run_ends_the_conversation(site: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Essay, "fails", True)
    run = await site.start()
    async with socket(site, f"/api/runs/{run.run_id}/socket") as talk:
        await talk.answer((await talk.until("input_required"))[-1])
        rest, code = await talk.rest()
    assert (rest[-1]["type"], rest[-1]["error"]["type"]) == ("failed", "ConnectionError")
    assert code == 1000


async def test_two_people_over_two_sockets_and_one_of_them_is_first(site: Served):
    run = await site.start()
    path = f"/api/runs/{run.run_id}/socket"
    async with socket(site, path) as alice, socket(site, path, as_person("e", "editor")) as erin:
        question = (await alice.until("input_required"))[-1]
        await erin.until("input_required")
        await site.runner.answer(question["request"]["request_id"], Approve(), by="alice")
        await erin.answer(question, "reject")
        refused = (await erin.until("refused"))[-1]
    assert refused["request_id"] == question["request"]["request_id"]
    assert refused["error"]["type"] == "already_answered"
    assert refused["error"]["by"] == "alice"


# --------------------------------------------------------------------------- who may


async def test_who_is_not_signed_in_is_told_so_and_hung_up_on(site: Served):
    run = await site.start()
    for path in ("/api/socket", f"/api/runs/{run.run_id}/socket"):
        async with socket(site, path, {}) as talk:
            said, code = await talk.rest()
        assert [m["error"]["type"] for m in said] == ["not_signed_in"]
        assert code == 4401


async def test_a_page_of_another_site_is_refused_before_it_is_heard(site: Served):
    with pytest.raises(InvalidStatus) as refused:
        async with socket(site, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    async with socket(site, origin=site.url) as talk:
        await talk.say(type="start", workflow="essay", inputs={"topic": "x"})
        assert (await talk.next())["type"] == "started"


async def test_who_may_not_see_a_run_is_told_that_there_is_none(site: Served):
    run = await site.start()
    for run_id in (run.run_id, "no-such-run"):
        async with socket(site, f"/api/runs/{run_id}/socket", as_person("mallory")) as talk:
            said, code = await talk.rest()
        assert [m["error"]["type"] for m in said] == ["unknown_run"]
        assert code == 4404


async def test_a_place_that_is_none_is_refused(site: Served):
    run = await site.start()
    async with socket(site, f"/api/runs/{run.run_id}/socket?after=nowhere") as talk:
        said, code = await talk.rest()
    assert [m["error"]["type"] for m in said] == ["invalid_cursor"]
    assert code == 4422


async def test_an_answer_counts_for_the_run_of_the_socket_and_for_what_was_shown_only(
    site: Served,
):
    mine, other = await site.start("mine"), await site.start("other")
    async with socket(site, f"/api/runs/{mine.run_id}/socket") as talk:
        question = (await talk.until("input_required"))[-1]
        asked = question["request"]["request_id"]
        wrong = {
            "unknown_request": {"request_id": await site.request_of(other)},
            "stale_request": {"digest": "0" * 64},
            "invalid_answer": {"decision": "yes"},
        }
        for kind, changed in wrong.items():
            right = {"request_id": asked, "digest": question["request"]["digest"]}
            await talk.say(**{"type": "answer", "decision": "approve", **right, **changed})
            refused = (await talk.until("refused"))[-1]
            assert refused["error"]["type"] == kind
            assert refused["request_id"] == changed.get("request_id", asked)
        await talk.answer(question, role=7)
        assert (await talk.until("refused"))[-1]["error"]["problems"][0]["field"] == "role"
    for run in (mine, other):
        (record,) = await site.runner.pending(run_id=run.run_id)
        assert record.answers == ()


async def test_whoever_sees_and_may_not_answer_is_refused(site: Served):
    run = await site.start(by="bob")
    async with socket(site, f"/api/runs/{run.run_id}/socket", as_person("ann", "auditor")) as talk:
        question = (await talk.until("input_required"))[-1]
        assert not question["request"]["can_answer"]
        await talk.answer(question)
        assert (await talk.until("refused"))[-1]["error"]["type"] == "not_allowed"


async def test_whoever_is_signed_out_meanwhile_cannot_answer_any_more():
    people = {"alice"}

    def authenticate(connection: Any) -> Reviewer | None:
        name = connection.headers["x-person"]
        return Reviewer(id=name) if name in people else None

    async with served(authenticate=authenticate) as site:
        run = await site.start()
        async with socket(site, f"/api/runs/{run.run_id}/socket") as talk:
            question = (await talk.until("input_required"))[-1]
            people.clear()
            await talk.answer(question)
            said, code = await talk.rest()
        assert code == 4401
        assert "receipt" not in kinds(said)


async def test_nobody_has_more_sockets_open_than_they_may():
    async with served(limits=Limits(streams=1)) as site:
        async with socket(site), socket(site) as second:
            said, code = await second.rest()
        assert [m["error"]["type"] for m in said] == ["too_many"]
        assert code == 4429


# --------------------------------------------------------------------------- what makes no sense

NONSENSE = [
    "",
    "hello",
    "{",
    "[]",
    "null",
    '"answer"',
    "{}",
    '{"type": "stop"}',
    '{"type": ["answer"]}',
    '{"type": "answer"}',
    '{"type": "answer", "request_id": 7, "digest": "x", "decision": "approve"}',
    '{"type": "answer", "request_id": "x", "decision": "approve"}',
    '{"type": "answer", "type": "answer", "request_id": "x", "digest": "x"}',
    "[" * 100_000,
    b"\x00\xff",
    '{"type": "answer", "request_id": "x", "digest": "x", "decision": '
    + "[" * 100
    + "]" * 100
    + "}",
    '{"type": "answer", "padding": "' + "x" * (1 << 20) + '"}',
]


async def test_what_makes_no_sense_is_refused_and_the_conversation_goes_on(site: Served):
    for sent in NONSENSE:
        run = await site.start()
        async with socket(site, f"/api/runs/{run.run_id}/socket") as talk:
            question = (await talk.until("input_required"))[-1]
            await talk.connection.send(sent)
            refused = await talk.next()
            assert refused["type"] == "refused", sent[:40]
            assert refused["error"]["type"] == "not_understood", sent[:40]
            await talk.answer(question)
            assert (await talk.rest())[0][-1]["type"] == "final_result"


async def test_a_message_is_limited_as_a_body_is():
    async with served(limits=Limits(body=200)) as site, socket(site) as talk:
        await talk.say(type="start", workflow="essay", inputs={"topic": "x" * 200})
        refused = await talk.next()
        assert refused["error"]["message"].endswith("a message has 200 bytes at most.")
        await talk.say(type="start", workflow="essay", inputs={"topic": "tides"})
        assert (await talk.next())["type"] == "started"


async def test_who_makes_no_sense_for_too_long_is_hung_up_on(site: Served):
    run = await site.start()
    async with socket(site, f"/api/runs/{run.run_id}/socket") as talk:
        await talk.until("input_required")
        for _ in range(10):
            await talk.connection.send("?")
        said, code = await talk.rest()
    assert kinds(said) == ["refused"] * 10
    assert code == 1008
    assert (await site.runner.get_run(run.run_id)).status == "waiting"


async def test_a_start_that_does_not_work_can_be_corrected(site: Served):
    wrong = [
        ({}, "not_understood"),
        ({"workflow": "essay", "inputs": []}, "not_understood"),
        ({"workflow": "essay", "inputs": {"topic": "x"}, "run_id": 1}, "not_understood"),
        ({"workflow": "nothing"}, "unknown_workflow"),
        ({"workflow": "essay"}, "invalid_start"),
    ]
    async with socket(site) as talk:
        await talk.say(type="answer", request_id="x", digest="x", decision="approve")
        assert (await talk.next())["error"]["type"] == "not_understood"
        for fields, kind in wrong:
            await talk.say(type="start", **fields)
            refused = await talk.next()
            assert (refused["type"], refused["error"]["type"]) == ("refused", kind)
        await talk.say(type="start", workflow="essay", inputs={"topic": "x"})
        assert (await talk.next())["type"] == "started"
    assert len(await site.runner.runs()) == 1


async def test_nobody_gets_to_a_run_of_somebody_else_by_its_id(site: Served):
    await site.runner.start("essay", by="bob", run_id="bobs", topic="x")
    async with socket(site, who=as_person("mallory")) as talk:
        await talk.say(type="start", workflow="essay", inputs={"topic": "x"}, run_id="bobs")
        refused = await talk.next()
    assert (refused["type"], refused["error"]["type"]) == ("refused", "run_exists")


async def test_a_server_that_stops_hangs_up():
    async with served(MemoryStore()) as site:
        run = await site.start()
        async with socket(site, f"/api/runs/{run.run_id}/socket") as talk:
            await talk.until("input_required")
            await site.app.state.site.hub.close()
            assert await talk.rest() == ([], 1012)
