"""`review_in_notebook`, by the protocol of widgets, in a real kernel while the cell waits."""

from __future__ import annotations

import pytest
from page import Page

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLISH = 'await review_in_notebook(Publishing(timeout=None).run(), reviewer="erin")'


async def test_a_click_while_the_cell_waits_approves(page: Page) -> None:
    cell = page.run(PUBLISH)
    await cell.click("Approve…")
    await cell.click("Approve")
    await cell.ends()
    assert cell.outputs[-1].data["text/plain"] == "'published: Mice at sea, 2 pages'"
    assert "<strong>erin</strong> approved" in cell.html
    assert cell.views == []


async def test_what_is_wrong_is_said_at_the_field_and_what_was_typed_stays(page: Page) -> None:
    cell = page.run(PUBLISH)
    await cell.click("Edit…")
    await cell.type("Title", "Mice in the bath")
    await cell.type("Pages (optional)", "500")
    await cell.click("Preview the change")
    await cell.until(lambda: "500 is greater than the maximum of 20" in cell.said)
    await cell.until(lambda: "Correct what is marked" in cell.said)
    assert cell.value("Pages (optional)") == "500"
    assert cell.value("Title") == "Mice in the bath"
    await cell.type("Pages (optional)", "5")
    await cell.click("Preview the change")
    await cell.click("Approve with this edit")
    await cell.ends()
    assert cell.outputs[-1].data["text/plain"] == "'published: Mice in the bath, 5 pages'"
