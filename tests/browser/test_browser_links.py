"""Links from mails: opened by anybody, they decide nothing; what is pressed there does."""

import pytest
from desk import SECRETS, Desk
from playwright.async_api import expect
from served import Serve
from windows import Windows

from llama_index_hitl.models import DecisionKind, RequestStatus
from llama_index_hitl.web import AnswerLinks

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_link_decides_when_its_button_is_pressed_and_then_never_again(
    serve: Serve, windows: Windows
) -> None:
    desk = Desk()
    links = AnswerLinks(SECRETS, "http://127.0.0.1")
    desk.base = await serve(desk.app(links=links))
    asked = await desk.ask("note", text="Tea is out")
    link = links.url_for(asked, "alice", decision=DecisionKind.APPROVE)

    window = await windows.open(desk.base)
    for _ in range(2):
        page = await window.opens("/link/" + link.rpartition("/")[2])
        await expect(page.get_by_role("heading", name="Note: Tea is out")).to_be_visible()
        assert (await desk.runner.get(asked.request_id)).status is RequestStatus.OPEN

    await page.get_by_role("group").filter(has_text="Approve").get_by_label("Comment").fill("Yes.")
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("heading", name="Your answer is taken")).to_be_visible()
    taken = await desk.runner.get(asked.request_id)
    assert [(a.by.id, a.channel, a.comment) for a in taken.answers] == [("alice", "link", "Yes.")]

    window.expect_trouble("status of 410")
    await window.opens("/link/" + link.rpartition("/")[2])
    await expect(page.get_by_role("heading", name="This link is no longer good")).to_be_visible()
    await expect(page.get_by_text("You have answered this already")).to_be_visible()


async def test_the_form_of_a_link_says_what_is_wrong_at_the_field(
    serve: Serve, windows: Windows
) -> None:
    desk = Desk()
    links = AnswerLinks(SECRETS, "http://127.0.0.1")
    desk.base = await serve(desk.app(links=links))
    asked = await desk.ask("trip", to="Rome")
    link = links.url_for(asked, "alice")

    window = await windows.open(desk.base)
    page = await window.opens("/link/" + link.rpartition("/")[2])
    await page.get_by_label("Nights").fill("90")
    await page.get_by_label("Leaves").fill("2026-12-24")
    window.expect_trouble("status of 422")
    await page.get_by_role("button", name="Respond").click()
    await expect(page.get_by_label("Nights")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("Nights")).to_have_value("90")
    await expect(page.get_by_label("Leaves")).to_have_value("2026-12-24")

    await page.get_by_label("Nights").fill("3")
    await page.get_by_role("button", name="Respond").click()
    await expect(page.get_by_role("heading", name="Your answer is taken")).to_be_visible()
