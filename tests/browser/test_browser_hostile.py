"""What people and models write is text, wherever it is shown; it does nothing."""

import pytest
from desk import MALLORY, Desk, person
from desk_flows import HOSTILE
from playwright.async_api import Page, expect
from windows import Window, Windows

from llama_index_hitl.models import Approve, Revise

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIVE = """
() => [...document.querySelectorAll("*")].flatMap(element => {
    const found = [];
    for (const {name, value} of element.attributes) {
        if (name.startsWith("on")) found.push(`${element.tagName} ${name}`);
        if (["href", "src", "action", "formaction", "xlink:href", "srcdoc"].includes(name)
            && /^\\s*(javascript|data|vbscript):/i.test(value)
            && !element.matches("link[rel=icon]"))
            found.push(`${element.tagName} ${name}=${value}`);
        if (name === "style" || name === "srcdoc") found.push(`${element.tagName} ${name}`);
    }
    if (element.matches("script:not([src]), iframe, object, embed, base, style, math"))
        found.push(element.tagName);
    const icon = element.closest("svg.icon, svg.mark");
    if (element.tagName.toLowerCase() === "svg" && !icon) found.push("svg");
    if (element.matches("img") && new URL(element.src).origin !== location.origin)
        found.push(element.src);
    return found;
})
"""
"""Finds what could do something, in a page that has no script and no style of its own inside."""


async def harmless(window: Window, path: str = "") -> Page:
    """Open a page, and look for what came alive on it."""
    page = await window.opens(path) if path else window.page
    await page.wait_for_load_state("load")
    assert await page.evaluate(LIVE) == []
    assert await page.evaluate("window.hacked") is None
    return page


async def test_hostile_content_is_shown_as_text_on_every_page(desk: Desk, windows: Windows) -> None:
    first = await desk.ask("hostile", by="<img src=x onerror=window.hacked=20>")
    await desk.runner.claim(first.request_id, by=person(MALLORY))
    window = await desk.sign_in(windows, "alice")

    page = await harmless(window, "/")
    await expect(page.get_by_text("<script>window.hacked = 1</script>").first).to_be_visible()
    page = await harmless(window, f"/requests/{first.request_id}")
    await expect(page.get_by_text("<script>window.hacked = 1</script>").first).to_be_visible()
    for kind in ("approve", "reject", "revise", "edit", "delegate"):
        await harmless(window, f"/requests/{first.request_id}?decide={kind}")

    # Its feedback, its next draft and what changed; progress and result on the page of the run.
    await desk.runner.answer(first.request_id, Revise(feedback=HOSTILE), by=person(MALLORY))
    await harmless(window)
    await desk.runner.advance(first.request.run_id)
    (second,) = await desk.runner.pending(run_id=first.request.run_id)
    page = await harmless(window, f"/requests/{second.request_id}")
    await expect(page.get_by_text("Changed since revision 1")).to_be_visible()
    await harmless(window, f"/runs/{first.request.run_id}")
    await desk.runner.answer(second.request_id, Approve(comment=HOSTILE), by=person(MALLORY))
    await desk.runner.advance(first.request.run_id)
    await harmless(window)
    await harmless(window, f"/requests/{second.request_id}")
    for path in ("/runs", f"/runs/{first.request.run_id}", f"/runs/{first.request.run_id}/audit"):
        await harmless(window, path)
    for path in ("/start", "/start/hostile", "/?text=<script>window.hacked=30</script>"):
        await harmless(window, path)
    window.expect_trouble("status of 404")
    await harmless(window, "/runs/<script>window.hacked=31<%2Fscript>")
    await harmless(window, "/<script>window.hacked=32<%2Fscript>")
