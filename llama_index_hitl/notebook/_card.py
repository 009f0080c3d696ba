"""A request as HTML that stays in a notebook: what is asked, and who decided what.

Everything stands in the output itself: it reads the same when the notebook is opened again without
a kernel, or shown by something that runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import groupby

from markupsafe import Markup

from llama_index_hitl._html.diffs import FieldChange, Piece, Row
from llama_index_hitl._html.markup import Layout
from llama_index_hitl._html.reviews import (
    TONES,
    EvidenceView,
    FieldView,
    VoteView,
    at_deadline,
    changes_since,
    evidence_views,
    field_views,
    still_asked,
    vote_view,
)
from llama_index_hitl._html.texts import plain
from llama_index_hitl._text import visible
from llama_index_hitl.models import RequestStatus, ReviewRecord, ReviewRequest

NOTHING = Markup("")


@cache
def style() -> Markup:
    """Return the style of everything that is shown; once in a cell is enough."""
    package = files("llama_index_hitl")
    own = (package / "notebook" / "notebook.css").read_text("utf-8")
    content = (package / "web" / "static" / "content.css").read_text("utf-8")
    return Markup("<style>{}</style>").format(
        Markup(own.replace("/* content */", content))  # noqa: S704 - files of this package
    )


def framed(inside: Markup, kind: str = "") -> Markup:
    """Return something in the frame that the style is for; formulas in it stay text."""
    # Front ends set what looks like a formula as one, and hide its words by it.
    return Markup('<div class="hitl {} mathjax_ignore tex2jax_ignore">{}</div>').format(
        kind, inside
    )


def card(record: ReviewRecord, now: datetime, *, note: str = "", folded: bool = False) -> Markup:
    """Return a request with what has become of it.

    Args:
        record: The request.
        now: The present instant.
        note: What else there is to say, such as that it was left open.
        folded: Whether to show no more than what became of it, unless its reader unfolds the rest.
    """
    request, layout = record.request, Layout(whole=True)
    about = _about(request, layout, now)
    is_open = record.status is RequestStatus.OPEN
    unfolded = not folded and not _goes_on(record)
    parts = [
        _head(record, now),
        callout(note, "warn") if note else NOTHING,
        NOTHING if is_open else _outcome(record),
        about if is_open and not folded else _folded("What was asked", about, is_open=unfolded),
        _people(record, layout),
        _folded("Facts", _facts(record)) if is_open else NOTHING,
    ]
    return framed(
        Markup('<article class="card {}">{}</article>').format(
            f"tone-{TONES.get(record.status, 'none') or 'none'}", Markup("").join(parts)
        )
    )


def question_card(text: str, answer: str | None = None, *, by: str = "") -> Markup:
    """Return a question that is nothing but a text, and what was answered."""
    said = NOTHING
    if answer is not None:
        said = Markup('<section class="people"><p><strong>{}</strong> answered</p>{}</section>')
        said = said.format(visible(by), _said(plain(answer, whole=True)))
    return framed(
        Markup('<article class="card tone-{}"><div class="block">{}</div>{}</article>').format(
            "accent" if answer is None else "good", plain(text, whole=True), said
        )
    )


def callout(text: str, tone: str, more: Iterable[str] = ()) -> Markup:
    """Return something that must not be overlooked."""
    lines = Markup("").join(Markup("<p>{}</p>").format(visible(line)) for line in more)
    return Markup(
        '<div class="callout callout-{}" role="alert"><p><strong>{}</strong></p>{}</div>'
    ).format(tone, visible(text), lines)


def moment(at: datetime) -> str:
    """Return an instant as a notebook keeps it: the same wherever it is read."""
    at = at.astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def time_left(at: datetime, now: datetime) -> str:
    """Return how long it is until an instant, in one unit."""
    seconds = (at - now).total_seconds()
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    each, unit = next((pair for pair in units if abs(seconds) >= 1.9 * pair[0]), (1, "s"))
    return f"{round(abs(seconds) / each)} {unit} {'left' if seconds > 0 else 'overdue'}"


# --------------------------------------------------------------------------- parts


def _head(record: ReviewRecord, now: datetime) -> Markup:
    request = record.request
    places = [request.workflow.rpartition(".")[2]]
    places += [name for name in (request.gate, request.stage) if name and name != "ask"]
    crumbs = Markup('<span class="crumb">&rsaquo;</span>').join(
        visible(name.replace("_", " ")) for name in dict.fromkeys(places) if name
    )
    badges = Markup("").join(
        Markup('<span class="badge badge-{}">{}</span>').format(tone, visible(text))
        for tone, text in _badges(record, now)
    )
    return Markup(
        '<header class="head"><p class="crumbs">{}</p><h3 class="title">{}</h3>'
        '<p class="marks">{}</p></header>'
    ).format(crumbs, visible(request.title), badges)


def _badges(record: ReviewRecord, now: datetime) -> Iterator[tuple[str, str]]:
    request, deadline = record.request, record.policy.deadline
    is_open = record.status is RequestStatus.OPEN
    if not is_open:
        yield TONES.get(record.status, "") or "line", record.status.replace("_", " ").capitalize()
    if request.priority != "normal":
        tone = {"urgent": "bad", "high": "warn"}.get(request.priority, "line")
        yield tone, f"{request.priority.capitalize()} priority"
    if deadline is not None and is_open:
        tone = "bad" if deadline <= now else "line"
        yield tone, f"Due {moment(deadline)} · {time_left(deadline, now)}"
    if request.revision > 1:
        most = "" if request.max_revisions is None else f" of {request.max_revisions + 1}"
        yield "accent", f"Revision {request.revision}{most}"
    if request.level:
        yield "warn", "Escalated"
    for tag in request.tags:
        yield "", tag


def _outcome(record: ReviewRecord) -> Markup:
    at = "" if record.closed_at is None else moment(record.closed_at)
    tone, reason = TONES.get(record.status, "") or "none", record.outcome.reason
    return Markup(
        '<p class="outcome"><span class="dot dot-{}"></span>{} <span class="muted">{}</span></p>'
    ).format(tone, visible(reason) or record.status.replace("_", " ").capitalize(), at)


def _about(request: ReviewRequest, layout: Layout, now: datetime) -> Markup:
    body = layout.markdown(request.body)
    found = changes_since(request)
    parts = [Markup('<section class="block">{}</section>').format(body) if body else NOTHING]
    if request.previous is not None:
        title = f"Changed since revision {request.revision - 1}"
        shown = changed(found) if found else Markup('<p class="muted">Nothing.</p>')
        parts.append(_block(title, shown))
    parts.append(_subject(request, layout))
    evidence = evidence_views(request, layout)
    if evidence:
        items = Markup("").join(map(_evidence, evidence))
        parts.append(_block("Evidence", Markup('<ul class="evidence">{}</ul>').format(items)))
    if request.feedback:
        parts.append(_block("Feedback so far", _history(request)))
    return Markup("").join(parts)


def _block(title: str, inside: Markup) -> Markup:
    return Markup('<section class="block"><h4 class="block-title">{}</h4>{}</section>').format(
        visible(title), inside
    )


def _folded(title: str, inside: Markup, *, is_open: bool = False) -> Markup:
    return Markup('<details class="fold"{}><summary>{}</summary>{}</details>').format(
        Markup(" open") if is_open else "", title, inside
    )


def _goes_on(record: ReviewRecord) -> bool:
    """Tell whether another request follows, which shows what has changed since this one."""
    followed = (RequestStatus.REVISED, RequestStatus.ESCALATED, RequestStatus.SUPERSEDED)
    return record.status in followed or record.superseded_by is not None


def _subject(request: ReviewRequest, layout: Layout) -> Markup:
    views = tuple(field_views(request, layout))
    if request.subject is None or not views:
        return NOTHING
    parts: list[Markup] = []
    for is_short, group in groupby(views, key=lambda view: view.short):
        if is_short:
            rows = Markup("").join(map(_short_value, group))
            parts.append(Markup('<dl class="values">{}</dl>').format(rows))
        else:
            parts += [_long_value(view, alone=len(views) == 1) for view in group]
    return _block(request.subject.type, Markup("").join(parts))


def _short_value(view: FieldView) -> Markup:
    return Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(visible(view.label), view.shown)


def _long_value(view: FieldView, *, alone: bool) -> Markup:
    label = NOTHING if alone else Markup("<h5>{}</h5>").format(visible(view.label))
    return Markup('<div class="value-long">{}{}</div>').format(label, view.shown)


def _evidence(view: EvidenceView) -> Markup:
    item = view.item
    score = NOTHING
    if item.score is not None:
        score = Markup('<span class="score" title="Score">{}</span>').format(f"{item.score:.2f}")
    source = NOTHING
    if item.source and view.is_link:
        source = Markup(
            '<p class="source"><a href="{}" target="_blank" rel="noopener noreferrer nofollow">{}'
            "</a></p>"
        ).format(item.source, visible(item.source))
    elif item.source:
        source = Markup('<p class="source">{}</p>').format(visible(item.source))
    return Markup("<li><h5>{}{}</h5>{}{}</li>").format(
        visible(item.title), score, view.body, source
    )


def _history(request: ReviewRequest) -> Markup:
    items = Markup("").join(
        Markup(
            '<li><p><strong>{}</strong> <span class="muted">on revision {}, {}</span></p>{}</li>'
        ).format(
            visible(item.by), item.revision, moment(item.at), _said(plain(item.text, whole=True))
        )
        for item in request.feedback
    )
    return Markup('<ol class="history">{}</ol>').format(items)


def _said(words: Markup) -> Markup:
    return Markup('<blockquote class="said">{}</blockquote>').format(words)


def _people(record: ReviewRecord, layout: Layout) -> Markup:
    """Return who has decided what, and who is asked and has not."""
    rows = [_vote(vote_view(answer, record.request, layout)) for answer in record.answers]
    is_open = record.status is RequestStatus.OPEN
    if is_open:
        asked = list(still_asked(record)) or ([] if record.answers else [("anyone", False)])
        names = Markup(", ").join(
            Markup("<strong>{}</strong>{}").format(
                visible(name), Markup(' <span class="muted">(role)</span>') if is_role else ""
            )
            for name, is_role in asked
        )
        if names:
            rows.append(Markup('<li class="waiting">Waits for {}</li>').format(names))
    needed = record.outcome.needed
    quorum = NOTHING
    if needed > 1:
        have = min(record.outcome.approvals, needed)
        pips = Markup("").join(
            Markup('<i class="{}"></i>').format("on" if n < have else "") for n in range(needed)
        )
        quorum = Markup('<p class="quorum"><span class="pips" aria-hidden="true">{}</span>{}</p>')
        quorum = quorum.format(pips, f"{have} of {needed} approvals")
    if not rows and not quorum:
        return NOTHING
    return Markup('<section class="people">{}<ul>{}</ul></section>').format(
        quorum, Markup("").join(rows)
    )


def _vote(view: VoteView) -> Markup:
    by = view.answer.by
    role = f" as {view.answer.role}" if view.answer.role else ""
    parts = [_said(words) for words in view.words]
    if view.changes:
        parts.append(_folded("What was changed", changed(view.changes), is_open=True))
    if view.response is not None:
        parts.append(_said(view.response))
    return Markup(
        '<li><p><strong>{}</strong> {}{} <span class="muted">{}</span></p>{}</li>'
    ).format(
        visible(by.name or by.id),
        view.done,
        visible(role),
        moment(view.answer.at),
        Markup("").join(parts),
    )


def _facts(record: ReviewRecord) -> Markup:
    rows = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, visible(value))
        for name, value in _each_fact(record)
    )
    return Markup('<dl class="values facts">{}</dl>').format(rows)


def _each_fact(record: ReviewRecord) -> Iterator[tuple[str, str]]:
    request, deadline = record.request, record.policy.deadline
    yield "Asked", moment(request.created_at)
    if deadline is not None:
        yield "Deadline", f"{moment(deadline)}, then {at_deadline(request)}"
    if request.requester:
        yield "For", request.requester
    for approval in request.approvals:
        yield approval.stage.replace("_", " "), f"approved by {', '.join(approval.approvers)}"
    if request.path:
        yield "Within", " > ".join(request.path)
    # What a rule on trial would have said must not sway those whom it is compared with.
    if request.rule is not None and request.rule.reason and request.rule.shadow is None:
        yield "Because", request.rule.reason
    if request.run_id:
        yield "Run", request.run_id
    yield "Request", request.request_id


# --------------------------------------------------------------------------- changes


def changed(found: Sequence[FieldChange]) -> Markup:
    """Return what differs, field by field and line by line."""
    return Markup('<div class="diffs">{}</div>').format(Markup("").join(map(_change, found)))


def _change(change: FieldChange) -> Markup:
    count = NOTHING
    if change.rows and not change.short:
        count = Markup(
            '<span class="diff-count"><span class="diff-plus">+{}</span> '
            '<span class="diff-minus">&minus;{}</span></span>'
        ).format(change.added, change.removed)
    head = Markup('<h5 class="diff-head"><span>{}</span>{}</h5>').format(
        visible(change.label), count
    )
    note = Markup('<p class="diff-note">{}</p>').format(change.note) if change.note else NOTHING
    return Markup('<section class="diff">{}{}{}</section>').format(head, note, _rows(change))


def _rows(change: FieldChange) -> Markup:
    rows = change.rows
    if not rows:
        return NOTHING
    if change.short and len(rows) == 1 and rows[0].before and rows[0].after:
        return Markup('<p class="diff-short"><del>{}</del> → <ins>{}</ins></p>').format(
            _pieces(rows[0].before) or "(empty)", _pieces(rows[0].after) or "(empty)"
        )
    columns = '<colgroup><col class="col-n"><col><col class="col-n"><col></colgroup>'
    return Markup(f'<table class="diff-split">{columns}<tbody>{{}}</tbody></table>').format(  # noqa: S704 - no content
        Markup("").join(map(_row, rows))
    )


def _row(row: Row) -> Markup:
    if row.kind == "gap":
        return Markup('<tr class="gap"><td colspan="4">{} unchanged lines</td></tr>').format(
            row.count
        )
    return Markup(
        '<tr class="{}"><td class="n">{}</td><td class="was">{}</td><td class="n">{}</td>'
        '<td class="is">{}</td></tr>'
    ).format(
        row.kind,
        row.before_number or "",
        _pieces(row.before),
        row.after_number or "",
        _pieces(row.after),
    )


def _pieces(pieces: Sequence[Piece]) -> Markup:
    marked, same = Markup("<mark>{}</mark>"), Markup("{}")
    return Markup("").join((marked if p.changed else same).format(p.text) for p in pieces)
