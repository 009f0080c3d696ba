"""Pictures: what they show, that they can be read, and that nothing in them can act."""

import asyncio
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise
from operator import or_

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Escalate,
    Question,
    Reject,
    Rejected,
    Review,
    Reviewer,
    Revise,
    Revision,
    ask,
)
from llama_index_hitl.audit import AuditEntry, AuditKind, chained
from llama_index_hitl.drawing import Picture, draw_changes, draw_run, draw_workflow
from llama_index_hitl.drawing._changes import ROWS_LIMIT
from llama_index_hitl.drawing._layout import Box, layout
from llama_index_hitl.drawing._story import story_of
from llama_index_hitl.drawing._times import duration, moment
from llama_index_hitl.effects import once
from llama_index_hitl.errors import NotAllowed, UnknownRun
from llama_index_hitl.prebuilt import DocumentApproval, DraftApproval
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.testing import ManualClock

SVG = "{http://www.w3.org/2000/svg}"
SHAPES = {f"{SVG}{name}" for name in ("svg", "rect", "path", "circle", "text", "title")}
HOSTILE = '</text></svg><script>alert("1")</script>&amp;\x00\x1b[2J\u202eevil\ud800\uffff'
"""Markup, a control character, an escape sequence, reversed writing, half a character."""


class Draft(Event):
    text: str


class Sent(Event):
    pass


class LegalApproved(Approved):
    pass


class ArticleFlow(Workflow):
    @step
    async def write(self, ev: StartEvent | Revision) -> Draft:
        if isinstance(ev, Revision):
            return Draft(text=f"{ev.subject.text}\nNow {ev.feedback}.")
        return Draft(text=f"About {ev.topic}")

    legal = Review(Draft, reviewers="role:legal", quorum=2, approved=LegalApproved)
    editor = Review(
        LegalApproved,
        title=lambda self, ev: f"Article {ev.subject.text[:7]}",
        reviewers=["erin"],
        revise=Revision,
        max_revisions=3,
        distinct_from="legal",
        deadline=timedelta(days=2),
        on_deadline=Escalate(["role:chief"]),
    )

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject.text)


LENA = Reviewer(id="lena", roles=("legal",))
LUIS = Reviewer(id="luis", roles=("legal",))
CARL = Reviewer(id="carl", roles=("chief",))


def parsed(picture: Picture) -> ET.Element:
    """Parse a picture, and assert that it is nothing but shapes and text."""
    root = ET.fromstring(picture.svg)  # noqa: S314 # our own
    for element in root.iter():
        assert element.tag in SHAPES
        assert not [name for name in element.attrib if name.startswith("on") or "href" in name]
    return root


def texts(picture: Picture) -> list[str]:
    return [element.text or "" for element in parsed(picture).iter(f"{SVG}text")]


def size(picture: Picture) -> tuple[float, float]:
    root = parsed(picture)
    return float(root.attrib["width"]), float(root.attrib["height"])


class Desk:
    """A runner with a run, and people who answer whatever they may."""

    def __init__(self, **inputs: str) -> None:
        self.clock = ManualClock(datetime(2026, 3, 2, 9, tzinfo=UTC))
        self.runner = Runner(
            MemoryStore(), {"article": ArticleFlow(timeout=None)}, clock=self.clock
        )
        self.inputs = {"topic": "patience", **inputs}

    async def start(self, run_id: str = "article-1") -> None:
        await self.runner.start("article", run_id=run_id, by="ada", inputs=self.inputs)

    async def answer(self, by: Reviewer | str, decision: Approve | Reject | Revise) -> None:
        for record in await self.runner.pending(reviewer=by):
            await self.runner.answer(record.request_id, decision, by=by)
            await self.runner.advance("article-1")

    async def picture(self) -> Picture:
        return await draw_run(self.runner, "article-1")


# --------------------------------------------------------------------------- workflows


def test_a_workflow_shows_its_steps_its_gates_and_the_events_between_them():
    said = texts(draw_workflow(ArticleFlow))
    assert {"ArticleFlow", "write", "publish", "legal", "editor"} <= set(said)
    assert {"StartEvent", "Draft", "LegalApproved", "Approved", "Revision", "StopEvent"} <= set(
        said
    )


def test_a_gate_is_one_box_that_says_whom_it_asks():
    said = texts(draw_workflow(ArticleFlow))
    assert "asks legal: 2 approvals" in said
    assert {"asks erin", "nobody who approved legal", "after 2 days: passed on"} <= set(said)
    assert not [text for text in said if text.startswith(("ReviewRe", "ReviewDead", "HumanResp"))]


