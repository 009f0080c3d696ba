"""Server-Sent Events of a real server: live, to the right people, and again to who comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

import httpx
import pytest
from essays import Essay
from serving import as_person
from starlette.requests import HTTPConnection
from talks import Heard, Served, all_of, served, until

from llama_index_hitl import Reject, Reviewer, Revise
from llama_index_hitl.errors import StoreError
from llama_index_hitl.models import ReviewRequest
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.web import Visibility
from llama_index_hitl.web._story import Pause, Said
from llama_index_hitl.web._streams import encoded
from llama_index_hitl.web.limits import Limits


class Shaky(MemoryStore):
    """Cannot be reached so many times when a request is read."""

    failures = 0

    async def request(self, request_id: str) -> Any:
        if self.failures > 0:
            self.failures -= 1
            raise StoreError("the store cannot be reached")
        return await super().request(request_id)


@pytest.fixture
async def site() -> AsyncIterator[Served]:
    async with served() as made:
        yield made


async def nobody_follows(site: Served) -> None:
    """Wait until the server has noticed that its clients have gone."""
    while site.app.state.site.hub.followers:  # noqa: ASYNC110 - there is no event for that
        await asyncio.sleep(0)


def names(events: Collection[Heard]) -> list[str]:
    return [event.name for event in events]


async def dropping(
    site: Served, path: str, count: int, *, by_header: bool, after: str | None = None
) -> list[Heard]:
    """Follow a stream with a connection for each event that is kept."""
    got: list[Heard] = []
    while len(got) < count:
        options: dict[str, Any] = {}
        if after is not None and by_header:
            # A browser keeps the address that it began with, and sends the header beside it.
            options = {"headers": {"Last-Event-ID": after}, "params": {"after": "outdated"}}
        elif after is not None:
            options = {"params": {"after": after}}
        async with site.listening(path, **options) as events:
            async for event in events:
                if event.id is not None:
                    got.append(event)
                    after = event.id
                    break
    return got


# --------------------------------------------------------------------------- a run


async def test_a_run_is_followed_from_its_beginning_to_its_end(site: Served):
    run = await site.start()
    path = f"/api/runs/{run.run_id}/events"
    async with site.listening(path) as events:
        first = await until(events, "input_required")
        await site.answer(run, Revise(feedback="Longer."))
        again = await until(events, "input_required")
        await site.answer(run)
        rest = await all_of(events)
    assert [n for n in names(first) if n != "progress"] == ["started", "input_required"]
    assert "answered" in names(again)
    answered = next(event for event in again if event.name == "answered")
    assert answered.data["by"] == "alice"
    assert answered.data["kind"] == "revise"
    assert answered.data["summary"]["status"] == "revised"
    question = again[-1].data["request"]
    assert question["revision"] == 2
    assert question["request"]["subject"]["data"]["text"] == "On tides. Longer."
    assert question["decisions"][0]["kind"] == "approve"
    assert rest[-1].name == "final_result"
    assert rest[-1].data["result"] == {"published": "On tides. Longer."}


async def test_whoever_comes_when_a_run_is_over_gets_all_of_it_and_its_end(site: Served):
    run = await site.start()
    async with site.listening(f"/api/runs/{run.run_id}/events") as events:
        await site.answer(run)
        live = await all_of(events)
    async with site.listening(f"/api/runs/{run.run_id}/events") as events:
        later = await all_of(events)
    assert [e.id for e in later] == [e.id for e in live if e.name != "delta"]
    assert later[-1].name == "final_result"
    # What is closed is not asked for again.
    assert "input_required" not in names(later)
    assert "opened" in names(later)


async def test_who_has_been_told_all_of_a_run_is_told_to_stay_away(site: Served):
    run = await site.start()
    await site.answer(run)
    path = f"/api/runs/{run.run_id}/events"
    async with site.listening(path) as events:
        last = (await all_of(events))[-1]
    gone = await site.get(path, headers={"Last-Event-ID": last.id})
    assert gone.status_code == 204
    assert (await site.get(path, params={"after": last.id})).status_code == 204
    elsewhere = await site.runner.store.feed_end()
    assert (await site.get(path, params={"after": elsewhere})).status_code == 204


@pytest.mark.parametrize("by_header", [True, False], ids=["Last-Event-ID", "after"])
async def test_a_client_that_drops_after_each_event_gets_every_event_once(
    site: Served, by_header: bool
):
    run = await site.start()
    path = f"/api/runs/{run.run_id}/events"
    asked = await dropping(site, path, 2, by_header=by_header)
    assert asked[-1].name in ("input_required", "progress")

    async def go_on() -> None:
        await site.answer(run, Revise(feedback="Longer."))
        async with site.listening(path) as events:
            await until(events, "input_required")
        await site.answer(run)

    going = asyncio.create_task(go_on())
    whole = [event.cursor for event in await site.runner.store.feed(run_id=run.run_id)]
    got = asked
    while got[-1].name != "final_result":
        got += await dropping(site, path, 1, by_header=by_header, after=got[-1].id)
    await going
    whole = [event.cursor for event in await site.runner.store.feed(run_id=run.run_id)]
    assert [event.id for event in got] == whole


async def test_a_failed_run_ends_the_stream_and_one_that_is_tried_again_goes_on(
    site: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Essay, "fails", True)
    run = await site.start()
    path = f"/api/runs/{run.run_id}/events"
    async with site.listening(path) as events:
        await site.answer(run)
        failed = (await all_of(events))[-1]
    assert failed.name == "failed"
    assert failed.data["error"] == {
        "type": "ConnectionError",
        "message": "the printer is out of ink",
    }
    assert (await site.get(path, params={"after": failed.id})).status_code == 204
    monkeypatch.setattr(Essay, "fails", False)
    await site.runner.retry(run.run_id, by="bob")
    async with site.listening(path, params={"after": failed.id}) as events:
        rest = await all_of(events)
    assert [n for n in names(rest) if n != "progress"] == ["retried", "final_result"]


async def test_a_run_that_is_cancelled_says_so(site: Served):
    run = await site.start()
    async with site.listening(f"/api/runs/{run.run_id}/events") as events:
        await until(events, "input_required")
        await site.runner.cancel(run.run_id, by="bob", reason="No need.")
        site.app.state.site.hub.ring()
        rest = await all_of(events)
    assert {"cancelled", "withdrawn"} == set(names(rest))


async def test_text_is_told_as_it_is_written_and_is_not_kept(site: Served):
    run = await site.runner.enqueue("essay", by="alice", run_id="live", inputs={"topic": "tides"})
    async with site.listening(f"/api/runs/{run.run_id}/events") as events:
        await until(events, "started")
        site.app.state.site.worker.nudge(run.run_id)
        live = await until(events, "input_required")
    written = [event for event in live if event.name == "delta"]
    assert "".join(event.data["text"] for event in written) == "Once upon a time"
    assert {event.id for event in written} == {None}
    async with site.listening(f"/api/runs/{run.run_id}/events") as events:
        assert "delta" not in names(await until(events, "input_required"))


# --------------------------------------------------------------------------- who sees what


async def test_who_may_not_see_a_run_gets_what_who_asks_for_none_gets(site: Served):
    run = await site.start()
    mallory = {"headers": as_person("mallory")}
    hidden = await site.get(f"/api/runs/{run.run_id}/events", **mallory)
    absent = await site.get("/api/runs/no-such-run/events", **mallory)
    assert hidden.status_code == absent.status_code == 404
    hidden, absent = hidden.json()["error"], absent.json()["error"]
    assert hidden.pop("run_id") == run.run_id
    assert absent.pop("run_id") == "no-such-run"
    assert hidden == absent


async def test_without_a_name_nothing_is_streamed(site: Served):
    run = await site.start()
    async with httpx.AsyncClient(base_url=site.url, trust_env=False) as client:
        for path in ("/api/inbox/events", f"/api/runs/{run.run_id}/events"):
            assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize(
    "options", [{"headers": {"Last-Event-ID": "1"}}, {"params": {"after": "x"}}]
)
async def test_a_place_that_is_none_is_refused(site: Served, options: Any):
    run = await site.start()
    for path in ("/api/inbox/events", f"/api/runs/{run.run_id}/events"):
        refused = await site.get(path, **options)
        assert refused.status_code == 422
        assert refused.json()["error"]["problems"][0]["field"] == "after"


async def test_the_inbox_tells_people_of_what_they_may_see_only(site: Served):
    async with (
        site.listening("/api/inbox/events") as alices,
        site.listening("/api/inbox/events", as_person("erin", "editor")) as erins,
        site.listening("/api/inbox/events", as_person("mallory")) as mallorys,
    ):
        for events in (alices, erins, mallorys):
            assert (await anext(events)).name == "state"
        run = await site.start()
        seen = [await anext(alices), await anext(erins)]
        await site.answer(run)
        seen += [await anext(alices), await anext(erins)]
        theirs = await site.runner.start("plain", by="bob")  # is for everybody
        site.app.state.site.hub.ring()
        for events in (alices, erins, mallorys):
            event = await anext(events)
            assert (event.name, event.data["run_id"]) == ("opened", theirs.run_id)
    assert names(seen) == ["opened", "opened", "answered", "answered"]
    assert {event.data["run_id"] for event in seen} == {run.run_id}
    assert seen[0].data["summary"]["can_answer"]
    assert seen[2].data["summary"]["status"] == "approved"


async def test_the_inbox_tells_whoever_started_a_run_what_becomes_of_what_it_asks(site: Served):
    async with site.listening("/api/inbox/events", as_person("bob")) as bobs:
        assert (await anext(bobs)).name == "state"
        await site.start(by="carl")
        run = await site.start(by="bob")
        await site.answer(run)
        seen = [await anext(bobs), await anext(bobs)]
    assert names(seen) == ["opened", "answered"]
    assert {event.data["run_id"] for event in seen} == {run.run_id}
    assert not seen[0].data["summary"]["can_answer"]


async def test_an_inbox_that_drops_gets_every_event_once(site: Served):
    async with site.listening("/api/inbox/events") as events:
        state = await anext(events)
    runs = [await site.start(f"topic {number}") for number in range(3)]
    first = await dropping(site, "/api/inbox/events", 2, by_header=True, after=state.id)
    for run in runs:
        await site.answer(run, Reject())
    got = first + await dropping(site, "/api/inbox/events", 4, by_header=True, after=first[-1].id)
    feed = await site.runner.store.feed(after=state.id)
    assert [event.id for event in got] == [
        event.cursor for event in feed if event.request_id is not None
    ]
    assert names(got) == ["opened"] * 3 + ["answered"] * 3


async def test_what_is_hidden_stays_hidden_in_a_question():
    class Careful(Visibility):
        def hidden_fields(self, person: Reviewer, request: ReviewRequest) -> Collection[str]:
            return ("text",)

    async with served(visibility=Careful()) as site:
        run = await site.start()
        async with site.listening(f"/api/runs/{run.run_id}/events") as events:
            first = await until(events, "input_required")
            await site.answer(run)
            rest = await all_of(events)
    subject = first[-1].data["request"]["request"]["subject"]
    assert subject["data"] == {"topic": "tides", "text": "•••"}
    said = next(event for event in first if event.name == "progress")
    assert (said.data["message"], said.data["data"]) == (None, {})
    assert rest[-1].data["result"] is None
    assert rest[-1].data["withheld"]
    assert "On tides." not in str(first + rest)


async def test_whoever_loses_a_role_sees_no_more_from_then_on():
    roles = {"erin": ("editor",)}

    def authenticate(connection: HTTPConnection) -> Reviewer | None:
        name = connection.headers["x-person"]
        return Reviewer(id=name, roles=roles[name]) if name in roles else None

    async with served(authenticate=authenticate) as site:
        run = await site.start()
        erin = as_person("erin")
        async with (
            site.listening(f"/api/runs/{run.run_id}/events", erin) as events,
            site.listening("/api/inbox/events", erin) as inbox,
        ):
            await until(events, "input_required")
            await until(inbox, "state")
            roles["erin"] = ()
            await site.answer(run, Revise(feedback="Longer."))
            assert await all_of(events) == []
            everybodys = await site.runner.start("plain")
            site.app.state.site.hub.ring()
            event = await anext(inbox)
            assert event.data["run_id"] == everybodys.run_id
            del roles["erin"]  # signed out
            await site.start()
            assert await all_of(inbox) == []


async def test_nobody_has_more_streams_open_than_they_may():
    async with served(limits=Limits(streams=2)) as site:
        path = "/api/inbox/events"
        async with site.listening(path) as one, site.listening(path) as two:
            await anext(one)
            await anext(two)
            refused = await site.get(path)
            assert refused.status_code == 429
            assert refused.headers["retry-after"]
            async with site.listening(path, as_person("erin")) as other:
                await anext(other)
        await nobody_follows(site)
        async with site.listening(path) as again:
            assert (await anext(again)).name == "state"


# --------------------------------------------------------------------------- what goes wrong


async def test_a_stream_outlives_a_store_that_cannot_be_reached():
    store = Shaky()
    async with served(store) as site, site.listening("/api/inbox/events") as events:
        await anext(events)
        run = await site.runner.start("essay", topic="tides")
        store.failures = 1
        site.app.state.site.hub.ring()
        event = await anext(events)
        assert (event.name, event.data["run_id"]) == ("opened", run.run_id)
        assert store.failures == 0


async def test_a_server_that_stops_ends_its_streams():
    async with served() as site:
        run = await site.start()
        async with (
            site.listening(f"/api/runs/{run.run_id}/events") as events,
            site.listening("/api/inbox/events") as inbox,
        ):
            await until(events, "input_required")
            await anext(inbox)
            begun = time.monotonic()
            await site.app.state.site.hub.close()
            assert await all_of(events) == []
            assert await all_of(inbox) == []
            assert time.monotonic() - begun < 2


async def test_a_client_that_has_gone_is_not_followed_for():
    async with served() as site:
        run = await site.start()
        hub = site.app.state.site.hub
        async with site.listening(f"/api/runs/{run.run_id}/events") as events:
            await until(events, "input_required")
            assert hub.followers == 1
        await nobody_follows(site)


def test_an_event_is_one_line_of_json_and_a_pause_moves_the_id_on():
    said = Said("progress", {"message": "two\nlines\r\u2028and \ud7ff more", "x": 1.5}, "c1")
    lines = encoded(said).decode().split("\n")
    assert lines[0] == "event: progress"
    assert lines[1].startswith('data: {"message":"two\\nlines\\r')
    assert lines[2:] == ["id: c1", "", ""]
    assert encoded(Said("delta", {"text": "a"})) == b'event: delta\ndata: {"text":"a"}\n\n'
    assert encoded(Pause("c2")) == b":\nid: c2\n\n"
    assert encoded(Pause(None)) == b":\n\n"
