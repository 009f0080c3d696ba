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

ENDED = """
inbox.close()
while (await runner.get_run(run.run_id)).status != "finished":
    await asyncio.sleep(0)
print(await runner.result(run.run_id))
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
    after = await page.run(ENDED).ends()
    assert after.text.strip() == "4"
    assert cell.views == []
    assert "not that one" in cell.html


async def test_what_others_decide_meanwhile_is_shown(page: Page) -> None:
    cell = page.run(OPEN)
    await cell.ends()
    async with cell.living_on():
        await cell.click("Pay 2? · desk")
        await cell.click("Approve…")
    other = page.run(
        "(first, second, third) = (await runner.pending(reviewer='bob')).items\n"
        "_ = await runner.answer(second.request_id, Reject(comment='mine'), by='bob')"
    )
    await other.ends()
    async with cell.living_on():
        await cell.until(lambda: "bob rejected" in cell.said)
        await cell.until(lambda: cell.buttons == ["Pay 1? · desk", "Pay 3? · desk"])
        await cell.until(lambda: "<strong>bob</strong> rejected" in cell.html)
    await page.run("inbox.close()").ends()


async def test_a_closed_inbox_leaves_what_is_open_in_the_store_and_in_words(page: Page) -> None:
    cell = page.run(OPEN)
    await cell.ends()
    async with cell.living_on():
        await cell.click("Pay 2? · desk")
        await cell.until(lambda: "Approve…" in cell.buttons)
        after = page.client.kc.execute("inbox.close()")
        await cell.until(lambda: after in page.client.taken)
        await cell.until(lambda: not cell.views)
    assert "3 requests wait for erin" in cell.html
    assert "<li>Pay 2?</li>" in cell.html
    left = await page.run("print(len((await runner.pending()).items))").ends()
    assert left.text.strip() == "3"