def test_outcomes_that_end_the_run_are_told_from_those_that_a_step_takes():
    picture = draw_workflow(ArticleFlow)
    assert texts(picture).count("Rejected") == 2  # at each gate
    assert "RevisionsExhausted" in texts(picture)
    dashed = [r for r in parsed(picture).iter(f"{SVG}rect") if "stroke-dasharray" in r.attrib]
    assert len(dashed) == 2

    class Routed(ArticleFlow):
        legal = ArticleFlow.legal.replace(rejected=Rejected)
        editor = ArticleFlow.editor.replace(rejected=Rejected, max_revisions=None)

        @step
        async def bury(self, ev: Rejected) -> StopEvent:
            return StopEvent()

    assert texts(draw_workflow(Routed)).count("Rejected") == 1


def test_a_workflow_without_gates_shows_the_person_it_waits_for():
    class Plain(Workflow):
        @step
        async def ask_them(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent()

        @step
        async def go_on(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    said = texts(draw_workflow(Plain))
    assert {"InputRequiredEvent", "a person", "HumanResponseEvent"} <= set(said)


def test_a_workflow_and_its_class_give_the_same_picture_always():
    first = draw_workflow(DocumentApproval)
    assert draw_workflow(DocumentApproval()).svg == first.svg == draw_workflow(DocumentApproval).svg


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="takes a workflow or its class"):
        draw_workflow(Draft)
    with pytest.raises(TypeError, match="takes a workflow or its class"):
        draw_workflow("ArticleFlow")


def wide(branches: int) -> type[Workflow]:
    begun = [type(f"Branch{n}WithAName", (Event,), {}) for n in range(branches)]
    done = [type(f"Branch{n}Finished", (Event,), {}) for n in range(branches)]
    body = {}

    def add(name: str, takes: object, gives: object) -> None:
        async def work(self, ctx, ev): ...

        work.__name__, work.__qualname__ = name, f"Wide.{name}"
        work.__annotations__ = {"ctx": Context, "ev": takes, "return": gives}
        body[name] = step(work)

    add("split", StartEvent, reduce(or_, [*begun, None]))
    for number in range(branches):
        add(f"branch_{number}", begun[number], done[number])
    add("join", reduce(or_, done), StopEvent | None)
    return type("Wide", (Workflow,), body)


def test_a_wide_workflow_is_drawn_sideways_so_that_it_can_be_read():
    narrow, broad = size(draw_workflow(wide(3))), size(draw_workflow(wide(12)))
    assert narrow[0] < 700 < broad[1]
    assert broad[0] < 1000


def test_a_long_name_is_cut_visibly_and_shown_as_a_hint():
    name = "Long" * 40
    flow = type(name, (ArticleFlow,), {})
    picture = draw_workflow(flow)
    cut = next(text for text in texts(picture) if text.startswith("LongLong"))
    assert cut.endswith("…")
    hints = [element.text for element in parsed(picture).iter(f"{SVG}title")]
    assert name in hints
    assert size(picture)[0] < 1000


# --------------------------------------------------------------------------- layout


@st.composite
def graphs(draw):
    keys = [str(number) for number in range(draw(st.integers(1, 12)))]
    key = st.sampled_from(keys)
    edges = draw(st.lists(st.tuples(key, key).filter(lambda e: e[0] != e[1]), max_size=20))
    sizes = [(draw(st.integers(20, 250)), draw(st.integers(20, 90))) for _ in keys]
    return [Box(k, *wh) for k, wh in zip(keys, sizes, strict=True)], edges


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from([1, 100_000]))
def test_boxes_never_overlap_and_every_line_ends_at_its_boxes(graph, at_most):
    boxes, edges = graph
    placed = layout(boxes, edges, at_most=at_most)
    assert placed == layout(boxes, edges, at_most=at_most)
    sizes = {box.key: box for box in boxes}
    for key, (x, y) in placed.centres.items():
        box = sizes[key]
        assert x - box.width / 2 >= -0.1
        assert x + box.width / 2 <= placed.width + 0.1
        assert y - box.height / 2 >= -0.1
        assert y + box.height / 2 <= placed.height + 0.1
        for other_key, (a, b) in placed.centres.items():
            if other_key < key:
                other = sizes[other_key]
                apart_x = abs(x - a) >= (box.width + other.width) / 2
                assert apart_x or abs(y - b) >= (box.height + other.height) / 2
    assert sorted((r.source, r.target) for r in placed.routes) == sorted(set(edges))
    for route in placed.routes:
        for key, (x, y) in ((route.source, route.points[0]), (route.target, route.points[-1])):
            box, (a, b) = sizes[key], placed.centres[key]
            assert abs(x - a) <= box.width / 2 + 0.1
            assert abs(y - b) <= box.height / 2 + 0.1


