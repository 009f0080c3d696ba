"""The pages of starts, runs and audit trails, through the ASGI client."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from html import unescape
from typing import Any, ClassVar

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Mount
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import Approved, Rejected, Review, Revision
from llama_index_hitl.audit import AuditRow
from llama_index_hitl.models import Reviewer, ReviewRequest
from llama_index_hitl.rules import rule
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.web import Visibility, create_app

ALICE, BOB, ROOT, EVE = "alice", "bob:legal", "root:admin", "eve"
HOSTILE = "<script>alert(1)</script>"


class MemoStart(StartEvent):
    topic: str
    pages: int = Field(default=1, ge=1, description="How long it may be.")


class Text(BaseModel):
    text: str = Field(json_schema_extra={"format": "markdown"})
    salary: int = 7000


class Memo(Event):
    topic: str
    draft: Text


class Said(Event):
    message: str


class MemoResult(StopEvent):
    memo: str
    words: int


class MemoFlow(Workflow):
    """Writes a memo, and has it approved.

    Args:
        clock: Not for those who start it.
    """

    @step
    async def write(self, ctx: Context, ev: MemoStart | Revision) -> Memo:
        topic = ev.topic if isinstance(ev, MemoStart) else f"{ev.proposal.topic}, {ev.feedback}"
        ctx.write_event_to_stream(Said(message=f"Writing about {topic}"))
        return Memo(topic=topic, draft=Text(text=f"On **{topic}**"))

    approval = Review(
        Memo,
        subject="draft",
        title=lambda _, ev: f"Memo on {ev.topic}",
        reviewers="role:legal",
        revise=Revision,
        rejected=Rejected,
    )

    @step
    async def publish(self, ev: Approved) -> MemoResult:
        return MemoResult(memo=f"# Memo\n\nOn **{ev.proposal.topic}**.", words=2)

    @step
    async def drop(self, ev: Rejected) -> MemoResult:
        return MemoResult(memo="", words=0)


class FreeFlow(Workflow):
    """Takes whatever it is given."""

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=dict(ev.items()))


class Checked(Approved):
    """A rule has let it pass."""


class RuledFlow(Workflow):
    """Says what a salary is, has a rule and then people approve it, and fails with it."""

    @step
    async def write(self, ctx: Context, ev: StartEvent) -> Memo:
        ctx.write_event_to_stream(Said(message="The salary is 7000"))
        return Memo(topic="mice", draft=Text(text="On mice"))

    check = Review(
        Memo,
        subject="draft",
        reviewers="role:legal",
        when=rule("small", lambda _: True, then="approve", reason="7000 is not much"),
        approved=Checked,
    )
    approval = Review(Checked, reviewers="role:legal")

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        raise ConnectionError("7000 could not be paid")


class FragileFlow(Workflow):
    """Fails as long as it is told to."""

    broken: ClassVar[bool] = True

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        if type(self).broken:
            raise ConnectionError("the bank is closed")
        return StopEvent(result="paid")


class Picky(Visibility):
    """Nobody but Bob starts anything free, and nobody but admins sees salaries."""

    def may_start(self, person: Reviewer, workflow: str) -> bool:
        return workflow != "free" or person.id == "bob"

    def hidden_fields(self, person: Reviewer, request: ReviewRequest) -> tuple[str, ...]:
        return () if self.is_admin(person) or person.id != "carol" else ("salary",)


@pytest.fixture
def workflows() -> Mapping[str, type[Workflow]]:
    return {"memo": MemoFlow, "free": FreeFlow, "fragile": FragileFlow, "ruled": RuledFlow}


@pytest.fixture
def visibility() -> Visibility:
    return Picky()


class Browser:
    """Somebody at their pages."""

    def __init__(self, client: httpx.AsyncClient, app: FastAPI) -> None:
        self._client = client
        self._app = app

    async def get(self, path: str, status: int = 200) -> str:
        response = await self._client.get(path)
        assert response.status_code == status, response.text
        return response.text

    async def post(self, path: str, data: Any = None, status: int = 303) -> httpx.Response:
        response = await self._client.post(path, data=data)
        assert response.status_code == status, response.text
        await self.settled()
        return response

    async def start(self, workflow: str, **fields: str) -> str:
        """Start a run over its form; return where it is shown."""
        page = await self.get(f"/start/{workflow}")
        response = await self.post(f"/start/{workflow}", {**hidden_in(page), **fields})
        return str(response.headers["location"])

    async def settled(self) -> None:
        """Let the runs come to where they go no further."""
        while tasks := tuple(self._app.state.site.worker._tasks):
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def browser_of(app: FastAPI, client_of: Any) -> Any:
    return lambda person: Browser(client_of(person), app)


def hidden_in(page: str) -> dict[str, str]:
    """Return the hidden inputs of a page's form."""
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))


