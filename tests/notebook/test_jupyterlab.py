"""The notebook's reviewer in JupyterLab, in a real browser, by clicks."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from lab import browsing, chromium, serving
from playwright.async_api import expect

CELLS = (
    "from notebook_flows import Publishing\n"
    "from llama_index_hitl.notebook import review_in_notebook",
    'await review_in_notebook(Publishing(timeout=None).run(), reviewer="erin")',
)

RUN_ALL = """async () => {
    const context = window.jupyterapp.shell.currentWidget.sessionContext;
    await context.ready;
    await context.session.kernel.info;
    window.jupyterapp.commands.execute("notebook:run-all-cells");
}"""

SAVE = """async () => {
    await window.jupyterapp.commands.execute("docmanager:save");
    await window.jupyterapp.shell.currentWidget.sessionContext.shutdown();
}"""


@pytest.mark.timeout(150)
async def test_a_run_is_reviewed_by_clicks_and_reads_the_same_without_its_kernel(
    tmp_path: Path,
) -> None:
    chromium()
    python = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": python})
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    file = tmp_path / "notebooks" / "review.ipynb"
    file.parent.mkdir()
    nbformat.write(notebook, file)

    async with serving(tmp_path) as base, browsing() as browser:
        page = await browser.new_page(viewport={"width": 1180, "height": 1900})
        page.set_default_timeout(30_000)
        await page.goto(f"{base}/doc/tree/review.ipynb?reset")
        await page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        await page.evaluate(RUN_ALL)

        decisions = page.locator(".hitl .bar").get_by_role("button")
        await decisions.first.wait_for()
        assert await decisions.all_inner_texts() == ["Approve…", "Reject…", "Send back…", "Edit…"]

        await page.get_by_role("button", name="Send back…").click()
        feedback = page.get_by_label("Feedback")
        await expect(feedback).to_be_focused()
        await page.get_by_role("button", name="Send back", exact=True).click()
        await page.get_by_role("alert").first.wait_for()
        # One change after the other: the second one is sent only when the first was taken.
        for text in ("nothing", "nothing at all, they are mice"):
            await feedback.fill(text)
            await feedback.blur()
        await page.get_by_role("button", name="Send back", exact=True).click()
        await page.get_by_text("Changed since revision 1").wait_for()
        await expect(page.locator("mark", has_text="mice")).to_be_visible()

        await page.get_by_role("button", name="Edit…").click()
        await page.get_by_label("Pages").fill("500")
        await page.get_by_role("button", name="Preview the change").click()
        await page.get_by_text("500 is greater than the maximum of 20").wait_for()
        assert await page.get_by_label("Pages").input_value() == "500"
        await page.get_by_label("Pages").fill("5")
        await page.get_by_label("Pages").press("Enter")
        await page.get_by_role("button", name="Preview the change").click()
        await page.get_by_role("button", name="Approve with this edit").click()
        await page.get_by_text("published: Mice at sea, 5 pages").wait_for()
        await page.screenshot(path=tmp_path / "decided.png")

        await page.evaluate(SAVE)
        await page.reload()
        await page.get_by_text("published: Mice at sea, 5 pages").wait_for()
        cards = page.locator(".jp-OutputArea article")
        assert await cards.count() == 2
        assert "erin sent it back" in await cards.first.inner_text()
        assert "erin edited it" in await cards.last.inner_text()
        assert await page.locator(".jp-OutputArea").get_by_role("button").count() == 0
        assert await page.get_by_text("Error displaying widget").count() == 0
