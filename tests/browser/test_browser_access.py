"""Everybody can use the pages: axe-core finds nothing serious, and a phone is wide enough."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from desk import SECRETS, Desk, person
from desk_flows import LONG
from playwright.async_api import Page, expect
from served import Serve
from windows import DESKTOP, PHONE, Window, Windows

from llama_index_hitl.models import Approve, Revise
from llama_index_hitl.web import AnswerLinks

pytestmark = pytest.mark.asyncio(loop_scope="session")

DECIDE = "[data-decide-bar]"
OPENED = "[data-detail-pane]"
"""What is opened beside a list that was looked at: to compute contrasts takes long."""

LOOKS: tuple[tuple[dict[str, Any], str, dict[str, Any]], ...] = (
    (DESKTOP, "light", {}),
    (DESKTOP, "dark", {"runOnly": {"type": "rule", "values": ["color-contrast"]}}),
    (PHONE, "light", {"rules": {"color-contrast": {"enabled": False}}}),
)
"""Sizes, colours, and what there is to look for that the looks before cannot show."""


@functools.cache
def axe() -> str:
    """The script of axe-core, as axe-playwright-python brings it."""
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


async def flaws(window: Window, path: str | None = None, *, within: str = "html") -> str:
    """Return what is wrong with a page in all its looks, in lines; often nothing.

    Args:
        window: What it is shown in.
        path: The page; None: what is shown.
        within: Where to look.
    """
    page = window.page if path is None else await window.opens(path)
    found = []
    for size, colours, options in LOOKS:
        await page.set_viewport_size(size["viewport"])
        await page.emulate_media(color_scheme=colours)
        wrong = await serious(page, within, {"resultTypes": ["violations"], **options})
        found += [f"{page.url}, {size['viewport']['width']} {colours}: {one}" for one in wrong]
        wide, room = await page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        if wide > room:
            found.append(f"{page.url}: {wide} pixels wide, in a window of {room}")
    await page.set_viewport_size(DESKTOP["viewport"])
    await page.emulate_media(color_scheme="light")
    return "".join(f"{line}\n" for line in found)


async def serious(page: Page, within: str, options: dict[str, Any]) -> list[str]:
    """Return what axe-core finds that is serious or critical."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(axe())
    found = await page.evaluate(f"axe.run({json.dumps(within)}, {json.dumps(options)})")
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


async def test_the_inbox_and_its_requests_are_for_everybody(desk: Desk, windows: Windows) -> None:
    window = await desk.sign_in(windows, "alice")
    found = await flaws(window, "/")
    payment = await desk.ask("payment", amount=40, recipient="Ann")
    trip = await desk.ask("trip", to="Rome")
    votes = await desk.ask("votes", amount=40, recipient="Ann")
    await desk.runner.claim(votes.request_id, by=person("bob"))
    await desk.runner.answer(votes.request_id, Approve(comment="Fine."), by=person("bob"))
    found += await flaws(window, "/")
    for one in (payment, trip, votes):
        found += await flaws(window, f"/requests/{one.request_id}", within=OPENED)
    page = window.page
    await page.get_by_role("checkbox", name="Select Pay").check()
    await page.get_by_role("button", name="Review and approve").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    found += await flaws(window)
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    found += await flaws(window)
    assert found == ""


async def test_the_forms_of_decisions_are_for_everybody(desk: Desk, windows: Windows) -> None:
    payment = await desk.ask("payment", amount=40, recipient="Ann")
    trip = await desk.ask("trip", to="Rome")
    note = await desk.ask("note", text=LONG)
    await desk.runner.answer(note.request_id, Revise(feedback="Shorter."), by=person("bob"))
    await desk.runner.advance(note.request.run_id)
    (again,) = await desk.runner.pending(run_id=note.request.run_id)
    window = await desk.sign_in(windows, "alice")
    page = window.page
    found = ""
    for kind in ("approve", "reject", "edit", "escalate", "delegate", "abstain"):
        found += await flaws(window, f"/requests/{payment.request_id}?decide={kind}", within=DECIDE)
    found += await flaws(window, f"/requests/{again.request_id}?decide=revise", within=OPENED)
    await page.get_by_role("button", name="Inline").click()
    found += await flaws(window, within=OPENED)
    window.expect_trouble("status of 422")
    await window.opens(f"/requests/{trip.request_id}?decide=respond")
    await page.get_by_role("button", name="Send response").click()
    await expect(page.get_by_label("Nights")).to_have_attribute("aria-invalid", "true")
    found += await flaws(window, within=OPENED)
    await window.opens(f"/requests/{payment.request_id}?decide=edit")
    await page.get_by_label("Amount").fill("45")
    await page.get_by_role("button", name="Preview the change").click()
    await expect(page.get_by_role("region", name="What your edit changes")).to_be_visible()
    found += await flaws(window, within=OPENED)
    await page.get_by_role("button", name="Approve with this edit").click()
    await expect(page.get_by_text("Paid 45 to Ann.")).to_be_visible()
    found += await flaws(window)
    assert found == ""


async def test_the_pages_of_runs_and_those_outside_are_for_everybody(
    serve: Serve, windows: Windows
) -> None:
    desk = Desk()
    links = AnswerLinks(SECRETS, "http://127.0.0.1")
    desk.base = await serve(desk.app(links=links))
    waiting = await desk.ask("payment", amount=40, recipient="Ann")
    done = await desk.ask("note", text=LONG)
    await desk.runner.answer(done.request_id, Approve(), by=person("bob"))
    await desk.runner.advance(done.request.run_id)
    outside = await windows.open(desk.base)
    found = await flaws(outside, "/sign-in")
    found += await flaws(outside, "/link/" + links.url_for(waiting, "alice").rpartition("/")[2])

    window = await desk.sign_in(windows, "alice")
    for path in ("/start", "/start/payment", "/runs", f"/runs/{waiting.request.run_id}"):
        found += await flaws(window, path)
    await window.page.get_by_role("link", name="Review and decide").click()
    await expect(window.page.get_by_role("article", name="Pay 40 to Ann")).to_be_visible()
    found += await flaws(window, within=OPENED)
    found += await flaws(window, f"/runs/{done.request.run_id}")
    found += await flaws(window, f"/runs/{done.request.run_id}/audit")
    window.expect_trouble("status of 4")
    await window.opens("/start/payment")
    await window.page.get_by_role("button", name="Start").click()
    await expect(window.page.get_by_label("Amount")).to_have_attribute("aria-invalid", "true")
    found += await flaws(window)
    found += await flaws(window, "/runs/unknown")
    assert found == ""


async def test_on_a_phone_the_list_leads_to_a_request_and_back(
    desk: Desk, windows: Windows
) -> None:
    await desk.ask("note", text="Tea")
    await desk.ask("hostile")
    window = await desk.sign_in(windows, "alice", **PHONE)
    page = await window.opens("/")
    await page.get_by_role("link", name="Note: Tea").tap()
    title = page.get_by_role("article").get_by_role("heading", name="Note: Tea")
    await expect(title).to_be_visible()
    await expect(page.get_by_role("searchbox")).to_be_hidden()
    await page.get_by_role("link", name="Inbox").last.tap()
    await expect(page.get_by_role("link", name="Note: Tea")).to_be_visible()
    await expect(title).to_be_hidden()

    await page.get_by_role("link", name="script").tap()
    await expect(page.get_by_role("article")).to_be_visible()
    wide, room = await page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= room
    await page.go_back()
    await expect(page.get_by_role("link", name="Note: Tea")).to_be_visible()
