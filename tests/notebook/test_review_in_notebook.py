"""`review_in_notebook`, by the protocol of widgets, in a real kernel while the cell waits."""

from __future__ import annotations

import json
import re

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from page import Cell, Page

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLISH = 'await review_in_notebook(Publishing(timeout=None).run(), reviewer="erin")'


def result(cell: Cell) -> str:
    """What the cell has come to."""
    return str(cell.outputs[-1].data["text/plain"])


async def test_a_click_while_the_cell_waits_approves(page: Page) -> None:
    cell = page.run(PUBLISH)
    await cell.click("Approve…")
    await cell.click("Approve")
    await cell.ends()
    assert result(cell) == "'published: Mice at sea, 2 pages'"
    assert "<strong>erin</strong> approved" in cell.html


async def test_everything_there_is_to_know_stands_in_the_output_before_the_decision(
    page: Page,
) -> None:
    cell = page.run(PUBLISH)
    await cell.until(lambda: "Reject…" in cell.buttons)
    assert cell.buttons == ["Approve…", "Reject…", "Send back…", "Edit…"]
    for shown in (
        "Mice swim <strong>well</strong>",
        "<td>House mouse</td>",
        '<span class="tok-k">def</span>',
        "Swimming of small mammals",
        "0.87",
        "High priority",
        "science",
    ):
        assert shown in cell.html
    await cell.click("Send back…")
    await cell.type("Feedback", "say more")
    await cell.click("Send back")
    await cell.until(lambda: "Changed since revision 1" in cell.html and "Reject…" in cell.buttons)
    assert "<mark>say</mark>" in cell.html
    assert "Revision 2 of 3" in cell.html
    assert "Feedback so far" in cell.html
    await cell.click("Reject…")
    await cell.click("Reject")
    assert result(await cell.ends()) == "'not published'"


async def test_what_is_wrong_is_said_at_the_field_and_what_was_typed_stays(page: Page) -> None:
    cell = page.run(PUBLISH)
    await cell.click("Edit…")
    await cell.type("Title", "Mice in the bath")
    await cell.type("Pages (optional)", "500")
    await cell.click("Preview the change")
    await cell.until(lambda: "Correct what is marked" in cell.said)
    assert cell.problem_at("Pages (optional)") == "500 is greater than the maximum of 20"
    assert cell.problem_at("Title") == ""
    assert cell.value("Pages (optional)") == "500"
    assert cell.value("Title") == "Mice in the bath"
    await cell.type("Pages (optional)", "5")
    await cell.click("Preview the change")
    await cell.until(lambda: "<ins>" in cell.said)
    assert "Mice in the bath" in re.sub("<[^>]*>", "", cell.said)
    await cell.click("Approve with this edit")
    await cell.ends()
    assert result(cell) == "'published: Mice in the bath, 5 pages'"
    assert "<strong>erin</strong> edited it" in cell.html


async def test_an_edit_that_was_typed_on_after_the_preview_is_shown_before_it_is_sent(
    page: Page,
) -> None:
    cell = page.run(PUBLISH)
    await cell.click("Edit…")
    await cell.type("Title", "One")
    title = cell.find("Text", "Title")
    assert title is not None
    await cell.click("Preview the change")
    send = await cell.until(lambda: cell.find("Button", "Approve with this edit"))
    await page.change(title, value="Two")
    await page.send(send, {"method": "custom", "content": {"event": "click"}})
    await cell.until(lambda: "Two" in cell.said)
    assert not cell.task.done()
    await cell.click("Approve with this edit")
    assert result(await cell.ends()) == "'published: Two, 2 pages'"


async def test_nothing_is_decided_by_opening_forms_by_enter_or_by_nothing(page: Page) -> None:
    cell = page.run(PUBLISH)
    for decision, first in (
        ("Approve…", "Comment (optional)"),
        ("Send back…", "Feedback"),
        ("Edit…", "Title"),
    ):
        await cell.click(decision)
        field = await cell.until(lambda: cell.find("Text", first))  # noqa: B023 - used at once
        await page.send(field, {"method": "custom", "content": {"event": "submit"}})  # Enter
        await cell.click("Not now")
    await cell.click("Send back…")
    await cell.click("Send back")
    await cell.until(lambda: cell.problem_at("Feedback"))
    assert page.focused == ["Comment (optional)", "Feedback", "Title", "Feedback"]
    await cell.click("Not now")
    assert "Waits for <strong>anyone</strong>" in cell.html
    await cell.click("Reject…")
    await cell.click("Reject")
    assert result(await cell.ends()) == "'not published'"


