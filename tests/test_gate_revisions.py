"""Drafts that are sent back: revision numbers, history, limits, and several loops at one gate."""

from collections.abc import Callable
from typing import Any

import pytest
from flows import Draft, LegalApproved, Live, asked, codes, made, of_kind, revised, statuses
from pydantic import ValidationError
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Edit,
    Reject,
    Review,
    ReviewRefusedEvent,
    ReviewUpdatedEvent,
    Revise,
    Revision,
    RevisionsExhausted,
)
from llama_index_hitl.errors import AmbiguousRevision, SubjectError
from llama_index_hitl.rendering import diff_of, render_prompt

Start = Callable[..., Live]


async def test_each_draft_says_what_came_before_it(start: Start):
    live = start(revised(), topic="AI")
    (first,) = await live.open()
    assert (first.request.revision, first.request.previous, first.request.feedback) == (1, None, ())
    assert diff_of(first.request) == ()

    (second,) = asked(await live.tell(first.answer(Revise(feedback="shorter"), by="erin")))
    assert second.request.revision == 2
    assert second.request.supersedes == first.request_id
    assert second.request.previous == first.request.subject
    assert second.request.subject.data == {"text": "AI, shorter"}

    (third,) = asked(await live.tell(second.answer(Revise(feedback="longer"), by="frank")))
    assert third.request.revision == 3
    assert [(f.revision, f.by, f.text) for f in third.request.feedback] == [
        (1, "erin", "shorter"),
        (2, "frank", "longer"),
    ]
    (change,) = diff_of(third.request)
    assert (change.field, change.before, change.after) == (
        "text",
        "AI, shorter",
        "AI, shorter, longer",
    )
    assert "revision 3" in render_prompt(third.request)
    assert "shorter" in render_prompt(third.request)

    await live.tell(third.answer(Approve(), by="erin"))
    approved = await live.result()
    assert approved.subject.text == "AI, shorter, longer"
    assert approved.revision == 3


async def test_the_step_that_revises_gets_the_draft_the_feedback_and_the_history(start: Start):
    got: list[Revision] = []

    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent | Revision) -> Draft:
            if isinstance(ev, Revision):
                got.append(ev)
            return Draft(text=f"draft {len(got)}")

        review = Review(Draft, revise=Revision)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent()

    live = start(made(Flow))
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Revise(feedback="a", comment="c"), by="erin")))
    await live.tell(second.answer(Revise(feedback="b"), by="frank"))
    assert [ev.subject.text for ev in got] == ["draft 0", "draft 1"]
    assert [ev.feedback for ev in got] == ["a", "b"]
    assert [[f.text for f in ev.history] for ev in got] == [["a"], ["a", "b"]]
    assert [ev.revision for ev in got] == [1, 2]


async def test_feedback_cannot_be_blank(start: Start):
    live = start(revised())
    (request,) = await live.open()
    for feedback in ("", " ", "\n\t"):
        with pytest.raises(ValidationError):
            Revise(feedback=feedback)
    for words in ("revise", "revise:", "revise:   ", '{"decision": "revise"}'):
        plain = HumanResponseEvent(request_id=request.request_id, response=words, by="erin")
        (refused,) = of_kind(await live.tell(plain), ReviewRefusedEvent)
        assert (refused.code, refused.problems[0].field) == ("invalid_answer", "feedback")
    plain = HumanResponseEvent(request_id=request.request_id, response="revise: more", by="erin")
    (again,) = asked(await live.tell(plain))
    assert again.request.subject.data == {"text": "AI, more"}


async def test_one_revise_ends_a_vote(start: Start):
    live = start(revised(reviewers=["a", "b", "c"], quorum=3))
    (first,) = await live.open()
    await live.tell(first.answer(Approve(), by="a"))
    events = await live.tell(first.answer(Revise(feedback="more"), by="b"))
    assert statuses(events) == ["revised"]
    (second,) = asked(events)
    assert codes(await live.tell(first.answer(Approve(), by="c"))) == ["already_answered"]
    # The votes for the first draft are no votes for the second.
    await live.tell(*(second.answer(Approve(), by=name) for name in "bc"))
    assert not live.ended
    await live.tell(second.answer(Approve(), by="a"))
    assert live.ended