def text_of(page: str) -> str:
    """Return what a page says, without its markup."""
    body = page.partition("<main")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


# --------------------------------------------------------------------------- starting


async def test_what_a_person_may_start_is_listed_in_the_words_of_the_workflows(
    browser_of: Any,
) -> None:
    listed = text_of(await browser_of(ALICE).get("/start"))
    assert "Writes a memo, and has it approved." in listed
    assert "Asks for topic, pages" in listed
    assert "Free" not in listed
    assert "Free" in text_of(await browser_of(BOB).get("/start"))
    await browser_of(ALICE).get("/start/free", 404)
    await browser_of(ALICE).post("/start/free", {}, 404)


async def test_the_form_is_made_of_the_start_event(browser_of: Any) -> None:
    page = await browser_of(ALICE).get("/start/memo")
    assert re.search(r'name="topic"[^>]* aria-required="true"', page)
    assert re.search(r'name="pages"[^>]* value="1"', page)
    assert "How long it may be." in page
    assert "Not for those who start it" not in page


async def test_a_run_is_started_over_its_form_and_belongs_to_who_did_it(
    browser_of: Any, runner: Runner
) -> None:
    place = await browser_of(ALICE).start("memo", topic="mice")
    (run,) = (await runner.runs()).items
    assert (place, run.started_by, run.status) == (f"/runs/{run.run_id}", "alice", "waiting")


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        ({"topic": " "}, "topic", "This is needed."),
        ({"topic": "mice", "pages": "two"}, "pages", "this must be a whole number"),
        ({"topic": "mice", "pages": "0"}, "pages", "0 is less than the minimum of 1"),
    ],
)
async def test_what_does_not_fit_is_said_at_its_field_and_nothing_is_started(
    browser_of: Any, runner: Runner, fields: dict[str, str], name: str, message: str
) -> None:
    response = await browser_of(ALICE).post("/start/memo", fields, 422)
    field = response.text.partition(f'data-field="{name}"')[2].partition("</div>")[0]
    assert message in field
    assert 'aria-invalid="true"' in field
    for value in fields.values():
        assert f'value="{value}"' in response.text
    assert not (await runner.runs()).items


async def test_a_form_that_is_sent_twice_starts_one_run(browser_of: Any, runner: Runner) -> None:
    alice = browser_of(ALICE)
    form = {**hidden_in(await alice.get("/start/memo")), "topic": "mice"}
    first = await alice.post("/start/memo", form)
    again = await alice.post("/start/memo", form)
    assert first.headers["location"] == again.headers["location"]
    # Somebody who went back and typed something else means another run.
    other = await alice.post("/start/memo", {**form, "topic": "owls"})
    # And a form id is nobody's key to the run of another person.
    theirs = await browser_of(BOB).post("/start/memo", form)
    places = {r.headers["location"] for r in (first, other, theirs)}
    assert len(places) == len((await runner.runs()).items) == 3


async def test_a_workflow_that_declares_nothing_takes_names_and_values(
    browser_of: Any, runner: Runner
) -> None:
    pairs = {"_name": ["colour", "", "size"], "_value": ["red", "", "12"]}
    response = await browser_of(BOB).post("/start/free", {**pairs, "_as_json": '{"size2": 12}'})
    run_id = response.headers["location"].rpartition("/")[2]
    assert await runner.result(run_id) == {"colour": "red", "size": "12", "size2": 12}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"_name": ["a", "a"], "_value": ["1", "2"]}, "A name is there twice."),
        ({"_name": [""], "_value": ["1"]}, "A value has no name."),
        ({"_as_json": "[1]"}, "This must be an object"),
        ({"_as_json": "{"}, "This is not JSON"),
        ({"_name": ["a"], "_value": ["1"], "_as_json": '{"a": 2}'}, "a is there twice."),
        ({"_name": ["ctx"], "_value": ["1"]}, "no field can be called this"),
    ],
)
async def test_names_and_values_that_cannot_be_are_refused(
    browser_of: Any, runner: Runner, data: dict[str, Any], message: str
) -> None:
    response = await browser_of(BOB).post("/start/free", data, 422)
    assert message in text_of(response.text)
    assert not (await runner.runs()).items


