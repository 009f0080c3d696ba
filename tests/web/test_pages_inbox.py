"""The inbox, through the ASGI client, as a browser without scripts uses it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from invoices import WORKFLOWS, Desk
from parsed import Node, assert_tame, parsed
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Mount
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import Approved, Responded, Review, Reviewer
from llama_index_hitl.lifecycle import open_record
from llama_index_hitl.models import GrantOffer, RequestStatus, ReviewPolicy, ReviewRequest, Subject
from llama_index_hitl.stores.protocol import Commit, StoredRequest
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import Visibility
from llama_index_hitl.web._pages import workflow_title
from llama_index_hitl.web._pages._filters import time_tag

FINANCE, OTHER, ADMIN, EVE = "bob:finance", "carol:finance", "root:admin", "eve"
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'


class Verdict(BaseModel):
    right: bool
    confidence: int = Field(ge=0, le=100, description="In percent.")
    note: str | None = Field(None, json_schema_extra={"format": "textarea"})


class Letter(Event):
    text: str = "Dear Ann,\r\n\r\nyours."
    copies: int = 1


class Letters(Workflow):
    """A letter with line ends of its own, that one may change; urgent ones for two people."""

    @step
    async def write(self, ev: StartEvent) -> Letter:
        return Letter()

    check = Review(Letter, title=HOSTILE, editable=True, priority="urgent", abstainable=True)

    @step
    async def send(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject.text)


class Checks(Workflow):
    """Asks for a verdict."""

    @step
    async def write(self, ev: StartEvent) -> Letter:
        return Letter()

    verdict = Review(Letter, title="Is it right?", response=Verdict, responded=Responded)

    @step
    async def done(self, ev: Responded) -> StopEvent:
        return StopEvent(result=ev.response)


@pytest.fixture
def workflows() -> Mapping[str, type[Workflow]]:
    return {**WORKFLOWS, "letters": Letters, "checks": Checks}


class Hiding(Visibility):
    """Hides account numbers from everybody."""

    def hidden_fields(self, person: Reviewer, request: ReviewRequest) -> Collection[str]:
        return ("account",)


class Browser:
    """What somebody does with the pages.

    Args:
        desk: The application.
        person: Who.
    """

    def __init__(self, desk: Desk, person: str) -> None:
        self._client: httpx.AsyncClient = desk.client_of(person)

    async def get(self, path: str, status: int = 200, **headers: str) -> Node:
        """Return a page, whole or the part that scripts ask for."""
        response = await self._client.get(path, headers=headers)
        return self._seen(response, status)

    async def part(self, path: str, status: int = 200) -> Node:
        return await self.get(path, status, **{"X-Fragment": "1"})

    async def send(self, path: str, status: int = 303, **fields: Any) -> Node:
        response = await self._client.post(path, data=fields)
        if status == 303:
            assert response.status_code == 303, response.text
            return await self.get(response.headers["location"])
        return self._seen(response, status)

    async def decide(self, request: dict[str, Any], status: int = 303, **fields: Any) -> Node:
        """Send the form of a decision, as it was shown."""
        path = f"/requests/{request['request_id']}/answer"
        return await self.send(path, status, **{"digest": request["digest"], **fields})

    def _seen(self, response: httpx.Response, status: int) -> Node:
        assert response.status_code == status, response.text
        root = parsed(response.text)
        assert_tame(root)
        ids = [node.attrs["id"] for node in root.all() if "id" in node.attrs]
        assert len(ids) == len(set(ids)), "two elements have one id"
        return root


@pytest.fixture
def bob(desk: Desk) -> Browser:
    return Browser(desk, FINANCE)


def titles(root: Node) -> list[str]:
    return [row.one("span", class_="row-title").words for row in root.all("li", class_="row")]


def offered(root: Node) -> list[str]:
    return [button.attrs["data-decide"] for button in root.all("a", role="button")]


async def status_of(desk: Desk, request: dict[str, Any]) -> str:
    return (await desk.runner.get(request["request_id"])).status.value


# --------------------------------------------------------------------------- the list


async def test_the_inbox_lists_what_waits_for_somebody(desk: Desk, bob: Browser) -> None:
    await desk.start(supplier="Acme", amount=1200)
    await desk.start("letters")
    assert titles(await bob.get("/")) == [f"Unread. {HOSTILE}", "Unread. Pay 1200 EUR to Acme?"]
    assert titles(await Browser(desk, EVE).get("/")) == [f"Unread. {HOSTILE}"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 3),
        ("?view=roles", 2),
        ("?view=all", 3),
        ("?view=done", 0),
        ("?text=bolt", 1),
        ("?text=nothing", 0),
        ("?priority=urgent", 1),
        ("?due=today", 0),
        ("?due=week", 2),
        ("?workflow=nosuch", 0),
        ("?view=nonsense&due=never&priority=x", 3),
    ],
)
async def test_filters(desk: Desk, bob: Browser, query: str, count: int) -> None:
    await desk.start(supplier="Acme", amount=1200)
    await desk.start(supplier="Bolt", amount=5)
    await desk.start("letters")
    assert len(titles(await bob.get(f"/{query}"))) == count
    assert len(titles(await bob.get(f"/list{query}"))) == count


async def test_rows_say_how_requests_stand(desk: Desk, bob: Browser, clock: ManualClock) -> None:
    _, request = await desk.start()
    await desk.runner.claim(request["request_id"], by=Reviewer(id="carol", roles=("finance",)))
    clock.advance(timedelta(days=1, hours=20))
    row = (await bob.get("/")).one("li", class_="row")
    assert row.one("time", data_time="deadline").text == "4 h left"
    assert row.one("time", data_time="age").text == "1 d"
    assert "carol" not in row.words  # the claim has ended
    clock.advance(timedelta(hours=5))
    row = (await bob.get("/")).one("li", class_="row-overdue")
    assert row.one("time", data_time="deadline").text == "1 h overdue"


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (timedelta(hours=1, minutes=59, seconds=57), "1 h 59 min left"),
        (timedelta(hours=12, minutes=59), "12 h left"),
        (timedelta(days=1, hours=23, minutes=59), "1 d 23 h left"),
        (timedelta(seconds=61), "1 min left"),
        (timedelta(0), "0 s overdue"),
        (-timedelta(hours=2, minutes=5), "2 h 5 min overdue"),
    ],
)
def test_a_deadline_says_its_minutes_when_it_is_near(ahead: timedelta, words: str) -> None:
    now = datetime(2026, 3, 2, tzinfo=UTC)
    assert f">{words}</time>" in time_tag(now + ahead, now, "deadline")


async def test_a_workflow_is_called_as_it_is_registered(desk: Desk, bob: Browser) -> None:
    await desk.start(supplier="Acme", amount=1200)
    row = (await bob.get("/")).one("span", class_="row-where")
    assert row.text == "Invoice \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} Approval"
    elsewhere = workflow_title({}, "shop.orders.InvoiceFlow")
    assert elsewhere == "Invoice Flow"


async def test_long_lists_come_in_pages(desk: Desk, bob: Browser, clock: ManualClock) -> None:
    for number in range(60):
        request = ReviewRequest(
            request_id=f"r-{number:02}", title=f"Number {number}", created_at=clock()
        )
        stored = StoredRequest(run_id="run", record=open_record(request))
        await desk.runner.store.commit(Commit(requests=(stored,)))
    first = await bob.get("/")
    assert len(titles(first)) == 50
    second = await bob.get(first.one("a", data_more="").attrs["href"])
    assert len(titles(second)) == 10
    assert list(second.all("a", data_more="")) == []
    assert not set(titles(first)) & set(titles(second))


# --------------------------------------------------------------------------- a request


async def test_a_request_is_shown_with_all_that_it_takes_to_decide(
    desk: Desk, bob: Browser
) -> None:
    _, request = await desk.start()
    page = await bob.get(f"/requests/{request['request_id']}")
    article = page.one("article")
    assert article.one("h2").text == "Pay 1200 EUR to Acme?"
    assert article.one("em").text == "supplier"
    assert "DE89-SECRET" in article.words
    assert [cell.text for cell in article.all("td", class_="number")] == ["1200"]
    assert offered(page) == ["approve", "reject", "revise", "edit", "delegate"]
    assert list(page.all("form", class_="decide")) == []  # nothing is picked for anybody
    part = await bob.part(f"/requests/{request['request_id']}")
    assert [node.tag for node in part.parts if isinstance(node, Node)] == ["article"]


async def test_who_may_not_see_a_request_is_told_there_is_none(desk: Desk) -> None:
    _, request = await desk.start(by="frank")
    eve = Browser(desk, EVE)
    path = f"/requests/{request['request_id']}"
    for response in (
        await eve._client.get(path),
        await eve._client.get(f"{path}/decide/approve"),
        await eve._client.post(f"{path}/answer", data={"decision": "approve"}),
        await eve._client.post(f"{path}/claim"),
        await eve._client.get("/requests/nosuch"),
    ):
        assert response.status_code == 404
        assert "Acme" not in response.text


async def test_who_may_not_answer_sees_it_without_buttons(desk: Desk) -> None:
    _, request = await desk.start()
    admin = Browser(desk, ADMIN)
    path = f"/requests/{request['request_id']}"
    assert offered(await admin.get(f"{path}?decide=approve")) == []
    assert (await admin._client.get(f"{path}/decide/approve")).status_code == 204
    refused = await admin.decide(request, 403, decision="approve")
    assert refused.one("div", role="alert").words.startswith("You may not answer this")
    assert await status_of(desk, request) == "open"


async def test_hostile_words_stay_words(desk: Desk, bob: Browser) -> None:
    _, request = await desk.start("letters")
    page = await bob.get(f"/requests/{request['request_id']}")
    assert page.one("article").one("h2").text == HOSTILE
    assert {node.attrs["src"] for node in page.all("script")} == {
        "/static/theme.js",
        "/static/inbox.js",
    }


async def test_a_second_revision_is_shown_with_what_changed(desk: Desk, bob: Browser) -> None:
    run_id, request = await desk.start()
    await bob.decide(request, decision="revise", feedback="Say <b>Ltd</b>")
    await desk.settled()
    (record,) = (await desk.runner.pending(run_id=run_id)).items
    article = (await bob.get(f"/requests/{record.request_id}")).one("article")
    diff = article.one("section", class_="diff")
    assert diff.one("del").text == "Acme"
    assert diff.one("ins").text == "Acme, Say <b>Ltd</b>"
    assert [mark.text for mark in diff.all("mark")] == [", Say <b>Ltd</b>"]
    assert article.one("blockquote").text == "Say <b>Ltd</b>"


async def test_votes_and_quorum_are_shown(desk: Desk) -> None:
    _, request = await desk.start("staged")
    await Browser(desk, "ann:legal").decide(request, decision="approve", comment="Fine by me.")
    article = (await Browser(desk, "lea:legal").get(f"/requests/{request['request_id']}")).one(
        "article"
    )
    assert article.one("p", class_="quorum").words.endswith("1 of 2 approvals")
    said = article.one("ul", class_="people").words
    assert "ann approved" in said
    assert "Fine by me." in said
    again = (await Browser(desk, "ann:legal").get(f"/requests/{request['request_id']}")).one(
        "article"
    )
    assert offered(again) == []
    assert "On record: you approved" in again.one("section", class_="next").words


# --------------------------------------------------------------------------- deciding


async def test_an_approval_is_taken_and_the_run_goes_on(desk: Desk, bob: Browser) -> None:
    run_id, request = await desk.start()
    path = f"/requests/{request['request_id']}"
    form = (await bob.get(f"{path}?decide=approve")).one("form", class_="decide")
    values = {
        field.attrs["name"]: field.attrs["value"] for field in form.all("input", type="hidden")
    }
    assert values["decision"] == "approve"
    assert values["digest"] == request["digest"]
    page = await bob.send(form.attrs["action"], **values, comment="Right.")
    assert page.one("div", class_="notice").words == "Your answer is on record."
    assert page.one("section", class_="next").attrs["data-next"] == f"/api/runs/{run_id}/events"
    await desk.settled()
    assert await desk.runner.result(run_id) == {"paid": 1200, "to": "DE89-SECRET"}


async def test_enter_in_a_field_presses_a_button_that_does_nothing(
    desk: Desk, bob: Browser
) -> None:
    _, request = await desk.start()
    for kind in ("approve", "reject", "revise", "edit", "delegate"):
        form = (await bob.part(f"/requests/{request['request_id']}/decide/{kind}")).one("form")
        first = next(
            node
            for node in form.all()
            if node.tag == "button" or node.attrs.get("type") == "submit"
        )
        assert "disabled" in first.attrs


@pytest.mark.parametrize("decision", ["", "yes", "approved", "escalate", "APPROVE"])
async def test_nothing_is_decided_by_anything_but_a_decision(
    desk: Desk, bob: Browser, decision: str
) -> None:
    _, request = await desk.start()
    page = await bob.decide(request, 422, decision=decision)
    assert page.one("div", role="alert").words.startswith("Nothing was decided")
    assert await status_of(desk, request) == "open"


async def test_a_form_that_is_wrong_comes_back_with_what_was_typed(
    desk: Desk, bob: Browser
) -> None:
    _, request = await desk.start()
    page = await bob.decide(request, 422, decision="revise", feedback=" ", comment="<b>kept</b>")
    field = page.one("textarea", name="feedback")
    problem = field.attrs["aria-describedby"].split()[-1]
    assert field.attrs["aria-invalid"] == "true"
    assert page.one("p", id=problem).words
    assert page.one("textarea", name="comment").text.strip("\n") == "<b>kept</b>"
    assert await status_of(desk, request) == "open"


async def test_a_response_is_made_from_its_schema(desk: Desk, bob: Browser) -> None:
    run_id, request = await desk.start("checks")
    form = (await bob.part(f"/requests/{request['request_id']}/decide/respond")).one("form")
    radios = list(form.all("input", type="radio"))
    assert [radio.attrs["value"] for radio in radios] == ["true", "false"]
    assert [radio for radio in radios if "checked" in radio.attrs] == []
    sent = {"decision": "respond", "response.note": ""}
    page = await bob.decide(request, 422, **sent, **{"response.confidence": "900"})
    assert page.one("input", name="response.confidence").attrs["value"] == "900"
    sent |= {"response.right": "false", "response.confidence": "90"}
    await bob.decide(request, **sent)
    await desk.settled()
    result = await desk.runner.result(run_id)
    assert result == {"right": False, "confidence": 90}


async def test_an_edit_is_shown_before_it_is_sent(desk: Desk, bob: Browser) -> None:
    run_id, request = await desk.start("letters")
    edit = {"decision": "edit", "subject.text": "Dear Ann,\r\n\r\nyours.", "subject.copies": "3"}
    page = await bob.decide(request, 200, **edit)
    preview = page.one("section", class_="preview")
    assert [node.text for node in preview.all("del")] == ["1"]
    assert [node.text for node in preview.all("ins")] == ["3"]
    assert await status_of(desk, request) == "open"
    seen = preview.one("input", name="previewed").attrs["value"]

    other = {**edit, "subject.copies": "4", "then": "answer", "previewed": seen}
    page = await bob.decide(request, 200, **other)
    assert page.one("section", class_="preview").one("ins").text == "4"
    assert "not what the preview showed" in page.words
    assert await status_of(desk, request) == "open"

    await bob.decide(request, **edit, then="answer", previewed=seen)
    await desk.settled()
    # The line ends that a form cannot carry are as they were.
    assert await desk.runner.result(run_id) == "Dear Ann,\r\n\r\nyours."
    record = await desk.runner.get(request["request_id"])
    assert record.answers[0].decision.subject["copies"] == 3


async def test_an_edit_that_does_not_fit_comes_back(desk: Desk, bob: Browser) -> None:
    _, request = await desk.start("letters")
    page = await bob.decide(request, 422, decision="edit", **{"subject.copies": "many"})
    assert page.one("input", name="subject.copies").attrs["value"] == "many"
    assert page.one("p", id="decide-subject-copies-problem").words == "this must be a whole number"


async def test_who_comes_second_is_told_who_was_first(desk: Desk, bob: Browser) -> None:
    _, request = await desk.start()
    await bob.decide(request, decision="approve")
    page = await Browser(desk, OTHER).decide(request, 409, decision="reject", comment="No!")
    assert page.one("div", data_message="").words.startswith("bob was first: this is approved")
    assert offered(page) == []
    assert await status_of(desk, request) == "approved"


async def test_an_answer_to_something_else_than_what_is_shown_is_not_counted(
    desk: Desk, bob: Browser
) -> None:
    _, request = await desk.start()
    page = await bob.decide({**request, "digest": "0" * 64}, 409, decision="approve")
    assert page.one("div", data_message="").words.startswith("This has changed")
    assert await status_of(desk, request) == "open"


async def test_an_answer_that_does_not_say_what_was_seen_is_not_counted(
    desk: Desk, bob: Browser
) -> None:
    _, request = await desk.start()
    path = f"/requests/{request['request_id']}/answer"
    page = await bob.send(path, 409, decision="approve")
    assert "This has changed" in page.text
    await bob.send(path, 409, decision="approve", digest="")
    page = await bob.send("/bulk", 200, item=[request["request_id"]])
    assert "Approved." not in page.text
    assert await status_of(desk, request) == "open"


async def test_an_answer_after_the_deadline_is_too_late(
    desk: Desk, bob: Browser, clock: ManualClock
) -> None:
    _, request = await desk.start()
    clock.advance(timedelta(days=2))
    page = await bob.decide(request, 410, decision="approve")
    assert page.one("div", data_message="").words.startswith("Too late")


async def test_a_standing_approval_is_given_only_where_it_is_asked_for(
    desk: Desk, bob: Browser, clock: ManualClock
) -> None:
    run_id, _ = await desk.start()
    request = ReviewRequest(
        request_id="call",
        workflow="Agent",
        title="Call refund",
        subject=Subject(type="refund", data={"amount": 5}, json_schema={}),
        policy=ReviewPolicy(reviewers=("bob",)),
        grantable=GrantOffer(tool="refund", version="1"),
        created_at=clock(),
    )
    stored = StoredRequest(run_id=run_id, record=open_record(request))
    await desk.runner.store.commit(Commit(requests=(stored,)))
    form = (await bob.part("/requests/call/decide/approve")).one("form")
    fold = form.one("details", class_="grant")
    assert "open" not in fold.attrs
    names = [field.attrs["name"] for field in fold.all("input")]
    assert "grant.uses" in names
    empty = dict.fromkeys(names, "")
    limits = {**empty, "grant.arguments": "", "grant.uses": "3"}
    values = {"request_id": "call", "digest": request.digest}
    page = await bob.decide(values, 422, decision="approve", **limits)
    assert page.one("details", class_="grant").attrs["open"] == ""
    await bob.decide(values, decision="approve", **empty, **{"grant.arguments": ""})
    record = await desk.runner.get("call")
    assert (record.status, record.answers[0].decision.grant) == (RequestStatus.APPROVED, None)


# --------------------------------------------------------------------------- claims


async def test_somebody_claims_and_releases(desk: Desk, bob: Browser) -> None:
    _, request = await desk.start()
    path = f"/requests/{request['request_id']}"
    page = await bob.send(f"{path}/claim")
    assert page.one("form", data_claim="").attrs["action"] == f"{path}/release"
    carol = Browser(desk, OTHER)
    assert "bob is looking at this" in (await carol.get(path)).words
    assert [badge.words for badge in (await carol.get("/")).all("span", class_="badge-line")] == [
        "bob"
    ]
    taken = await carol.send(f"{path}/claim", 409)
    assert "bob is looking at this" in taken.one("div", data_message="").words
    page = await bob.send(f"{path}/release")
    assert page.one("form", data_claim="").attrs["action"] == f"{path}/claim"


# --------------------------------------------------------------------------- several


async def test_several_are_listed_with_what_they_are_about_and_then_approved(
    desk: Desk, bob: Browser
) -> None:
    asked = [(await desk.start(supplier=name, amount=5))[1] for name in ("Acme", "Bolt", "Coil")]
    query = "&".join(f"id={request['request_id']}" for request in asked)
    page = await bob.get(f"/bulk?{query}&id=nosuch")
    items = list(page.all("li", class_="bulk-item"))
    assert [item.one("p", class_="gist").text.split(" · ")[0] for item in items] == [
        "supplier: Acme",
        "supplier: Bolt",
        "supplier: Coil",
    ]
    boxes = [box.attrs["value"] for box in page.all("input", name="item")]
    await Browser(desk, OTHER).decide(asked[1], decision="reject")
    changed = f"{asked[2]['request_id']} {'0' * 64}"
    done = await bob.send("/bulk", 200, item=[boxes[0], boxes[1], changed], comment="Checked.")
    outcomes = [node.attrs["class"] for node in done.one("ul", class_="bulk-outcomes").all("li")]
    assert outcomes == ["taken", "refused", "refused"]
    assert "carol" in done.words
    found = [await status_of(desk, request) for request in asked]
    assert found == ["approved", "rejected", "open"]
    record = await desk.runner.get(asked[0]["request_id"])
    assert record.answers[0].comment == "Checked."


async def test_what_somebody_may_not_approve_is_not_listed_for_it(desk: Desk) -> None:
    _, request = await desk.start()
    for person in (ADMIN, EVE):
        page = await Browser(desk, person).get(f"/bulk?id={request['request_id']}")
        assert list(page.all("input", name="item")) == []
    _, verdict = await desk.start("checks")  # nothing to approve about it
    page = await Browser(desk, FINANCE).get(f"/bulk?id={verdict['request_id']}")
    assert list(page.all("input", name="item")) == []


async def test_several_of_nothing_do_nothing(bob: Browser) -> None:
    assert "Nothing to approve" in (await bob.send("/bulk", 200)).words
    page = await bob.send("/bulk", 200, item=["nosuch digest", "", " "])
    assert list(page.all("li", class_="taken")) == []


# --------------------------------------------------------------------------- around it


@pytest.fixture
def hiding(app: FastAPI) -> None:
    app.state.site = app.state.site.__class__(
        **{**vars(app.state.site), "visibility": Hiding(admins=())}
    )


@pytest.mark.usefixtures("hiding")
async def test_what_is_hidden_is_neither_shown_nor_changed(desk: Desk, bob: Browser) -> None:
    response = await bob._client.post(
        "/api/runs",
        json={"workflow": "invoice", "inputs": {"supplier": "Acme", "amount": 5}, "wait": True},
    )
    run_id = response.json()["run_id"]
    (record,) = (await desk.runner.pending(run_id=run_id)).items
    path = f"/requests/{record.request_id}"
    page = await bob.get(f"{path}?decide=edit")
    assert "DE89" not in page.text
    assert list(page.all("textarea", name="subject.account")) == []
    values = {"request_id": record.request_id, "digest": record.request.digest}
    edit = {"decision": "edit", "subject.amount": "7"}
    page = await bob.decide(values, 200, **edit)
    assert "DE89" not in page.text
    seen = page.one("input", name="previewed").attrs["value"]
    await bob.decide(values, **edit, then="answer", previewed=seen)
    await desk.settled()
    assert await desk.runner.result(run_id) == {"paid": 7, "to": "DE89-SECRET"}


async def test_everything_works_below_a_path_of_another_application(
    app: FastAPI, desk: Desk
) -> None:
    _, request = await desk.start()
    host = Starlette(routes=[Mount("/reviews", app)])
    transport = httpx.ASGITransport(host)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://host.test", headers={"X-Person": FINANCE}
    ) as client:
        path = f"/reviews/requests/{request['request_id']}"
        page = parsed((await client.get(f"{path}?decide=approve")).text)
        assert page.one("body").attrs["data-base"] == "/reviews"
        for node in page.all():
            for name in ("href", "src", "action", "data-url", "data-next"):
                if node.attrs.get(name, "").startswith("/"):
                    assert node.attrs[name].startswith("/reviews/"), node.attrs[name]
        for asset in [*page.all("script"), *page.all("link")]:
            address = asset.attrs.get("src") or asset.attrs["href"]
            assert (await client.get(address)).status_code == 200, address
        sent = {"decision": "approve", "digest": request["digest"]}
        response = await client.post(f"{path}/answer", data=sent)
        assert response.headers["location"] == f"{path}?notice=answered"


def test_scripts_and_styles_need_nothing_from_elsewhere() -> None:
    static = files("llama_index_hitl.web") / "static"
    for item in static.iterdir():
        text = item.read_text()
        for imported in re.findall(r'from "([^"]+)"|import "([^"]+)"', text):
            name = "".join(imported)
            assert (static / name.removeprefix("./")).is_file(), f"{item.name} imports {name}"
        links = re.findall(r"https?://[^\s\"')]+", text.replace("http://www.w3.org/2000/svg", ""))
        assert links == [], item.name
        assert "@import" not in text
