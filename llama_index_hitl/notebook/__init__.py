"""The notebook reviewer: people look at requests in the output of a cell, and decide by clicks.

Extra: `notebook`.

`review_in_notebook` takes a run to its end with one person in front of the notebook:

    handler = Publishing(timeout=None).run(topic="AI")
    result = await review_in_notebook(handler, reviewer="erin")

`Inbox` shows what waits for one person in the store of a runner, and stays current:

    Inbox(runner, reviewer="erin")

How a person answers:

- Each request is shown whole, and below it the decisions that it allows. A decision opens its form,
  and only the button in the form sends it: nothing is chosen beforehand, and Enter sends nothing.
- What is wrong is said at the field, and what was typed stays. An edit is shown as the change that
  it makes before it can be sent.
- Several requests that are open at once are answered in any order.
- What is asked and who decided what stays in the output as HTML, and reads the same when the
  notebook is opened again without a kernel.
- Interrupting the cell leaves everything open. Await the same handler again to go on.

Works in JupyterLab, Notebook 7, VS Code and Colab. Where no widgets are shown, in a terminal say,
it asks in plain text, as `llama_index_hitl.console` does.
"""

from __future__ import annotations

from typing import Any, TextIO, cast

from workflows.handler import WorkflowHandler

from llama_index_hitl._attendance import Attendance
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.models import Reviewer
from llama_index_hitl.notebook._inbox import Inbox, require_extra
from llama_index_hitl.notebook._kernel import TypedInput, kernel_here

__all__ = ["Inbox", "review_in_notebook"]

_ATTENDED: dict[WorkflowHandler, Attendance] = {}
"""Runs that wait for somebody here, until they end: a stream can be read once, and a waiting run
that nobody refers to is garbage collected."""


async def review_in_notebook(
    handler: WorkflowHandler,
    *,
    reviewer: Reviewer | str | None = None,
    clock: Clock = utc_now,
    wait_for_others: bool = False,
    widgets: bool | None = None,
) -> Any:
    """Take a run to its end with one person in front of the notebook.

    Shows every request as it comes, and plain `InputRequiredEvent`s too, and sends the answers.
    Reads the handler's stream, which can be read once; but the same handler may be given again,
    after an interrupt, or to let somebody else answer what the first one could not.

    Example:
        ```python
        result = await review_in_notebook(Publishing(timeout=None).run(topic="AI"), reviewer="erin")
        ```

    Args:
        handler: The run, as `workflow.run()` returns it.
        reviewer: Who is there; a plain id stands for a person without roles. None: asks for the
            name. It is never taken from the operating system.
        clock: Where the time comes from; a request whose deadline passes is closed by it.
        wait_for_others: Others answer the same run in some other way, so wait for them where this
            person can do no more.
        widgets: Whether to ask with widgets. None: where the front end shows them, and in plain
            text elsewhere.

    Returns:
        The result of the run.

    Raises:
        Unanswered: Only others could go on and `wait_for_others` is not set; or, in plain text, the
            person left. Nothing was decided for them, and the run waits.
        MissingExtra: The extra `notebook` is not installed.
        Exception: Whatever the run itself fails with.
    """
    require_extra()
    attendance = _ATTENDED.setdefault(handler, Attendance(handler))
    attendance.person = Reviewer(id=reviewer) if isinstance(reviewer, str) else reviewer
    try:
        return await _reviewed(attendance, clock, widgets, wait_for_others=wait_for_others)
    finally:
        if attendance.over:
            _ATTENDED.pop(handler, None)


async def _reviewed(
    attendance: Attendance, clock: Clock, widgets: bool | None, *, wait_for_others: bool
) -> Any:
    from llama_index_hitl.notebook._board import Board, NoWidgetsError

    kernel = kernel_here()
    if kernel is not None and widgets is not False:
        board = Board(attendance, kernel, clock=clock, wait_for_others=wait_for_others)
        try:
            return await board.run()
        except NoWidgetsError:
            pass
    from llama_index_hitl.console._desk import Desk
    from llama_index_hitl.console._session import Session

    stdin = None if kernel is None else cast("TextIO", TypedInput())
    desk = Desk(attendance.person, stdin, None, clock, None)
    return await Session(attendance, desk, wait_for_others=wait_for_others).run()
