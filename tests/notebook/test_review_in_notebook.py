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