# --------------------------------------------------------------------------- how often


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_one_revise_too_many_ends_the_run_with_an_outcome_of_its_own(
    start: Start, limit: int
):
    live = start(revised(max_revisions=limit))
    (request,) = await live.open()
    for _ in range(limit):
        (request,) = asked(await live.tell(request.answer(Revise(feedback="more"), by="erin")))
    assert request.request.max_revisions == limit
    await live.tell(request.answer(Revise(feedback="again"), by="erin"))
    exhausted = await live.result()
    assert type(exhausted) is RevisionsExhausted
    assert exhausted.revision == limit + 1
    assert exhausted.feedback == "again"
    assert exhausted.outcome.status.value == "revised"
    assert exhausted.subject.text == "AI" + ", more" * limit


async def test_the_last_draft_can_still_be_approved(start: Start):
    live = start(revised(max_revisions=1))
    (first,) = await live.open()
    (last,) = asked(await live.tell(first.answer(Revise(feedback="more"), by="erin")))
    await live.tell(last.answer(Approve(), by="erin"))
    assert type(await live.result()) is Approved


async def test_one_revise_too_many_goes_to_the_step_that_takes_it(start: Start):
    class Flow(revised(max_revisions=0, exhausted=RevisionsExhausted)):
        @step
        async def give_up(self, ev: RevisionsExhausted) -> StopEvent:
            return StopEvent(result=f"gave up on {ev.subject.text}")

    live = start(Flow)
    (request,) = await live.open()
    await live.tell(request.answer(Revise(feedback="more"), by="erin"))
    assert await live.result() == "gave up on AI"


async def test_without_a_limit_a_draft_is_sent_back_as_often_as_people_like(start_here: Start):
    live = start_here(revised())
    (request,) = await live.open()
    for number in range(25):
        (request,) = asked(await live.tell(request.answer(Revise(feedback=f"{number}"), by="erin")))
    assert request.request.revision == 26
    # Old feedback is in the records of its own; a request does not grow without end.
    assert [f.text for f in request.request.feedback] == [str(n) for n in range(5, 25)]


async def test_a_limit_beyond_the_feedback_that_is_kept_still_holds(start_here: Start):
    live = start_here(revised(max_revisions=30))
    (request,) = await live.open()
    for _ in range(30):
        (request,) = asked(await live.tell(request.answer(Revise(feedback="more"), by="erin")))
    await live.tell(request.answer(Revise(feedback="more"), by="erin"))
    assert type(await live.result()) is RevisionsExhausted


async def test_an_edit_that_is_asked_about_anew_is_not_counted_as_sent_back(start: Start):
    live = start(revised(max_revisions=1, editable=True, quorum=2))
    (request,) = await live.open()
    (edited,) = asked(await live.tell(request.answer(Edit(subject={"text": "mine"}), by="erin")))
    (again,) = asked(await live.tell(edited.answer(Revise(feedback="more"), by="frank")))
    assert again.request.subject.data == {"text": "mine, more"}
    await live.tell(again.answer(Revise(feedback="more"), by="frank"))
    assert type(await live.result()) is RevisionsExhausted


# --------------------------------------------------------------------------- several loops


class Chapter(Event):
    """One of several drafts under way at once."""

    book: str
    text: str


class Redo(Event):
    """Write a chapter of a book, from outside."""

    book: str
    text: str


