"""The inbox in a notebook, by the protocol of widgets, in a real kernel."""

from __future__ import annotations

import pytest
from page import Page

pytestmark = pytest.mark.asyncio(loop_scope="session")

OPEN = """
runner = Runner(MemoryStore(), {"payments": Payments(timeout=None)})
run = await runner.start("payments", amounts=[1, 2, 3])
inbox = Inbox(runner, reviewer="erin", every=timedelta(seconds=0.05))
inbox
"""


async def test_what_waits_is_listed_opened_and_decided_and_the_run_goes_on(page: Page) -> None:
    cell = page.run(OPEN)
    await cell.ends()
    async with cell.living_on():
        await cell.until(
            lambda: cell.buttons == ["Pay 1? · desk", "Pay 2? · desk", "Pay 3? · desk"]
        )
        await cell.click("Pay 2? · desk")
        await cell.until(lambda: "Approve…" in cell.buttons and "Pay 2?" in cell.said)
        await cell.click("Reject…")
        await cell.type("Comment (optional)", "not that one")
        await cell.click("Reject")
        await cell.until(lambda: cell.buttons == ["Pay 1? · desk", "Pay 3? · desk"])
        await cell.until(lambda: "<strong>erin</strong> rejected" in cell.html)
        for amount in (1, 3):
            await cell.click(f"Pay {amount}? · desk")
            await cell.click("Approve…")
            await cell.click("Approve")
        await cell.until(lambda: "Nothing waits for erin" in cell.html)
    after = await page.run("inbox.close(); print(await runner.result(run.run_id))").ends()
    assert after.text.strip() == "4"
    assert "not that one" in cell.html
