"""What the commands show people: requests as the terminal reviewer shows them, and tables.

Everything goes through `visible`, and nothing is taken for markup.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from llama_index_hitl._text import visible
from llama_index_hitl.cli._times import minute
from llama_index_hitl.console._view import View
from llama_index_hitl.console._words import nested, one_line
from llama_index_hitl.lifecycle import next_due
from llama_index_hitl.rendering import path_of

if TYPE_CHECKING:
    from llama_index_hitl.models import ReviewRecord, ReviewRequest
    from llama_index_hitl.stores.protocol import Claim, Run

_LONGEST_KEY = 44
"""Characters of an id that is never broken into lines, so that it can be copied in one go."""

_ROOM_BESIDE_KEY = 30
"""Columns that the rest of a table needs; a window that is too narrow for both breaks ids."""

_LONGEST_CELL = 300


class Screen(View):
    """The standard output, for people."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def heading(self, title: str) -> None:
        """Write the title of what follows."""
        self._heading(title)

    def text(self, text: str) -> None:
        """Write a text as it is, indented: no content can pass itself off as ours."""
        self._block(text, 2)

    def value(self, value: Any) -> None:
        """Write a JSON value in lines."""
        self.text("\n".join(nested(value)))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Write names and values; what is empty is left out."""
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs:
            if value:
                table.add_row(Text(name, "dim"), Text(one_line(value)))
        self._show(table, 2)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table; in its first column are ids. A column without any value is left out."""
        cells = [[one_line(cell, _LONGEST_CELL) for cell in row] for row in rows]
        used = [place for place in range(len(heads)) if any(row[place] for row in cells)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        room = min(_LONGEST_KEY, self._width() - _ROOM_BESIDE_KEY)
        for place in used:
            longest = max(len(row[place]) for row in cells)
            is_key = place == 0 and longest <= room
            # A key that were narrowed like the others would push the last column off the screen.
            table.add_column(
                Text(heads[place]),
                overflow="fold",
                min_width=longest if is_key else None,
                no_wrap=is_key,
            )
        for row in cells:
            table.add_row(*(Text(row[place]) for place in used))
        self._show(table)

    def command(self, *words: str) -> None:
        """Write a command to type or to copy: on one line, however long."""
        self._fresh_line()
        self._out.write(f"  {visible(shlex.join(words))}\n")

    # ------------------------------------------------------------- what a store has

    def runs(self, runs: Iterable[Run]) -> None:
        """Write runs, one a line."""
        self.table(
            ("Run", "Workflow", "Status", "Changed (UTC)", "Tags"),
            (
                (run.run_id, run.workflow, run.status, minute(run.updated_at), ", ".join(run.tags))
                for run in runs
            ),
        )

    def requests(
        self, records: Iterable[ReviewRecord], claims: Mapping[str, Claim] | None = None
    ) -> None:
        """Write requests, one a line, with who looks at them."""
        looks = {request_id: claim.by for request_id, claim in (claims or {}).items()}
        self.table(
            ("Request", "What is asked", "For", "Looked at by", "Votes", "Due (UTC)", "Priority"),
            (
                (
                    record.request.request_id,
                    _asked(record.request),
                    ", ".join(record.policy.reviewers),
                    looks.get(record.request_id, ""),
                    _votes(record),
                    minute(next_due(record)),
                    record.request.priority.replace("normal", ""),
                )
                for record in records
            ),
        )

    def goes_on(self, after: str | None) -> None:
        """Say how to get the next page of a list, if there is one."""
        if after is not None:
            self.gap()
            self.note("There is more. The same again, with:")
            self.command("--after", after)


def _asked(request: ReviewRequest) -> str:
    path = path_of(request)
    return f"{request.title} (within {path})" if path else request.title


def _votes(record: ReviewRecord) -> str:
    outcome = record.outcome
    return "" if outcome.needed == 1 else f"{outcome.approvals} of {outcome.needed}"