def chapters(*, name_it: bool = False, **options: Any) -> type[Workflow]:
    """Two loops at one gate; each draft may name the request that it revises."""

    class Chapters(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Chapter | None:
            ctx.send_event(Chapter(book="A", text="a"))
            ctx.send_event(Chapter(book="B", text="b"))
            return None

        @step
        async def revise(self, ev: Revision) -> Chapter:
            known = {"revision_of": ev.request_id} if name_it else {}
            text = f"{ev.subject.text}, {ev.feedback}"
            return Chapter(book=ev.subject.book, text=text, **known)

        @step
        async def redo(self, ev: Redo) -> Chapter:
            return Chapter(book=ev.book, text=ev.text)

        review = Review(Chapter, revise=Revision, **options)

        @step
        async def publish(self, ctx: Context, ev: Approved) -> StopEvent | None:
            both = ctx.collect_events(ev, [Approved, Approved])
            return None if both is None else StopEvent({e.subject.book: e.subject for e in both})

    class WithoutChecks(Chapters):
        def __init__(self) -> None:
            super().__init__(timeout=None, disable_validation=True)

    return WithoutChecks


@pytest.mark.parametrize("options", [{"key": "book"}, {"name_it": True}])
async def test_parallel_loops_do_not_mix(start: Start, options: dict[str, Any]):
    live = start(chapters(**options))
    a, b = await live.open()
    # Both are sent back before either comes again.
    events = await live.tell(
        b.answer(Revise(feedback="b1"), by="erin"), a.answer(Revise(feedback="a1"), by="erin")
    )
    again = {event.request.subject.data["book"]: event for event in asked(events)}
    for book, first in (("A", a), ("B", b)):
        request = again[book].request
        assert (request.revision, request.supersedes) == (2, first.request_id)
        assert request.previous == first.request.subject
        assert [f.text for f in request.feedback] == [f"{book.lower()}1"]
    (a3,) = asked(await live.tell(again["A"].answer(Revise(feedback="a2"), by="erin")))
    assert [f.text for f in a3.request.feedback] == ["a1", "a2"]
    await live.tell(again["B"].answer(Approve(), by="erin"))
    await live.tell(a3.answer(Approve(), by="erin"))
    result = await live.result()
    assert {book: chapter.text for book, chapter in result.items()} == {
        "A": "a, a1, a2",
        "B": "b, b1",
    }


async def test_without_a_key_two_drafts_that_were_sent_back_are_ambiguous(start_here: Start):
    held: list[Event] = []

    class Flow(chapters()):
        @step
        async def revise(self, ctx: Context, ev: Revision) -> Chapter | None:
            # Neither comes again before both were sent back.
            held.append(Chapter(book=ev.subject.book, text="again"))
            if len(held) == 2:
                for chapter in held:
                    ctx.send_event(chapter)
            return None

    live = start_here(Flow)
    a, b = await live.open()
    await live.tell(a.answer(Revise(feedback="x"), by="erin"))
    await live.tell(b.answer(Revise(feedback="y"), by="erin"))
    with pytest.raises(AmbiguousRevision) as raised:
        await live.result()
    assert raised.value.gate == "review"
    assert set(raised.value.waiting) == {a.request_id, b.request_id}
    assert "revision_of=event.request_id" in str(raised.value)


async def test_a_second_draft_for_one_request_does_not_take_the_place_of_another(start: Start):
    class Flow(chapters(name_it=True)):
        @step
        async def revise(self, ctx: Context, ev: Revision) -> Chapter | None:
            if ev.subject.book == "A":
                for text in ("first", "second"):
                    ctx.send_event(Chapter(book="A", text=text, revision_of=ev.request_id))
            return None

    live = start(Flow)
    a, b = await live.open()
    # B waits for its next draft; the second one for A must not pass for it.
    await live.tell(b.answer(Revise(feedback="y"), by="erin"))
    first, second = asked(await live.tell(a.answer(Revise(feedback="x"), by="erin")))
    assert (first.request.revision, first.request.supersedes) == (2, a.request_id)
    assert second.request.supersedes is None
    assert second.request.feedback == ()


async def test_a_draft_may_name_the_request_through_an_earlier_stage(start: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Chapter | None:
            ctx.send_event(Chapter(book="A", text="a"))
            ctx.send_event(Chapter(book="B", text="b"))
            return None

        @step
        async def revise(self, ev: Revision) -> Chapter:
            text = f"{ev.subject.text}!"
            return Chapter(book=ev.subject.book, text=text, revision_of=ev.request_id)

        legal = Review(Chapter, approved=LegalApproved)
        editor = Review(LegalApproved, revise=Revision)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent()

    live = start(made(Flow))
    firsts = await live.open()
    editors = []
    for legal in firsts:
        editors += asked(await live.tell(legal.answer(Approve(), by="lena")))
    again = []
    for editor in editors:
        again += asked(await live.tell(editor.answer(Revise(feedback="x"), by="erin")))
    assert [event.request.revision for event in again] == [1, 1]
    for editor, legal in zip(reversed(editors), reversed(again), strict=True):
        (event,) = asked(await live.tell(legal.answer(Approve(), by="lena")))
        assert (event.request.revision, event.request.supersedes) == (2, editor.request_id)
        assert event.request.previous == editor.request.subject


# --------------------------------------------------------------------------- newer drafts


async def test_a_newer_draft_supersedes_the_open_request_for_the_same_thing(start: Start):
    live = start(chapters(key="book"))
    a, b = await live.open()
    events = await live.tell(Redo(book="A", text="newer"))
    (newer,) = asked(events)
    assert (newer.request.supersedes, newer.request.revision) == (a.request_id, 2)
    assert newer.request.previous == a.request.subject
    (update,) = of_kind(events, ReviewUpdatedEvent)
    assert (update.request_id, update.outcome.status.value) == (a.request_id, "superseded")
    assert update.record.superseded_by == newer.request_id

    (refused,) = of_kind(await live.tell(a.answer(Approve(), by="erin")), ReviewRefusedEvent)
    assert refused.code == "stale_request"
    assert newer.request_id in refused.reason
    await live.tell(b.answer(Approve(), by="erin"))
    await live.tell(newer.answer(Approve(), by="erin"))
    assert (await live.result())["A"].text == "newer"


async def test_votes_for_an_older_draft_do_not_count_for_the_newer(start: Start):
    live = start(chapters(key="book", quorum=2))
    a, _ = await live.open()
    await live.tell(a.answer(Approve(), by="erin"))
    (newer,) = asked(await live.tell(Redo(book="A", text="newer")))
    events = await live.tell(newer.answer(Approve(), by="frank"))
    assert statuses(events) == ["open"]
    assert codes(await live.tell(a.answer(Approve(), by="frank"))) == ["stale_request"]


async def test_a_superseded_draft_is_not_counted_as_sent_back(start: Start):
    live = start(chapters(key="book", max_revisions=1))
    _, b = await live.open()
    (newer,) = asked(await live.tell(Redo(book="B", text="newer")))
    assert newer.request.supersedes == b.request_id
    (again,) = asked(await live.tell(newer.answer(Revise(feedback="more"), by="erin")))
    assert again.request.revision == 3
    await live.tell(again.answer(Revise(feedback="more"), by="erin"))
    assert type(await live.result()) is RevisionsExhausted


async def test_a_thing_that_was_decided_begins_anew_when_it_comes_again(start: Start):
    class Flow(chapters(key="book")):
        pass

    class Routed(Flow):
        review = Flow.review.replace(decisions=["approve", "revise"])

    live = start(Routed)
    a, _ = await live.open()
    await live.tell(a.answer(Approve(), by="erin"))
    (again,) = asked(await live.tell(Redo(book="A", text="later")))
    assert (again.request.revision, again.request.supersedes) == (1, None)
    assert (again.request.sent_back, again.request.feedback) == (0, ())


async def test_a_key_of_the_subject_works_in_the_second_stage_too(start: Start):
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent | Revision) -> Chapter:
            return Chapter(book="A", text="a")

        legal = Review(Chapter, key="book", approved=LegalApproved)
        editor = Review(LegalApproved, key="book", revise=Revision)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev.revision)

    live = start(made(Flow))
    (legal,) = await live.open()
    (editor,) = asked(await live.tell(legal.answer(Approve(), by="lena")))
    (legal2,) = asked(await live.tell(editor.answer(Revise(feedback="x"), by="erin")))
    (editor2,) = asked(await live.tell(legal2.answer(Approve(), by="lena")))
    assert editor2.request.supersedes == editor.request_id
    await live.tell(editor2.answer(Approve(), by="erin"))
    assert await live.result() == 2


async def test_a_key_that_the_event_does_not_have_is_an_error(start_here: Start):
    live = start_here(chapters(key="isbn"))
    await live.pause()
    with pytest.raises(SubjectError, match=r"Chapter has no 'isbn', the key of gate 'review'"):
        await live.result()


async def test_a_rejection_ends_a_loop(start: Start):
    live = start(revised())
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Revise(feedback="more"), by="erin")))
    await live.tell(second.answer(Reject(comment="no"), by="erin"))
    rejected = await live.result()
    assert (rejected.revision, rejected.feedback) == (2, "no")