async def test_several_requests_are_open_at_once_and_answered_in_any_order(page: Page) -> None:
    cell = page.run(
        "await review_in_notebook(Payments(timeout=None).run(amounts=[1, 2, 4]), reviewer='erin')"
    )
    await cell.until(lambda: cell.buttons.count("Approve…") == 3)
    for decision, at in (("Approve", 2), ("Reject", 0), ("Approve", 0)):
        left = cell.buttons.count("Approve…")
        await cell.click(f"{decision}…", at)
        await cell.click(decision)
        await cell.until(lambda: cell.buttons.count("Approve…") < left)  # noqa: B023
    await cell.ends()
    assert result(cell) == "6"
    assert cell.html.count("<strong>erin</strong> approved") == 2


async def test_a_form_follows_the_schema_of_the_response(page: Page) -> None:
    cell = page.run("await review_in_notebook(Trips(timeout=None).run(), reviewer='erin')")
    assert await cell.until(lambda: cell.buttons) == ["Respond…"]
    await cell.click("Respond…")
    await cell.type("Nights", "many")
    await cell.click("Send response")
    await cell.until(lambda: cell.problem_at("Nights") == "this must be a whole number")
    await cell.until(lambda: cell.problem_at("By") == "choose one of: train, boat")
    await cell.type("Nights", "3")
    await cell.type("Leaves", "2026-03-06")
    await cell.choose("By", "boat")
    await cell.click("Send response")
    await cell.until(lambda: cell.problem_at("Breakfast") == "'breakfast' is a required property")
    assert cell.problem_at("Nights") == ""
    await cell.choose("Breakfast", "No")
    await cell.click("Send response")
    await cell.ends()
    assert "'by': 'boat'" in result(cell)
    assert "'breakfast': False" in result(cell)
    assert "<strong>erin</strong> responded" in cell.html


async def test_who_may_not_answer_is_told_and_others_go_on_with_the_same_run(page: Page) -> None:
    await page.run("board = Board(timeout=None).run()").ends()
    turn = "await review_in_notebook(board, reviewer={!r})"
    refused = page.run(turn.format("erin"))
    with pytest.raises(CellExecutionError, match="Unanswered"):
        await refused.ends()
    assert "erin may not answer this" in refused.html
    first = page.run(turn.format("ann"))
    assert await first.until(lambda: first.buttons) == ["Approve…", "Reject…"]
    assert "0 of 2 approvals" in first.html
    await first.click("Approve…")
    await first.click("Approve")
    with pytest.raises(CellExecutionError, match="it needs the answers of others"):
        await first.ends()
    assert "1 of 2 approvals" in first.html
    second = page.run(turn.format("bob"))
    await second.click("Approve…")
    assert "<strong>ann</strong> approved" in second.html
    await second.click("Approve")
    assert result(await second.ends()) == "'bought'"


async def test_an_interrupt_leaves_the_request_open_and_the_same_run_goes_on(page: Page) -> None:
    await page.run("writing = Publishing(timeout=None).run()").ends()
    wait = "await review_in_notebook(writing, reviewer='erin')"
    cell = page.run(wait)
    await cell.click("Approve…")
    await cell.until(lambda: "Approve" in cell.buttons)
    await page.client.km.interrupt_kernel()
    with pytest.raises(CellExecutionError, match="CancelledError"):
        await cell.ends()
    assert cell.views == []
    assert "This stays open" in cell.html
    assert "Waits for <strong>anyone</strong>" in cell.html
    again = page.run(wait)
    await again.click("Approve…")
    await again.click("Approve")
    assert result(await again.ends()) == "'published: Mice at sea, 2 pages'"
    assert "Revision" not in again.html


async def test_what_is_saved_reads_the_same_without_a_kernel(page: Page) -> None:
    cell = page.run(PUBLISH)
    await cell.click("Send back…")
    await cell.type("Feedback", "say more")
    await cell.click("Send back")
    await cell.until(lambda: "Changed since revision 1" in cell.html)
    await cell.click("Approve…")
    await cell.type("Comment (optional)", "good now")
    await cell.click("Approve")
    await cell.ends()
    saved = nbformat.writes(page.client.nb)
    nbformat.validate(nbformat.reads(saved, as_version=4))
    assert "widget-view" not in json.dumps(json.loads(saved)["cells"])
    for kept in ("say more", "good now", "<strong>erin</strong> sent it back", "What was asked"):
        assert kept in cell.html
    texts = [output.data["text/plain"] for output in cell.outputs]
    assert "Publish Mice at sea?: approved. erin approved it.\nerin: approve" in texts


