"""All that a mouse can do, done with keys alone."""

import pytest
from desk import Desk, person, token_of
from playwright.async_api import Page, expect
from windows import Windows

from llama_index_hitl.models import Approve, RequestStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def press(page: Page, *keys: str) -> None:
    for key in keys:
        await page.keyboard.press(key)


async def test_a_person_signs_in_opens_and_decides_without_a_mouse(
    desk: Desk, windows: Windows
) -> None:
    approved = await desk.ask("payment", amount=40, recipient="Ann")  # pressing, so it is the first
    rejected = await desk.ask("note", text="Tea")
    window = await windows.open(desk.base)
    page = await window.opens("/")
    token = page.get_by_label("Your token")
    await expect(token).to_be_focused()
    await page.keyboard.type(token_of("alice"))
    async with page.expect_event("load"):
        await press(page, "Enter")

    # Down and up again: the first is opened.
    await press(page, "j", "j", "k", "Enter")
    title = page.get_by_role("article").get_by_role("heading", level=2)
    await expect(title).to_have_text("Pay 40 to Ann")
    await expect(title).to_be_focused()
    await press(page, "a")
    await expect(page.get_by_role("form", name="Approve")).to_be_visible()
    comment = page.get_by_label("Comment")
    await expect(comment).to_be_focused()
    assert (await desk.runner.get(approved.request_id)).status is RequestStatus.OPEN

    # Neither a key for a decision nor Enter in a field decides anything.
    await page.keyboard.type("a r")
    await press(page, "Enter")
    await expect(comment).to_have_value("a r\n")
    assert (await desk.runner.get(approved.request_id)).status is RequestStatus.OPEN
    await press(page, "Tab")
    button = page.get_by_role("form").get_by_role("button", name="Approve", exact=True)
    await expect(button).to_be_focused()
    await press(page, "Enter")
    await expect(page.get_by_text("On record: you")).to_be_visible()
    assert (await desk.runner.get(approved.request_id)).answers[0].comment == "a r\n"

    await press(page, "Escape", "j", "o")
    await expect(title).to_have_text("Note: Tea")
    await press(page, "r")
    await expect(comment).to_be_focused()
    await page.keyboard.type("We have enough.")
    await press(page, "Tab", "Enter")
    await expect(page.get_by_text("On record: you")).to_be_visible()
    taken = await desk.runner.get(rejected.request_id)
    assert (taken.status, taken.answers[0].comment) == (RequestStatus.REJECTED, "We have enough.")


async def test_the_keys_are_told_and_the_search_is_one_of_them(
    desk: Desk, windows: Windows
) -> None:
    await desk.ask("note", text="Tea")
    await desk.ask("note", text="Milk")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens("/")
    await expect(page.get_by_role("link", name="Note: Tea")).to_be_visible()
    await press(page, "?")
    help_ = page.get_by_role("dialog", name="Keyboard")
    await expect(help_).to_contain_text("Open the form to approve")
    await press(page, "Escape")
    await expect(help_).to_be_hidden()

    await press(page, "/")
    await expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    await page.keyboard.type("milk")
    await expect(page.get_by_role("link", name="Note: Tea")).to_have_count(0)
    await expect(page.get_by_role("link", name="Note: Milk")).to_be_visible()


async def test_enter_in_a_line_of_an_edit_sends_nothing(desk: Desk, windows: Windows) -> None:
    asked = await desk.ask("payment", amount=40, recipient="Ann")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens(f"/requests/{asked.request_id}")
    await press(page, "e")
    amount = page.get_by_label("Amount")
    await expect(amount).to_be_focused()
    await amount.fill("45")
    await press(page, "Enter")
    await expect(amount).to_have_value("45")
    assert (await desk.runner.get(asked.request_id)).status is RequestStatus.OPEN


async def test_focus_stays_where_it_is_when_others_decide(desk: Desk, windows: Windows) -> None:
    asked = await desk.ask("note", text="Tea")
    await desk.ask("note", text="Milk")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens("/")
    await page.get_by_role("link", name="Note: Milk").focus()
    await desk.runner.answer(asked.request_id, Approve(), by=person("bob"))
    await expect(page.get_by_role("link", name="Note: Tea")).to_have_count(0)
    await expect(page.get_by_role("link", name="Note: Milk")).to_be_focused()