# --------------------------------------------------------------------------- one run


async def test_a_run_is_shown_from_its_start_to_its_result(browser_of: Any, desk: Any) -> None:
    alice = browser_of(ALICE)
    place = await alice.start("memo", topic="mice")
    shown = text_of(await alice.get(place))
    assert "Waiting for people" in shown
    assert "Writing about mice" in shown
    assert "Asked of legal" in shown
    assert "Review and decide" not in shown
    assert "Review and decide" in text_of(await browser_of(BOB).get(place))

    (asked,) = (await desk.get(BOB, "/requests")).json()["items"]
    answer = {"decision": "revise", "feedback": "and rats", "digest": asked["digest"]}
    await desk.post(BOB, f"/requests/{asked['request_id']}/answer", answer)
    await alice.settled()
    shown = text_of(await alice.get(place))
    assert re.search(r"bob sent it back .* and rats", shown)
    assert "revision 2" in shown

    (asked,) = (await desk.get(BOB, "/requests")).json()["items"]
    answer = {"decision": "approve", "digest": asked["digest"]}
    await desk.post(BOB, f"/requests/{asked['request_id']}/answer", answer)
    await alice.settled()
    page = await alice.get(place)
    assert "bob approved" in text_of(page)
    assert "<strong>mice, and rats</strong>" in page  # Markdown
    assert re.search(r"Words 2 ", text_of(page))
    assert "Cancel this run" not in page


async def test_what_changes_on_the_page_can_be_had_alone(browser_of: Any) -> None:
    alice = browser_of(ALICE)
    place = await alice.start("memo", topic="mice")
    part = await alice.get(f"{place}/live")
    assert part.strip() in await alice.get(place)
    assert "<html" not in part
    assert re.search(r'data-cursor="[^"]+" data-status="waiting" data-over=""', part)
    assert f'data-events="/api{place}/events"' in part


async def test_what_people_and_runs_say_is_never_markup(browser_of: Any, desk: Any) -> None:
    alice = browser_of(ALICE)
    place = await alice.start("memo", topic=HOSTILE)
    (asked,) = (await desk.get(BOB, "/requests")).json()["items"]
    answer = {"decision": "revise", "feedback": HOSTILE, "digest": asked["digest"]}
    await desk.post(BOB, f"/requests/{asked['request_id']}/answer", answer)
    await alice.settled()
    (asked,) = (await desk.get(BOB, "/requests")).json()["items"]
    answer = {"decision": "approve", "digest": asked["digest"]}
    await desk.post(BOB, f"/requests/{asked['request_id']}/answer", answer)
    await alice.settled()
    for path in (place, f"{place}/live", f"{place}/audit", "/runs"):
        page = await alice.get(path)
        assert HOSTILE not in page
        assert HOSTILE in unescape(page)


async def test_nothing_on_a_page_is_hidden_from_its_reader(browser_of: Any) -> None:
    alice = browser_of(ALICE)
    place = await alice.start("memo", topic="mice\u202eslwo")  # what follows would read backwards
    for path in (place, f"{place}/audit", "/runs"):
        page = await alice.get(path)
        assert "\u202e" not in page
        assert "mice\\u202eslwo" in page


async def test_a_stranger_finds_no_run_whatever_they_try(browser_of: Any) -> None:
    place = await browser_of(ALICE).start("memo", topic="mice")
    eve = browser_of(EVE)
    for tail in ("", "/live", "/audit", "/audit.jsonl"):
        there = await eve.get(f"{place}{tail}", 404)
        assert there == await eve.get(f"/runs/nothing{tail}", 404)
    await eve.post(f"{place}/cancel", status=404)
    await eve.post(f"{place}/retry", status=404)
    assert place not in await eve.get("/runs")


async def test_who_started_a_run_may_cancel_it_and_others_may_not(browser_of: Any) -> None:
    alice, bob = browser_of(ALICE), browser_of(BOB)
    place = await alice.start("memo", topic="mice")
    assert "Cancel this run" not in await bob.get(place)
    await bob.post(f"{place}/cancel", status=403)
    assert "Cancel this run" in await alice.get(place)
    await alice.post(f"{place}/cancel")
    shown = text_of(await alice.get(place))
    assert "The run was cancelled" in shown
    assert "alice cancelled the run" in shown
    assert "Cancel this run" not in shown


