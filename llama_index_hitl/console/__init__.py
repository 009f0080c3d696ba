r"""The terminal reviewer: a person at a console looks at requests and decides. Extra: `cli`.

`review_in_console` takes a run to its end with one person at the terminal; `ConsoleReviewer` asks
one request at a time. Both work at a terminal and with piped input:

    printf 'approve\n' | python my_workflow.py

How a person answers:

- A decision is its exact word or its number. A comment may follow the word and a colon, as in
  `reject: too long`. Nothing else decides: not Enter, not "yes", not prose, and not what was typed
  before the question was shown.
- What a decision needs is asked for next, such as the feedback of `revise`. A line that ends with a
  backslash goes on in the next line (two backslashes are text); `/back` returns to the decisions.
- `edit` opens the editor that `VISUAL` or `EDITOR` names. Without one, or without a terminal, it
  asks field by field: Enter keeps a value, `""` empties it. Either way the changes are shown, and
  the word `edit` confirms them.
- Ctrl-C, or the end of input, leaves the request open.
"""

from __future__ import annotations

import asyncio
from typing import Any, TextIO

from workflows.handler import WorkflowHandler

from llama_index_hitl._attendance import Attendance
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.console._desk import Desk, EditorFunction
from llama_index_hitl.console._editor import EditorFailed, edit_text
from llama_index_hitl.console._interview import review
from llama_index_hitl.console._session import Session
from llama_index_hitl.errors import Unanswered
from llama_index_hitl.models import Answer, Reviewer, ReviewRequest

__all__ = ["ConsoleReviewer", "EditorFailed", "edit_text", "review_in_console"]

_AT_WORK: set[object] = set()
"""Runs that wait for somebody here: a waiting run that nobody refers to is garbage collected."""


class ConsoleReviewer:
    """A person at a terminal, for one request at a time.

    Args:
        reviewer: Who is there; a plain id stands for a person without roles. None: asks for the
            name once. It is never taken from the operating system.
        stdin: Where answers come from; `sys.stdin` if left out.
        stdout: Where requests are shown; `sys.stdout` if left out.
        clock: Where the time comes from.
        editor: Takes a text and the suffix of a file name, and returns the edited text, or None:
            it is as it was. By default the person's own, see `edit_text`.

    Raises:
        MissingExtra: Rich is not installed.

    Example:
        >>> import io
        >>> typed, screen = io.StringIO("approve: fine"), io.StringIO()
        >>> erin = ConsoleReviewer(reviewer="erin", stdin=typed, stdout=screen)
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> asyncio.run(erin.review(request)).decision.comment
        'fine'
    """

    def __init__(
        self,
        *,
        reviewer: Reviewer | str | None = None,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        clock: Clock = utc_now,
        editor: EditorFunction | None = None,
    ) -> None:
        self._desk = Desk(reviewer, stdin, stdout, clock, editor)

    async def review(self, request: ReviewRequest) -> Answer:
        """Show a request and return what the person decides. Other tasks go on meanwhile.

        Args:
            request: What to ask.

        Returns:
            Their answer.

        Raises:
            Unanswered: The person left, or input ended; the request stays open.
            NotAllowed: This person may not answer it, and was not asked.
            RequestExpired: Its deadline has passed.
        """
        return await review(self._desk, request)


async def review_in_console(
    handler: WorkflowHandler,
    *,
    reviewer: Reviewer | str | None = None,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    clock: Clock = utc_now,
    editor: EditorFunction | None = None,
    wait_for_others: bool = False,
) -> Any:
    """Take a run to its end with one person at the terminal.

    Shows what the run streams, asks every request in order, and plain `InputRequiredEvent`s too,
    and sends the answers. Reads the handler's stream, which can be read once.

    The run lives in this process: a crash loses it. One that must outlive it belongs to a `Runner`,
    and the command `hitl` asks a person at a terminal about that.

    Args:
        handler: The run, as `workflow.run()` returns it.
        reviewer: Who is there; see `ConsoleReviewer`.
        stdin: Where answers come from; `sys.stdin` if left out.
        stdout: Where requests are shown; `sys.stdout` if left out.
        clock: Where the time comes from; a request whose deadline has passed is closed by it.
        editor: What edits are made in; see `ConsoleReviewer`.
        wait_for_others: Others answer the same run in some other way, so wait for them where this
            person can do no more.

    Returns:
        The result of the run.

    Raises:
        Unanswered: The person left, input ended, or only others could go on and
            `wait_for_others` is not set. The run was cancelled; nothing was decided for them.
        MissingExtra: Rich is not installed.
        Exception: Whatever the run itself fails with.

    Example:
        >>> import io
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> async def main():
        ...     typed = io.StringIO("reject: too short")  # by default what you type
        ...     handler = DraftApproval().run(topic="mice", content="Mice.")
        ...     return await review_in_console(
        ...         handler, reviewer="erin", stdin=typed, stdout=io.StringIO()
        ...     )
        >>> asyncio.run(main()).status.value
        'rejected'
    """
    desk = Desk(reviewer, stdin, stdout, clock, editor)
    attendance = Attendance(handler)
    at_work = (attendance, asyncio.current_task())
    _AT_WORK.add(at_work)
    try:
        return await Session(attendance, desk, wait_for_others=wait_for_others).run()
    except Unanswered:
        await handler.cancel_run()
        raise
    finally:
        await attendance.close()
        _AT_WORK.discard(at_work)
