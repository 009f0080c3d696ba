"""What the terminal reviewer shows. Private: `llama_index_hitl.console` is the door.

Whatever comes from a model, a workflow or a person goes through `visible` first, and is indented:
only this module writes at the left edge, so that no content can pass itself off as a prompt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import IO, Any, TextIO, cast

from pydantic import JsonValue
from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from llama_index_hitl._text import visible
from llama_index_hitl.console._markdown import CODE_LIMIT, CODE_THEME, WholeMarkdown
from llama_index_hitl.console._words import (
    ALWAYS,
    facts,
    is_numbered,
    nested,
    offers_always,
    one_line,
)
from llama_index_hitl.errors import FieldProblem
from llama_index_hitl.events import ReviewRefusedEvent
from llama_index_hitl.forms import LABELS, FormField, decisions_of, fields_of
from llama_index_hitl.models import (
    DecisionKind,
    Feedback,
    RequestStatus,
    ReviewRecord,
    ReviewRequest,
    Subject,
)
from llama_index_hitl.rendering import FieldDiff, diff_of, path_of, text_of

WIDEST = 100
"""Columns used at most: longer lines are hard to read."""

_NARROWEST = 20
_RICH_LIMIT = 20_000
"""Characters up to which a text is laid out and coloured; a longer one is shown plainly, whole."""

_COMPARE_LIMIT = 400_000
"""Characters up to which two revisions are compared line by line."""

_ASCII = str.maketrans({"·": "-", "—": "-", "…": "...", "─": "-"})


class _Encodable:
    """A stream that can write every text, whatever its encoding."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if not self.encoding.lower().startswith("utf"):
            known = text.translate(_ASCII).encode(self.encoding, "backslashreplace")
            text = known.decode(self.encoding)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


