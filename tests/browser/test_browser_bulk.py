"""Several requests approved at once: each is named, and what has changed meanwhile is left."""

import pytest
from desk import Desk, person
from playwright.async_api import expect
from windows import Windows

from llama_index_hitl.models import Reject, RequestStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_was_selected_is_named_and_approved_and_what_others_decided_is_not(
    desk: Desk, windows: Windows
) -> None:
    asked = {name: await desk.ask("note", text=name) for name in ("Tea", "Milk", "Salt", "Oil")}
    window = await desk.sign_in(windows, "alice")
    page = await window.opens("/")
    for name in ("Tea", "Milk", "Salt"):
        await page.get_by_role("checkbox", name=f"Select Note: {name}").check()
    await page.get_by_role("button", name="Review and approve").click()

    dialog = page.get_by_role("dialog", name="Approve 3 requests")
    for name in ("Tea", "Milk", "Salt"):
        await expect(dialog.get_by_role("link", name=f"Note: {name}")).to_be_visible()
        # Nobody has opened one of them; the dialog shows what each is about.
        await expect(dialog.get_by_role("checkbox", name=f"Approve Note: {name}")).to_be_checked()
    await expect(dialog.get_by_role("link", name="Note: Oil")).to_have_count(0)
    assert {(await desk.runner.get(one.request_id)).status for one in asked.values()} == {
        RequestStatus.OPEN
    }

    await dialog.get_by_role("checkbox", name="Approve Note: Salt").uncheck()
    await desk.runner.answer(asked["Milk"].request_id, Reject(), by=person("bob"))
    await dialog.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("dialog", name="Done: 1 of 2 approved")).to_be_visible()
    item = page.get_by_role("dialog").get_by_role("listitem").filter(has_text="Note: Milk")
    await expect(item).to_contain_text("bob")

    found = {name: (await desk.runner.get(one.request_id)).status for name, one in asked.items()}
    assert found == {
        "Tea": RequestStatus.APPROVED,
        "Milk": RequestStatus.REJECTED,
        "Salt": RequestStatus.OPEN,
        "Oil": RequestStatus.OPEN,
    }


async def test_nothing_can_be_approved_at_once_that_was_not_selected(
    desk: Desk, windows: Windows
) -> None:
    await desk.ask("note", text="Tea")
    await desk.ask("trip", to="Rome")
    window = await desk.sign_in(windows, "alice")
    page = await window.opens("/")
    await expect(page.get_by_role("link", name="Note: Tea")).to_be_visible()
    await expect(page.get_by_role("button", name="Review and approve")).to_be_hidden()
    await window.opens("/bulk")
    await expect(page.get_by_role("heading", name="Nothing to approve")).to_be_visible()