async def test_a_failure_is_told_in_plain_words_and_can_be_tried_again(
    browser_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = browser_of(ALICE)
    place = await alice.start("fragile")
    page = await alice.get(place)
    assert "ConnectionError : the bank is closed" in text_of(page)
    assert "Traceback" not in page
    assert __file__ not in page
    monkeypatch.setattr(FragileFlow, "broken", False)
    await alice.post(f"{place}/retry")
    shown = text_of(await alice.get(place))
    assert "paid" in shown
    assert "alice let it try again" in shown


async def test_from_whom_something_is_hidden_the_result_is_too(browser_of: Any, desk: Any) -> None:
    alice = browser_of(ALICE)
    place = await alice.start("memo", topic="mice")
    (asked,) = (await desk.get(BOB, "/requests")).json()["items"]
    answer = {"decision": "approve", "digest": asked["digest"]}
    await desk.post(BOB, f"/requests/{asked['request_id']}/answer", answer)
    await alice.settled()
    page = await browser_of("carol:legal").get(place)
    assert "may hold what is hidden from you" in page
    assert "<strong>mice</strong>" not in page


async def test_what_rules_errors_and_the_run_said_is_hidden_with_it(
    browser_of: Any, desk: Any, runner: Runner
) -> None:
    alice, carol = browser_of(ALICE), browser_of("carol:legal")
    place = await alice.start("ruled")
    (asked,) = (await desk.get(BOB, "/requests")).json()["items"]
    answer = {"decision": "approve", "digest": asked["digest"]}
    await desk.post(BOB, f"/requests/{asked['request_id']}/answer", answer)
    await alice.settled()
    paths = [place, f"{place}/live", f"{place}/audit", f"{place}/audit.jsonl", f"/api{place}/audit"]
    seen = "".join([await browser_of(BOB).get(path) for path in paths])
    for said in ("The salary is 7000", "7000 is not much", "7000 could not be paid"):
        assert said in seen
    for path in paths:
        page = await carol.get(path)
        assert "7000" not in page, path
    assert "Said" in text_of(await carol.get(place))


# --------------------------------------------------------------------------- list


async def test_runs_are_listed_by_what_is_looked_for(browser_of: Any) -> None:
    alice, bob = browser_of(ALICE), browser_of(BOB)
    memo = await alice.start("memo", topic="mice")
    fragile = await alice.start("fragile")
    free = await bob.start("free")

    async def found(person: Any, query: str = "") -> set[str]:
        return set(re.findall(r'href="(/runs/[0-9a-f]+)"', await person.get(f"/runs?{query}")))

    assert await found(alice) == {memo, fragile}
    assert await found(bob) == {memo, free}
    assert await found(browser_of(ROOT)) == {memo, fragile, free}
    assert await found(alice, "workflow=memo") == {memo}
    assert await found(alice, "status=failed") == {fragile}
    assert await found(bob, "mine=true") == {free}
    assert await found(alice, "tag=none") == set()
    assert "Waiting for you" in await bob.get("/runs")
    assert "Waiting for you" not in await alice.get("/runs")


async def test_older_runs_are_on_further_pages(
    browser_of: Any, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_index_hitl.web._pages.runs.ROWS", 2)
    started = [(await runner.enqueue("free", by="alice")).run_id for _ in range(5)]
    alice, path, seen = browser_of(ALICE), "/runs?mine=true", []
    while True:
        page = await alice.get(path)
        seen += re.findall(r'href="/runs/([0-9a-f]+)"', page)
        older = re.search(r'href="([^"]+)">Older', page)
        if older is None:
            break
        path = unescape(older[1])
    assert sorted(seen) == sorted(started)


# --------------------------------------------------------------------------- audit


class Tampered(MemoryStore):
    """A store that somebody got at."""

    touched = False

    async def audit(self, run_id: str) -> list[AuditRow]:
        rows = list(await super().audit(run_id))
        if self.touched:
            entry = rows[1].entry.model_copy(update={"reason": "nothing to see"})
            rows[1] = rows[1].model_copy(update={"entry": entry})
        return rows


@pytest.fixture
def web_store() -> Tampered:
    return Tampered()


async def test_the_audit_page_shows_every_row_and_that_they_are_intact(
    browser_of: Any, runner: Runner
) -> None:
    alice = browser_of(ALICE)
    place = await alice.start("memo", topic="mice")
    page = await alice.get(f"{place}/audit")
    shown = text_of(page)
    rows = await runner.history(place.rpartition("/")[2])
    assert "Intact." in shown
    assert [f'id="row-{row.number}"' in page for row in rows] == [True, True]
    assert re.search(r"Row 1 .* Started alice", shown)
    assert f"{len(rows)} {rows[-1].hash}" in shown  # the seal
    assert "trail-broken" not in page


async def test_the_audit_page_names_the_row_that_was_changed(
    browser_of: Any, web_store: Tampered
) -> None:
    alice = browser_of(ALICE)
    place = await alice.start("memo", topic="mice")
    web_store.touched = True
    page = await alice.get(f"{place}/audit")
    assert "Broken." in text_of(page)
    assert "row 2 (opened" in text_of(page)
    assert 'id="row-2" class="trail-broken"' in page
    assert "Intact." not in page


async def test_the_export_has_what_this_person_may_see(browser_of: Any, desk: Any) -> None:
    place = await browser_of(ALICE).start("memo", topic="mice")
    (asked,) = (await desk.get(BOB, "/requests")).json()["items"]
    answer = {"decision": "reject", "comment": "no", "digest": asked["digest"]}
    await desk.post(BOB, f"/requests/{asked['request_id']}/answer", answer)
    whole = [
        json.loads(line)
        for line in (await browser_of(ROOT).get(f"{place}/audit.jsonl")).splitlines()
    ]
    assert [row["number"] for row in whole] == list(range(1, len(whole) + 1))
    assert whole[2]["details"]["decision"]["kind"] == "reject"
    hidden = await browser_of("carol:legal").get(f"{place}/audit.jsonl")
    assert json.loads(hidden.splitlines()[2])["details"].get("decision") is None


# --------------------------------------------------------------------------- everywhere


async def test_pages_keep_to_the_rules_that_are_sent_with_them(browser_of: Any) -> None:
    bob = browser_of(BOB)
    place = await bob.start("memo", topic="mice")
    for path in ("/start", "/start/memo", "/start/free", "/runs", place, f"{place}/audit"):
        page = await bob.get(path)
        assert not re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", page)
        assert not re.findall(r'(?:href|src|action)="(?:https?:)?//', page)
        assert page.count("<h1") == 1


async def test_pages_work_wherever_they_are_mounted(app: FastAPI) -> None:
    outer = Starlette(routes=[Mount("/work/reviews", app)])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(outer),
        base_url="http://reviews.test/work/reviews",
        headers={"X-Person": "bob:legal"},
    ) as client:
        started = await client.post("/start/memo", data={"topic": "mice"})
        place = started.headers["location"]
        assert place.startswith("/work/reviews/runs/")
        bob = Browser(client, app)
        await bob.settled()
        inner = place.removeprefix("/work/reviews")
        for path in ("/start", "/start/memo", "/runs", inner, f"{inner}/audit"):
            page = await bob.get(path)
            links = re.findall(r'(?:href|src|action|data-live|data-events)="([^"]*)"', page)
            assert all(link.startswith(("/work/reviews/", "#")) for link in links), links


class Letter(Event):
    text: str = "Dear Sir"


class LettersThen(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Letter:
        return Letter()

    legal = Review(Letter)

    @step
    async def send(self, ev: Approved) -> StopEvent:
        return StopEvent(result="sent")


class LettersNow(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Letter:
        return Letter()

    counsel = Review(Letter)

    @step
    async def send(self, ev: Approved) -> StopEvent:
        return StopEvent(result="sent")


async def test_a_run_that_no_longer_fits_the_code_says_so_and_keeps_its_answer() -> None:
    store = MemoryStore()
    then = Runner(store, {"letters": LettersThen(timeout=None)})
    await then.start("letters", run_id="letter-1", by="alice")
    (asked,) = await then.pending()
    now = Runner(store, {"letters": LettersNow(timeout=None)})
    app = create_app(now, authenticate=lambda _: Reviewer(id="alice"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as alice:
        before = (await alice.get("/api/runs/letter-1")).json()
        answer = {"decision": "approve", "digest": asked.request.digest}
        taken = await alice.post(f"/api/requests/{asked.request_id}/answer", json=answer)
        after = (await alice.get("/api/runs/letter-1")).json()
        page = (await alice.get("/runs/letter-1")).text
    assert (before["held_up"], taken.status_code, after["status"]) == ([], 200, "waiting")
    assert any("legal" in difference for difference in after["held_up"])
    assert "cannot go on with the code that runs here" in page
    await then.advance("letter-1")
    assert await then.result("letter-1") == "sent"