class View:
    """The screen: requests, questions and notes, written to one stream.

    Attributes:
        is_terminal: Whether the stream is a terminal; otherwise nothing but plain text is written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._out = _Encodable(stream)
        self._at_prompt = False
        self.is_terminal = stream.isatty()
        self._console = Console(
            file=cast("IO[str]", self._out),
            force_terminal=self.is_terminal,
            force_jupyter=False,  # in a notebook too, all goes to the stream, in order
            color_system="auto" if self.is_terminal else None,
            markup=False,
            emoji=False,
            highlight=False,
        )

    # ------------------------------------------------------------- small things

    def prompt(self, text: str) -> None:
        """Write what stands before the person's input."""
        self._fresh_line()
        self._console.print(Text(visible(text), "bold"), end="", soft_wrap=True)
        self._out.flush()
        self._at_prompt = True

    def answered(self, echo: str | None) -> None:
        """Say what was typed where it cannot be seen; None: the person has seen it."""
        if echo is not None:
            self._out.write(visible(echo) + "\n")
        self._at_prompt = False

    def say(self, text: str, style: str = "") -> None:
        """Write one paragraph at the left edge."""
        self._show(Text(one_line(text), style))

    def note(self, text: str) -> None:
        """Write something of less weight."""
        self.say(text, "dim")

    def problem(self, text: str) -> None:
        """Write what is not right."""
        self.say(text, "yellow")

    def problems(self, problems: Iterable[FieldProblem]) -> None:
        """Write what is wrong with an answer, field by field."""
        for problem in problems:
            field = problem.field.removeprefix("subject.").removeprefix("response.")
            self.problem(f"{field}: {problem.message}" if field else problem.message)

    def gap(self) -> None:
        """Write an empty line."""
        self._show(Text(""))

    # ------------------------------------------------------------- a request

    def request(self, request: ReviewRequest, place: str, now: datetime) -> None:
        """Write everything there is to know about a request.

        Args:
            request: What is asked.
            place: Where it stands among the open ones, such as `1 of 3`; may be empty.
            now: The present instant.
        """
        self.gap()
        self._show(Rule(Text(place, "dim"), align="right", style="dim"))
        self._show(Text(one_line(request.title), "bold"))
        self._show(Text(" · ".join(facts(request, now)), "dim"))
        if request.priority != "normal":
            styles = {"urgent": "bold red", "high": "yellow", "low": "dim"}
            self.say(f"Priority: {request.priority}", styles[request.priority])
        if request.path:
            self.note(f"Asked within: {one_line(path_of(request))}")
        # What a rule on trial would have said must not sway those whom it is compared with.
        if request.rule is not None and request.rule.reason and request.rule.shadow is None:
            self.note(f"Asked because: {request.rule.reason}")
        if request.body:
            self.gap()
            self._markdown(request.body, 2)
        if request.subject is not None:
            self._subject(request.subject, fields_of(request, DecisionKind.EDIT))
        if request.previous is not None:
            self.changes(request, f"Changed since revision {request.revision - 1}")
        self._feedback(request.feedback)
        for item in request.evidence:
            score = "" if item.score is None else f" (score {item.score:.2f})"
            self._heading(f"Evidence: {item.title}{score}")
            if item.source:
                self._show(Text(one_line(item.source), "dim"), 2)
            self._markdown(item.body, 2)

    def decisions(self, request: ReviewRequest) -> None:
        """Write the decisions that can be taken, by number and word."""
        self.gap()
        table = Table.grid(padding=(0, 2))
        for number, kind in enumerate(decisions_of(request), start=1):
            label = "" if LABELS[kind].lower() == kind else LABELS[kind]
            table.add_row(Text(str(number), "dim"), Text(kind, "bold"), Text(label, "dim"))
        if offers_always(request):
            label = "Approve, and let calls like this happen without asking"
            table.add_row("", Text(ALWAYS, "bold"), Text(label, "dim"))
        self._show(table, 2)

    def changes(self, request: ReviewRequest, title: str) -> None:
        """Write what differs between a request's subject and its previous one."""
        self._heading(title)
        before, after = request.previous, request.subject
        size = sum(len(text_of(s.data)) for s in (before, after) if s is not None)
        if size > _COMPARE_LIMIT:
            self._show(Text("Too long to be compared line by line.", "dim"), 2)
            return
        found = diff_of(request)
        if not found:
            self._show(Text("Nothing.", "dim"), 2)
        labels = _labels(request)
        for diff in found:
            self._diff(diff, labels.get(diff.field, diff.field))

    def field(self, field: FormField) -> None:
        """Write what a field is about, and its choices, before it is asked for."""
        if field.help:
            self.note(field.help)
        for number, choice in enumerate(field.choices, start=1):
            shown = choice if isinstance(choice, str) else json.dumps(choice)
            bullet = f"{number}  " if is_numbered(field) else "-  "
            self._show(Text.assemble((bullet, "dim"), one_line(shown)), 2)

    def update(self, record: ReviewRecord) -> None:
        """Write what has become of a request."""
        outcome, title = record.outcome, one_line(record.request.title, 60)
        if record.status is RequestStatus.OPEN:
            last = record.answers[-1] if record.answers else None
            said = "" if last is None else f"{last.by.name or last.by.id}: {last.decision.kind}. "
            self.note(f"{title} — {said}{outcome.reason}")
            return
        good = record.status in (RequestStatus.APPROVED, RequestStatus.RESPONDED)
        status = record.status.replace("_", " ")
        self._show(
            Text.assemble(
                f"{title} — ",
                (status, "green" if good else "yellow"),
                one_line(f". {outcome.reason}{_unnamed_rule(record)}"),
            )
        )

    def refusal(self, event: ReviewRefusedEvent) -> None:
        """Write why an answer was not taken."""
        if event.problems:
            self.problem("That answer was not taken; the request is still open.")
            self.problems(event.problems)
        else:
            self.problem(f"That answer was not taken. {event.reason}")

    def plain(self, place: str, text: str) -> None:
        """Write a question that is nothing but a text."""
        self.gap()
        self._show(Rule(Text(place, "dim"), align="right", style="dim"))
        self._block(text.strip(), 2)

    # ------------------------------------------------------------- parts of a request

    def _heading(self, title: str) -> None:
        self.gap()
        self._show(Text(one_line(title), "bold"))

    def _subject(self, subject: Subject, fields: Sequence[FormField]) -> None:
        self._heading(subject.type)
        named = {field.name.removeprefix("subject."): field for field in fields}
        table = _two_columns()
        for name, value in subject.data.items():
            field = named.get(name) or FormField(name=name, label=name)
            text = "\n".join(nested(value))
            if "\n" not in text and len(text) <= WIDEST and field.widget not in _LAID_OUT:
                table.add_row(Text(one_line(field.label), "cyan"), Text(visible(text)))
                continue
            if table.row_count:
                self._show(table, 2)
                table = _two_columns()
            if len(subject.data) > 1:
                self._show(Text(one_line(field.label), "cyan"), 2)
            self._value(value, text, field, 2 if len(subject.data) == 1 else 4)
        if table.row_count:
            self._show(table, 2)

    def _value(self, value: JsonValue, text: str, field: FormField, indent: int) -> None:
        if isinstance(value, str) and field.widget == "markdown":
            self._markdown(value, indent)
        elif isinstance(value, str) and field.widget == "code" and len(value) <= CODE_LIMIT:
            language = field.language or "text"
            shown = Syntax(
                visible(value).removesuffix("\n"), language, theme=CODE_THEME, word_wrap=True
            )
            self._show(shown, indent)
        else:
            self._block(text, indent)

    def _feedback(self, feedback: Sequence[Feedback]) -> None:
        if not feedback:
            return
        self._heading("Feedback so far")
        for item in feedback:
            self._show(Text(one_line(f"{item.by}, on revision {item.revision}"), "dim"), 2)
            self._block(item.text, 4)

    def _diff(self, diff: FieldDiff, label: str) -> None:
        self._show(Text(one_line(label), "cyan"), 2)
        lines = [line for line in diff.lines[1:] if line]  # the first says where; it is the top
        if not lines:
            self._show(Text("Only white space or line ends differ.", "dim"), 4)
        elif sum(map(len, lines)) > _RICH_LIMIT:
            self._block("\n".join(lines), 4)
        else:
            table = Table.grid(padding=(0, 1))
            styles = {"+": "green", "-": "red", " ": "dim"}
            for line in lines:
                hunk = line.startswith("@@")
                sign, text = ("…", "") if hunk else (line[0], line[1:])
                style = styles.get(sign, "dim")
                table.add_row(Text(sign, style), Text(visible(text), style, overflow="fold"))
            self._show(table, 4)

    # ------------------------------------------------------------- laying out

    def _markdown(self, text: str, indent: int) -> None:
        if not text:
            return
        laid_out = WholeMarkdown(text) if len(text) <= _RICH_LIMIT else None
        if laid_out is not None and laid_out.is_whole:
            self._show(laid_out, indent)
        else:
            self._block(text, indent)

    def _block(self, text: str, indent: int) -> None:
        """Write a text as it is; one that is too long to lay out is cut into lines only."""
        shown = visible(text)
        if len(shown) <= _RICH_LIMIT:
            self._show(Text(shown, overflow="fold"), indent)
            return
        self._fresh_line()
        room, margin = max(self._width() - indent, _NARROWEST), " " * indent
        for line in shown.expandtabs(8).split("\n"):
            step = room if line.isascii() else room // 2  # some characters take two columns
            for start in range(0, max(len(line), 1), step):
                self._out.write(f"{margin}{line[start : start + step]}\n")

    def _show(self, shown: RenderableType, indent: int = 0) -> None:
        self._fresh_line()
        width = max(self._width() - indent, _NARROWEST)
        options = self._console.options.update(width=width, height=None)
        margin = [Segment(" " * indent)] if indent else []
        segments: list[Segment] = []
        for line in self._console.render_lines(shown, options, pad=False):
            kept = _without_end_space(line)
            segments += [*(margin if kept else []), *kept, Segment.line()]
        self._console.print(Segments(segments), end="", soft_wrap=True)

    def _fresh_line(self) -> None:
        if self._at_prompt:
            self._out.write("\n")
            self._at_prompt = False

    def _width(self) -> int:
        """Look at the window each time: people change its size."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            named = os.environ.get("COLUMNS", "")
            columns = int(named) if named.isdecimal() else 80
        return max(min(columns or 80, WIDEST), _NARROWEST)


_LAID_OUT = ("markdown", "code")


def _two_columns() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(max_width=24, overflow="fold")
    table.add_column(overflow="fold")
    return table


def _labels(request: ReviewRequest) -> dict[str, str]:
    fields = fields_of(request, DecisionKind.EDIT)
    return {field.name.removeprefix("subject."): field.label for field in fields}


def _without_end_space(line: list[Segment]) -> list[Segment]:
    kept = list(line)
    while kept and not kept[-1].text.rstrip(" "):
        kept.pop()
    if kept:
        kept[-1] = Segment(kept[-1].text.rstrip(" "), kept[-1].style)
    return kept


def _unnamed_rule(record: ReviewRecord) -> str:
    """Name a rule that decided, unless the reason does so."""
    rules: Any = [a.by.id for a in record.answers if a.by.kind == "rule"]
    return "".join(f" ({rule})" for rule in rules if rule not in record.outcome.reason)