async def test_hostile_content_stays_text(page: Page) -> None:
    cell = page.run(
        "await review_in_notebook(HostileFlow(timeout=None).run(), reviewer='<i>e</i>')"
    )
    await cell.click("Edit…")
    await cell.click("Preview the change")
    await cell.until(lambda: "changes nothing" in cell.said)
    await cell.click("Approve with this edit")
    await cell.ends()
    for shown in (cell.html, cell.said):
        for tag in ("<script", "<img", "<b>", "<i>", 'href="javascript'):
            assert tag not in shown
    assert "&lt;script&gt;" in cell.html
    framed = cell.html.count('class="hitl')
    assert framed == cell.html.count("mathjax_ignore tex2jax_ignore") >= 2


async def test_a_plain_question_is_answered_with_a_text(page: Page) -> None:
    cell = page.run("await review_in_notebook(Plain(timeout=None).run(), reviewer='erin')")
    await cell.click("Send")
    await cell.until(lambda: cell.problem_at("Answer"))
    await cell.type("Answer", "red\nand blue")
    await cell.click("Send")
    await cell.ends()
    assert result(cell) == "'said: red\\nand blue'"
    assert "<img" not in cell.html
    assert "<strong>erin</strong> answered" in cell.html


async def test_somebody_without_a_name_is_asked_for_it_first(page: Page) -> None:
    cell = page.run("await review_in_notebook(Publishing(timeout=None).run())")
    assert await cell.until(lambda: cell.buttons) == ["Go on"]
    await cell.click("Go on")
    await cell.until(lambda: cell.problem_at("Your name, for the record"))
    await cell.type("Your name, for the record", " ada ")
    await cell.click("Go on")
    await cell.click("Approve…")
    await cell.click("Approve")
    await cell.ends()
    assert "<strong>ada</strong> approved" in cell.html


async def test_a_deadline_that_passes_closes_the_request(page: Page) -> None:
    cell = page.run(
        "clock = ManualClock(datetime(2026, 3, 6, tzinfo=UTC))\n"
        "boards = Board(timeout=None)\n"
        "boards.clock = clock\n"
        "waiting = asyncio.ensure_future(\n"
        "    review_in_notebook(boards.run(), reviewer='ann', clock=clock))\n"
        "button = ipywidgets.Button(description='An hour passes')\n"
        "button.on_click(lambda _: clock.advance(timedelta(hours=1)))\n"
        "display(button)\n"
        "await waiting"
    )
    await cell.click("Approve…")
    assert "Due 6 Mar 2026, 01:00 UTC · 60 min left" in cell.html
    await cell.click("An hour passes")
    await cell.ends()
    assert result(cell) == "'too late'"
    assert "Expired" in cell.html


async def test_where_no_widgets_are_shown_it_asks_in_plain_text(page: Page) -> None:
    page.shows_widgets = False
    await page.run("writing = Publishing(timeout=None).run()").ends()
    cell = page.run("await review_in_notebook(writing, reviewer='erin')")
    (view,) = await cell.until(lambda: cell.views)
    await page.refuse(view)
    # Nobody can type here either, so it stays open.
    with pytest.raises(CellExecutionError, match="input ended"):
        await cell.ends()
    assert "Decision (erin):" in cell.text
    page.shows_widgets = True
    again = page.run("await review_in_notebook(writing, reviewer='erin')")
    await again.click("Approve…")
    await again.click("Approve")
    assert result(await again.ends()) == "'published: Mice at sea, 2 pages'"


async def test_a_front_end_that_says_nothing_is_not_waited_for_without_end(page: Page) -> None:
    page.shows_widgets = False
    cell = page.run(
        "import llama_index_hitl.notebook._board as board_of\n"
        "before, board_of.PATIENCE_SECONDS = board_of.PATIENCE_SECONDS, 0.05\n"
        "try:\n"
        "    await review_in_notebook(Publishing(timeout=None).run(), reviewer='erin')\n"
        "finally:\n"
        "    board_of.PATIENCE_SECONDS = before"
    )
    with pytest.raises(CellExecutionError, match="input ended"):
        await cell.ends()


async def test_the_next_cell_waits_for_its_turn(page: Page) -> None:
    cell = page.run(PUBLISH)
    await cell.until(lambda: cell.buttons)
    kc = page.client.kc
    later = kc.execute("came_second = True", store_history=False)
    await cell.click("Approve…")
    assert later not in page.client.taken
    await cell.click("Approve")
    await cell.ends()
    after = await page.run("came_second").ends()
    assert result(after) == "True"
