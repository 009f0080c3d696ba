"""Signed links: each leads one person to one answer of one request, and nothing else."""

from __future__ import annotations

import base64
import html
import json
import re
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from durable import NOON, WORKFLOWS, Draft, only, runner_on
from fastapi import FastAPI
from safe import (
    ANN_TOKEN,
    BOB_TOKEN,
    NEW,
    OLD,
    ORIGIN,
    OTHER,
    app_on,
    client,
    named_tokens,
    sign_in,
)
from starlette.applications import Starlette
from starlette.routing import Mount
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Approved, Review
from llama_index_hitl.audit import AuditKind
from llama_index_hitl.errors import LinkInvalid, WeakSecret
from llama_index_hitl.models import (
    Approve,
    DecisionKind,
    Delegate,
    RequestStatus,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
    Revise,
)
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import AnswerLinks, NamedTokens, Visibility

ANN = Reviewer(id="ann", roles=("legal",))
BOB = Reviewer(id="bob")
_LINK_TOKEN = re.compile(r'name="link_token" value="([^"]+)"')
_ACTION = re.compile(r'<form method="post" action="([^"]*/link/[^"]+)"')


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


class Handed(Workflow):
    """Ann is asked, who may have somebody else decide."""

    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft()

    approval = Review(Draft, reviewers="ann", delegable=True)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result="published")


@pytest.fixture
def runner(clock: ManualClock) -> Runner:
    made = {name: make(timeout=None) for name, make in {**WORKFLOWS, "handed": Handed}.items()}
    for workflow in made.values():
        workflow.clock = clock  # type: ignore[attr-defined]
    return runner_on(MemoryStore(), clock=clock, workflows=made)


@pytest.fixture
def tokens(clock: ManualClock) -> NamedTokens:
    return named_tokens(clock)


@pytest.fixture
def links(clock: ManualClock) -> AnswerLinks:
    return AnswerLinks([OLD], ORIGIN, clock=clock)


@pytest.fixture
def app(runner: Runner, clock: ManualClock, tokens: NamedTokens, links: AnswerLinks) -> FastAPI:
    return app_on(clock, runner=runner, authenticate=tokens, links=links)


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as opened:
        yield opened


async def asked(runner: Runner, workflow: str = "article") -> ReviewRecord:
    run = await runner.start(workflow)
    return await only(runner, run.run_id)