def test_many_boxes_in_one_layer_stand_beside_each_other():
    boxes = [Box("root", 60, 20), *(Box(str(n), 80 + n % 3, 20) for n in range(60))]
    placed = layout(boxes, [("root", str(n)) for n in range(60)], at_most=100_000)
    sizes = {box.key: box.width for box in boxes}
    row = sorted((x, key) for key, (x, _) in placed.centres.items() if key != "root")
    for (x, key), (other_x, other) in pairwise(row):
        assert other_x - x >= (sizes[key] + sizes[other]) / 2


def test_lines_lead_downwards_but_for_those_that_close_a_circle():
    boxes = [Box(key, 50, 20) for key in "abcd"]
    placed = layout(boxes, [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")])
    height = {key: y for key, (_, y) in placed.centres.items()}
    assert height["a"] < height["b"] < height["c"] < height["d"]


# --------------------------------------------------------------------------- runs


async def test_a_run_tells_who_was_asked_how_long_it_took_and_who_decided():
    desk = Desk()
    await desk.start()
    desk.clock.advance(minutes=12)
    await desk.answer(LENA, Approve(comment="Fine with me."))
    desk.clock.advance(hours=3)
    await desk.answer(LUIS, Approve())
    desk.clock.advance(days=1)
    await desk.answer("erin", Revise(feedback="shorter"))
    await desk.answer(LENA, Approve())
    await desk.answer(LUIS, Approve())
    desk.clock.advance(days=2)
    await desk.runner.sweep()
    await desk.runner.advance("article-1")
    desk.clock.advance(hours=1, minutes=5)
    await desk.answer(CARL, Approve())

    picture = await desk.picture()
    assert picture.title == "Run article-1 of article: finished"
    said = texts(picture)
    assert "article, finished after 3 days 4 hours" in said
    story = [
        "2 Mar 2026",
        "Started by ada",
        "gate legal · asks role legal",
        "12 minutes later",
        "lena approved",
        "Fine with me.",
        "3 hours later",
        "luis approved",
        "gate editor · asks erin · until 4 Mar 2026, 12:12",
        "1 day later, 3 Mar 2026",
        "erin sent it back",
        "shorter",
        "gate legal · asks role legal",
        "lena approved",
        "luis approved",
        "gate editor · revision 2 · asks erin · until 5 Mar 2026, 12:12",
        "2 days later, 5 Mar 2026",
        "Nobody decided in time: passed on",
        "gate editor · revision 2 · asks role chief · until 7 Mar 2026, 12:12",
        "1 hour 5 minutes later",
        "carl approved",
        "Finished",
    ]
    assert [text for text in said if text in story] == story
    assert picture.svg == (await desk.picture()).svg


async def test_a_run_that_waits_ends_with_what_it_waits_for():
    desk = Desk()
    await desk.start()
    await desk.answer(LENA, Approve())
    await desk.answer(LUIS, Approve())
    assert texts(await desk.picture())[-1] == "waits for an answer: Article About p"
    await desk.answer("erin", Reject())
    said = texts(await desk.picture())
    assert said[-1] == "Finished"
    assert not [text for text in said if text.startswith("waits")]


async def test_an_answer_that_did_not_count_is_told_with_the_reason():
    desk = Desk()
    await desk.start()
    (record,) = await desk.runner.pending()
    with pytest.raises(NotAllowed):
        await desk.runner.answer(record.request_id, Approve(), by="mallory")
    said = texts(await desk.picture())
    assert "mallory was refused" in said
    assert any(text.endswith("the request is for role:legal.") for text in said)


async def test_requests_that_are_open_together_stand_side_by_side():
    class Payment(Event):
        amount: int

    class Payments(Workflow):
        @step
        async def propose(self, ctx: Context, ev: StartEvent) -> Payment | None:
            for amount in (1, 2, 3):
                ctx.send_event(Payment(amount=amount))
            return None

        payment = Review(Payment, title=lambda _, ev: f"Pay {ev.amount}?", rejected=Rejected)

        @step
        async def pay(self, ctx: Context, ev: Approved | Rejected) -> StopEvent | None:
            done = ctx.collect_events(ev, [type(ev)] * 3)
            return None if done is None else StopEvent()

    runner = Runner(MemoryStore(), {"pay": Payments(timeout=None)}, clock=ManualClock())
    await runner.start("pay", run_id="pay-1")
    records = sorted(await runner.pending(), key=lambda asked: asked.request.title)
    await runner.answer(records[1].request_id, Approve(), by="erin")
    await runner.advance("pay-1")

    picture = await draw_run(runner, "pay-1")
    assert f"erin approved: {records[1].request.title}" in texts(picture)
    dots = [(c.attrib["cx"], c.attrib["fill"]) for c in parsed(picture).iter(f"{SVG}circle")]
    asked, answered, waiting = dots[1:4], dots[4], dots[5:]
    lanes = [x for x, _ in asked]
    assert len(set(lanes)) == 3
    assert answered[0] == lanes[1]
    assert [x for x, _ in waiting] == [lanes[0], lanes[2]]


class Shipping(Workflow):
    """Two parcels that are asked about at the same instant; each is sent once."""

    @step
    async def pack(self, ctx: Context, ev: StartEvent) -> Draft | None:
        for text in ("to Bob", "to Alice"):
            ctx.send_event(Draft(text=text))

    @step
    async def send(self, ctx: Context, ev: Draft) -> Sent:
        said = await ask(ctx, Question(title=f"Parcel {ev.text}"))
        await once(said.effect_key, lambda: asyncio.sleep(0))
        return Sent()

    @step
    async def end(self, ctx: Context, ev: Sent) -> StopEvent | None:
        return StopEvent() if ctx.collect_events(ev, [Sent, Sent]) else None


async def test_what_was_done_once_says_what_and_not_in_which_process():
    pictures = set()
    for _ in range(8):  # ids are random, and the picture is the same
        runner = Runner(MemoryStore(), {"ship": Shipping(timeout=None)}, clock=ManualClock())
        await runner.start("ship", run_id="ship-1")
        for record in sorted(await runner.pending(), key=lambda record: record.request.title):
            await runner.answer(record.request_id, Approve(), by="erin")
            await runner.advance("ship-1")
        picture = await draw_run(runner, "ship-1")
        pictures.add(picture.svg)
    told = texts(picture)
    assert told.count("Done, once") == 2
    assert told[told.index("Done, once") + 1] == "Parcel to Alice"
    assert len(pictures) == 1


@pytest.mark.parametrize("end", [AuditKind.FAILED, AuditKind.CANCELLED])
def test_a_run_that_is_over_waits_for_nothing(end):
    at = datetime(2026, 3, 2, 9, tzinfo=UTC)
    rows = None, []
    for kind, request_id in ((AuditKind.STARTED, None), (AuditKind.OPENED, "r-1"), (end, None)):
        entry = AuditEntry(kind=kind, run_id="run-1", at=at, request_id=request_id)
        rows = (row := chained(rows[0], entry)), [*rows[1], row]
    assert story_of(rows[1][:2]).waits_for == {1: "A request"}
    assert story_of(rows[1]).waits_for == {}


async def test_a_run_that_is_not_there_is_an_error():
    with pytest.raises(UnknownRun):
        await draw_run(Runner(MemoryStore()), "nobody")


async def test_of_a_very_long_run_the_beginning_is_left_out_and_that_is_said():
    desk = Desk()
    await desk.start()
    for number in range(210):
        with pytest.raises(NotAllowed):
            await desk.runner.answer(
                next(iter(await desk.runner.pending())).request_id, Approve(), by=f"editor-{number}"
            )
    picture = await desk.picture()
    assert "… 12 earlier moments are not shown" in texts(picture)
    assert len(list(parsed(picture).iter(f"{SVG}circle"))) == 201  # and what it waits for
    assert texts(picture)[-1].startswith("waits for an answer")


# --------------------------------------------------------------------------- changes


def test_changes_stand_side_by_side_and_what_is_the_same_is_folded():
    before = "\n".join(["One.", *map(str, range(20)), "The end."])
    after = "\n".join(["Two.", *map(str, range(20)), "The very end.", "Or not."])
    picture = draw_changes(before, after)
    assert picture.title == "What has changed: 3 lines"
    said = texts(picture)
    assert "14 lines that are the same" in said
    assert {"One.", "Two.", "Or not."} <= set(said)
    fills = [r.attrib["fill"] for r in parsed(picture).iter(f"{SVG}rect")]
    assert fills.count("#ffebe9") == 2  # removed
    assert fills.count("#dafbe1") == 3  # added
    assert fills.count("#8fe3a3") == 1  # the word that is new stands out
    assert not [text for text in said if "very" in text and "end" in text]


async def test_a_revision_is_drawn_beside_the_one_before():
    desk = Desk()
    await desk.start()
    await desk.answer(LENA, Approve())
    await desk.answer(LUIS, Approve())
    first = next(iter(await desk.runner.pending())).request
    await desk.answer("erin", Revise(feedback="shorter"))
    await desk.answer(LENA, Approve())
    await desk.answer(LUIS, Approve())
    second = next(iter(await desk.runner.pending())).request

    assert "This is the first version: there is none before it." in texts(draw_changes(first))
    said = texts(draw_changes(second))
    assert "revision 2 beside revision 1: 1 line" in said
    assert {"Text", "About patience", "Now shorter."} <= set(said)


def test_texts_that_are_the_same_say_so():
    assert "Nothing has changed." in texts(draw_changes("tea", "tea"))


def test_long_lines_are_wrapped_and_cut_and_long_texts_end_with_how_much_is_left():
    word = "leaves "
    picture = draw_changes(word * 20, word * 19 + "water " + "x" * 3_000)
    width, _ = size(picture)
    assert width < 1000
    shown = [e for e in parsed(picture).iter(f"{SVG}text") if e.attrib.get("font-size") == "12"]
    right = max(float(e.attrib["x"]) + float(e.attrib.get("textLength", 0)) for e in shown)
    assert right < width
    assert any(text.endswith("…") for text in texts(picture))
    many = draw_changes("", "\n".join(f"line {n}" for n in range(500)))
    assert f"… and {500 - ROWS_LIMIT + 1:,} more lines, not shown" in texts(many)
    assert "line 100" in texts(many)
    assert "line 499" not in texts(many)


def test_changes_take_a_request_or_two_texts():
    for given_ in (("one",), (1, 2), (None, "two")):
        with pytest.raises(TypeError, match="a ReviewRequest, or two texts"):
            draw_changes(*given_)


# --------------------------------------------------------------------------- all of them


async def test_hostile_text_stays_text_in_every_picture(tmp_path):
    desk = Desk(topic=HOSTILE.encode("utf-8", "replace").decode())
    await desk.start()
    await desk.answer(LENA, Approve(comment=HOSTILE.encode("utf-8", "replace").decode()))
    pictures = [await desk.picture(), draw_changes("tea", HOSTILE), draw_changes(HOSTILE, "tea")]
    for picture in pictures:
        said = " ".join(texts(picture))
        assert "<script>" in said
        assert "\\u202e" in said
        assert not {"\x00", "\x1b", "\u202e", "\uffff"} & set(picture.svg)
        picture.save(tmp_path / "picture.svg")
        assert (tmp_path / "picture.svg").read_text(encoding="utf-8") == picture.svg


def test_a_notebook_shows_the_drawing_and_a_reader_without_eyes_its_title():
    picture = draw_workflow(ArticleFlow)
    assert picture._repr_svg_() == picture.svg
    assert repr(picture) == "Picture('Workflow ArticleFlow: 2 steps, 2 gates')"
    assert parsed(picture).attrib["aria-label"] == picture.title


def test_pictures_bring_their_own_background_and_no_names_that_could_clash():
    for picture in (draw_workflow(ArticleFlow), draw_changes("tea", "coffee")):
        root = parsed(picture)
        paper = root.find(f"{SVG}rect")
        assert paper is not None
        assert paper.attrib["fill"] == "#ffffff"
        assert not [e for e in root.iter() if {"id", "class"} & set(e.attrib)]


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (timedelta(0), "less than a second"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=90), "1 minute 30 seconds"),
        (timedelta(hours=3), "3 hours"),
        (timedelta(days=1, minutes=59), "1 day"),
        (timedelta(days=2, hours=1), "2 days 1 hour"),
    ],
)
def test_a_length_of_time_is_told_in_its_largest_units(length, said):
    assert duration(length) == said


def test_instants_are_told_in_utc():
    assert moment(datetime.fromisoformat("2026-03-02T01:30:00+02:00")) == "1 Mar 2026, 23:30"


def test_what_happens_within_a_minute_is_told_with_seconds():
    async def run() -> Picture:
        clock = ManualClock()
        runner = Runner(MemoryStore(), {"draft": DraftApproval()}, clock=clock)
        await runner.start("draft", run_id="tea", inputs={"topic": "tea", "content": "Hot."})
        clock.advance(seconds=5)
        record = next(iter(await runner.pending()))
        await runner.answer(record.request_id, Approve(), by="erin")
        return await draw_run(runner, "tea")

    assert {"12:00:00", "12:00:05"} <= set(texts(asyncio.run(run())))