async def decide(
    browser: httpx.AsyncClient, url: str, decision: str = "approve", **fields: Any
) -> httpx.Response:
    """Open a link, and send the form of its page."""
    page = await browser.get(url)
    found, action = _LINK_TOKEN.search(page.text), _ACTION.search(page.text)
    assert found is not None, page.text
    assert action is not None
    form = {"link_token": found[1], "decision": decision, **fields}
    to = html.unescape(action[1])
    return await browser.post(
        to, data=form, headers={"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
    )


async def status_of(runner: Runner, record: ReviewRecord) -> RequestStatus:
    return (await runner.get(record.request_id)).status


def reason(answer: httpx.Response) -> str:
    """Return why a link is dead, and check that nothing else of the request is shown."""
    assert answer.status_code == 410, answer.text
    assert "About it" not in answer.text
    assert "<form" not in answer.text
    (said,) = re.findall(r'callout-warn">.*?<span>(.*?)</span>', answer.text, re.DOTALL)
    return html.unescape(said)


# --------------------------------------------------------------------------- what it is good for


async def test_a_link_shows_the_request_and_takes_one_answer_without_signing_in(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    url = links.url_for(record, "ann")
    page = await browser.get(url)
    assert page.status_code == 200
    assert record.request.title in page.text
    assert "About it." in page.text
    assert "You answer as <strong>ann</strong>" in page.text
    kinds = set(re.findall(r'name="decision" value="(\w+)"', page.text))
    assert kinds == {kind.value for kind in record.request.allowed}

    done = await decide(browser, url, "approve", comment="Fine.")
    assert done.status_code == 200
    assert "Your answer is taken" in done.text
    (answer,) = (await runner.get(record.request_id)).answers
    assert (answer.by.id, answer.channel, answer.decision) == (
        "ann",
        "link",
        Approve(comment="Fine."),
    )
    assert answer.by.roles == ("legal",)  # those of the token that Ann has
    assert not browser.cookies
    assert (await browser.get("/api/me")).status_code == 401


async def test_opening_a_link_decides_nothing_however_often_and_whoever_does_it(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    url = links.url_for(record, "ann", decision=DecisionKind.APPROVE)
    before = await runner.store.audit(record.request.run_id)
    prefetch = {"Sec-Purpose": "prefetch", "Purpose": "prefetch"}
    for _ in range(2):
        assert (await browser.get(url)).status_code == 200
        assert (await browser.get(url, headers=prefetch)).status_code == 200
        assert (await browser.get(f"{url}?decision=approve")).status_code == 200
        assert (await browser.head(url)).status_code == 405
        assert (await browser.options(url)).status_code == 405
    assert await status_of(runner, record) is RequestStatus.OPEN
    assert await runner.store.audit(record.request.run_id) == before
    assert (await decide(browser, url)).status_code == 200


async def test_the_decision_that_a_link_suggests_is_open_and_others_can_be_taken(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    url = links.url_for(record, "ann", decision=DecisionKind.REVISE)
    page = (await browser.get(url)).text
    opened = re.findall(r"<details[^>]* open>\s*<summary>(.*?)</summary>", page)
    assert opened == ["Send back with feedback"]
    assert (await decide(browser, url, "reject")).status_code == 200
    assert await status_of(runner, record) is RequestStatus.REJECTED


async def test_a_link_suggests_nothing_that_is_not_allowed(
    runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    for decision in (DecisionKind.DELEGATE, "delegate", "aprove", ""):
        with pytest.raises(ValueError, match=f"allows no {decision}, only: approve"):
            links.url_for(record, "ann", decision=decision)
    by_name = links.read(links.url_for(record, "ann", decision="approve").rpartition("/")[2])
    assert by_name is not None
    assert by_name.decision is DecisionKind.APPROVE


async def test_what_is_not_right_comes_back_with_what_was_typed(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    url = links.url_for(record, "ann")
    answer = await decide(browser, url, "revise", feedback=" ", comment="<b>shorter</b>")
    assert answer.status_code == 422
    assert "&lt;b&gt;shorter&lt;/b&gt;" in answer.text
    assert 'id="revise-feedback-problem"' in answer.text
    for strange in ("", "yes", "APPROVE", "delegate"):
        assert (await decide(browser, url, strange)).status_code == 422
    assert await status_of(runner, record) is RequestStatus.OPEN
    assert (await decide(browser, url, "revise", feedback="Shorter.")).status_code == 200


async def test_it_works_under_a_path(
    runner: Runner, clock: ManualClock, tokens: NamedTokens
) -> None:
    links = AnswerLinks([OLD], f"{ORIGIN}/a/reviews/", clock=clock)
    served = app_on(clock, runner=runner, authenticate=tokens, links=links)
    record = await asked(runner)
    async with client(Starlette(routes=[Mount("/a/reviews", served)])) as browser:
        url = links.url_for(record, "ann")
        assert url.startswith(f"{ORIGIN}/a/reviews/link/")
        assert (await decide(browser, url)).status_code == 200


async def test_hidden_fields_are_hidden_on_the_page_of_a_link(
    runner: Runner, clock: ManualClock, links: AnswerLinks
) -> None:
    class Hiding(Visibility):
        def hidden_fields(self, person: Reviewer, request: ReviewRequest) -> tuple[str, ...]:
            return ("text",)

    app = app_on(clock, runner=runner, links=links, visibility=Hiding())
    async with client(app) as browser:
        page = (await browser.get(links.url_for(await asked(runner), "ann"))).text
        assert "•••" in page
        assert "About it" not in page


# --------------------------------------------------------------------------- what is no link


async def test_what_was_not_signed_here_is_no_link(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks, clock: ManualClock, app: FastAPI
) -> None:
    record, other = await asked(runner), await asked(runner, "staged")
    url = links.url_for(record, "ann")
    token = url.rpartition("/")[2]
    payload, signature = token.rsplit(".", 1)
    said = json.loads(_decoded(payload))
    session_secrets = app_on(clock, secrets=[OLD]).state.site.sign_in.sessions
    forged = [
        AnswerLinks([OTHER], ORIGIN, clock=clock).url_for(record, "ann").rpartition("/")[2],
        token[:-1],
        token[:-10],
        payload,
        f".{signature}",
        f"{payload}.{signature[::-1]}",
        f"{token}.{signature}",
        "x",
        "x" * 10_000,
        "%00",
        *(
            f"{_encoded({**said, name: value})}.{signature}"
            for name, value in (
                ("person", "bob"),
                ("request", other.request_id),
                ("until", said["until"] + 10**6),
                ("roles", ["chief"]),
                ("digest", other.request.digest),
            )
        ),
        # Good signatures of the same secret, for other things.
        session_secrets._cookies.sign(said),
        f"{payload}.{links.form_token(payload)}",
    ]
    for wrong in forged:
        for answer in (
            await browser.get(f"/link/{wrong}"),
            await browser.post(f"/link/{wrong}", data={"decision": "approve"}),
        ):
            assert answer.status_code == 404, wrong
            assert record.request.title not in answer.text
    assert await status_of(runner, record) is RequestStatus.OPEN
    assert (await browser.get(url)).status_code == 200


def _decoded(payload: str) -> bytes:
    raw = base64.urlsafe_b64decode(payload.lstrip(".") + "=" * (-len(payload.lstrip(".")) % 4))
    return zlib.decompress(raw) if payload.startswith(".") else raw


def _encoded(said: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()


async def test_without_links_there_are_none(clock: ManualClock, links: AnswerLinks) -> None:
    app = app_on(clock)
    async with client(app) as browser:
        url = links.url_for(await asked(app.state.site.runner), "ann")
        assert (await browser.get(url)).status_code == 404


@pytest.mark.parametrize(
    "base", ["", "reviews.test", "/reviews", "javascript:alert(1)", "https://", "https://a.b?x=y"]
)
def test_a_link_needs_an_address_to_lead_to(base: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        AnswerLinks([OLD], base)


@pytest.mark.parametrize("secrets", [[], ["short"], [NEW, "short"]])
def test_links_need_secrets_that_cannot_be_guessed(secrets: list[str]) -> None:
    with pytest.raises(WeakSecret):
        AnswerLinks(secrets, ORIGIN)


# --------------------------------------------------------------------------- forms of a link


async def test_only_the_page_of_the_link_can_send_its_form(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record, other = await asked(runner), await asked(runner)
    url, foreign = links.url_for(record, "ann"), links.url_for(other, "ann")
    token, theirs = (links.form_token(u.rpartition("/")[2]) for u in (url, foreign))
    good = {"decision": "approve", "link_token": token}
    for form in (
        {"decision": "approve"},
        {"decision": "approve", "link_token": ""},
        {"decision": "approve", "link_token": theirs},
        {"decision": "approve", "link_token": token[:-1]},
    ):
        assert (await browser.post(url, data=form)).status_code == 403
    for headers in (
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert (await browser.post(url, data=good, headers=headers)).status_code == 403
    assert (await browser.post(url, json=good)).status_code == 403
    twice = [("decision", "reject"), *good.items()]
    body = "&".join(f"{name}={value}" for name, value in twice)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await browser.post(url, content=body, headers=headers)).status_code == 422
    assert await status_of(runner, record) is RequestStatus.OPEN
    assert (await browser.post(url, data=good)).status_code == 200


async def test_whoever_is_signed_in_answers_a_link_as_the_one_whom_it_is_for(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    await sign_in(browser, BOB_TOKEN)
    url = links.url_for(record, "ann")
    page = (await browser.get(url)).text
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert csrf is not None
    assert (await decide(browser, url)).status_code == 403  # it is their browser, after all
    assert (await decide(browser, url, csrf_token=csrf[1])).status_code == 200
    (answer,) = (await runner.get(record.request_id)).answers
    assert answer.by.id == "ann"
    assert (await browser.get("/api/me")).json()["id"] == "bob"


# --------------------------------------------------------------------------- dead links


async def test_a_link_is_good_for_one_answer(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks, clock: ManualClock
) -> None:
    record = await asked(runner, "staged")  # two lawyers are asked: it stays open
    url = links.url_for(record, "ann")
    token = url.rpartition("/")[2]
    assert (await decide(browser, url)).status_code == 200
    assert await status_of(runner, record) is RequestStatus.OPEN
    form = {"decision": "reject", "link_token": links.form_token(token)}
    for answer in (await browser.get(url), await browser.post(url, data=form)):
        assert reason(answer) == "You have answered this already: approve, at 2026-03-02 12:00 UTC."
    # A new link to the same request is no second vote, in this process or another.
    assert reason(await browser.get(links.url_for(record, "ann")))
    again = app_on(clock, runner=runner_on(runner.store, clock=clock), links=links)
    async with client(again) as elsewhere:
        assert reason(await elsewhere.post(url, data=form)).startswith("You have answered")
    assert len((await runner.get(record.request_id)).answers) == 1


async def test_a_link_is_dead_when_its_time_is_over(
    browser: httpx.AsyncClient, runner: Runner, clock: ManualClock, links: AnswerLinks
) -> None:
    record = await asked(runner)
    url = links.url_for(record, "ann")
    clock.advance(timedelta(days=7) - timedelta(seconds=1))
    assert (await browser.get(url)).status_code == 200
    clock.advance(seconds=1)
    assert reason(await browser.get(url)) == "This link was good until 2026-03-09 12:00 UTC."
    with pytest.raises(LinkInvalid):
        links.read(url.rpartition("/")[2])
    short = AnswerLinks([OLD], ORIGIN, clock=clock, valid_for=timedelta(minutes=1))
    fresh = short.url_for(record, "ann")
    assert (await browser.get(fresh)).status_code == 200
    clock.advance(minutes=1)
    assert reason(await browser.post(fresh, data={"decision": "approve"}))
    with pytest.raises(ValueError, match="longer than nothing"):
        AnswerLinks([OLD], ORIGIN, valid_for=timedelta())


async def test_a_link_is_dead_when_somebody_else_was_first_and_says_who(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    url = links.url_for(record, "ann")
    await runner.answer(record.request_id, Approve(), by="bob")
    assert reason(await browser.get(url)) == "This was answered by bob. It is approved."


async def test_a_link_is_dead_when_the_draft_was_sent_back(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    url = links.url_for(record, "ann")
    await runner.answer(record.request_id, Revise(feedback="Shorter."), by="bob")
    assert reason(await browser.get(url)) == "This was answered by bob. It is revised."
    await runner.advance(record.request.run_id)
    following = await only(runner, record.request.run_id)
    assert following.request.revision == 2
    assert reason(await browser.get(url))
    assert (await browser.get(links.url_for(following, "ann"))).status_code == 200


async def test_a_link_is_dead_when_it_was_handed_on(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks, tokens: NamedTokens
) -> None:
    record = await asked(runner, "handed")
    url, to_bob = links.url_for(record, "ann"), links.url_for(record, "bob")
    assert reason(await browser.get(to_bob))  # he is not asked yet
    await runner.answer(record.request_id, Delegate(to="bob"), by="ann")
    assert reason(await browser.get(url))
    assert (await decide(browser, to_bob)).status_code == 200


async def test_a_link_is_dead_when_it_was_withdrawn_or_came_too_late(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks, clock: ManualClock
) -> None:
    withdrawn = await asked(runner)
    await runner.withdraw(withdrawn.request_id, by="erin")
    answer = await browser.get(links.url_for(withdrawn, "ann"))
    assert reason(answer) == "This was withdrawn: nobody has to answer it any more."

    late = await asked(runner, "laddered")
    url = links.url_for(late, "alice")
    links.roles_of = lambda name: Reviewer(id=name)
    assert (await browser.get(url)).status_code == 200
    clock.advance(days=2)
    assert "before 2026-03-04 12:00 UTC" in reason(await browser.get(url))  # nobody has swept yet
    await runner.sweep()
    assert reason(await browser.get(url)) == "This was not answered in time."


async def test_a_link_to_something_else_than_is_stored_is_dead(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    other = ReviewRequest(**{**record.request.model_dump(exclude={"digest"}), "title": "Another"})
    changed = record.model_copy(update={"request": other})
    assert "changed" in reason(await browser.get(links.url_for(changed, "ann")))
    gone = record.model_copy(
        update={"request": record.request.model_copy(update={"request_id": "gone"})}
    )
    assert "nothing here" in reason(await browser.get(links.url_for(gone, "ann")))


async def test_a_link_is_dead_for_whoever_may_not_answer_or_see_it_any_more(
    runner: Runner, clock: ManualClock, links: AnswerLinks
) -> None:
    record = await asked(runner, "staged")
    tokens = NamedTokens({ANN_TOKEN: Reviewer(id="ann", roles=("auditor",))})
    async with client(app_on(clock, runner=runner, authenticate=tokens, links=links)) as browser:
        url = links.url_for(record, ANN)  # a lawyer then
        assert "the request is for role:legal" in reason(await browser.get(url))
    tokens = NamedTokens({ANN_TOKEN: Reviewer(id="ann")})
    async with client(app_on(clock, runner=runner, authenticate=tokens, links=links)) as browser:
        assert "nothing here" in reason(await browser.get(url))


async def test_when_a_token_is_revoked_the_links_of_its_person_are_dead(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks, tokens: NamedTokens
) -> None:
    record = await asked(runner)
    url = links.url_for(record, ANN)
    form = {"decision": "approve", "link_token": links.form_token(url.rpartition("/")[2])}
    assert (await browser.get(url)).status_code == 200
    tokens.revoke("ann")
    for answer in (await browser.get(url), await browser.post(url, data=form)):
        assert "not known here any more" in reason(answer)
    assert await status_of(runner, record) is RequestStatus.OPEN


@pytest.mark.parametrize("awaited", [False, True])
async def test_the_host_says_what_roles_the_person_of_a_link_has_now(
    awaited: bool, runner: Runner, clock: ManualClock
) -> None:
    known: dict[str, Reviewer] = {}

    async def later(name: str) -> Reviewer | None:
        return known.get(name)

    links = AnswerLinks([OLD], ORIGIN, clock=clock, roles_of=later if awaited else known.get)
    app = app_on(clock, runner=runner, authenticate=lambda _: None, links=links)
    record = await asked(runner, "staged")
    async with client(app) as browser:
        url = links.url_for(record, ANN)
        assert "not known here" in reason(await browser.get(url))
        known["ann"] = Reviewer(id="ann")
        assert reason(await browser.get(url))
        known["ann"] = ANN
        assert (await decide(browser, url)).status_code == 200


async def test_where_nobody_says_the_roles_are_those_of_when_the_link_was_made(
    runner: Runner, clock: ManualClock, links: AnswerLinks
) -> None:
    app = app_on(clock, runner=runner, authenticate=lambda _: None, links=links)
    record = await asked(runner, "staged")
    async with client(app) as browser:
        assert reason(await browser.get(links.url_for(record, "ann")))
        assert (await decide(browser, links.url_for(record, ANN))).status_code == 200
    (answer,) = (await runner.get(record.request_id)).answers
    assert answer.by == ANN


async def test_secrets_are_rotated_with_an_overlap(
    runner: Runner, clock: ManualClock, tokens: NamedTokens
) -> None:
    old, both, new = (
        AnswerLinks(known, ORIGIN, clock=clock) for known in ([OLD], [NEW, OLD], [NEW])
    )
    record = await asked(runner)

    async def status(url: str, links: AnswerLinks) -> int:
        async with client(
            app_on(clock, runner=runner, authenticate=tokens, links=links)
        ) as browser:
            return (await browser.get(url)).status_code

    before, after = old.url_for(record, "ann"), both.url_for(record, "ann")
    assert await status(before, both) == 200
    assert await status(before, new) == 404
    assert await status(after, new) == 200
    assert await status(after, old) == 404


async def test_refusals_of_a_link_are_on_record_as_all_are(
    browser: httpx.AsyncClient, runner: Runner, links: AnswerLinks
) -> None:
    record = await asked(runner)
    assert (await decide(browser, links.url_for(record, "ann"))).status_code == 200
    rows = await runner.store.audit(record.request.run_id)
    (entry,) = [row.entry for row in rows if row.entry.kind is AuditKind.ANSWERED]
    assert (entry.actor, entry.channel) == ("ann", "link")
