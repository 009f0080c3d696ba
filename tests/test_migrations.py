"""Runs that old code has paused are made to fit new code, and finish there."""

import json
from collections.abc import Callable
from copy import deepcopy
from enum import Enum
from typing import Any

import pytest
from flows import Live, asked, codes, made, of_kind
from pydantic import BaseModel, Field
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Question,
    Reject,
    Review,
    ReviewRequestEvent,
    Revise,
    Revision,
    ask,
)
from llama_index_hitl._codec import context_to_dict, serializer_for
from llama_index_hitl._fingerprint import Fingerprint, differences, fingerprint_of, occurring_types
from llama_index_hitl.errors import SnapshotError
from llama_index_hitl.migrations import Migrated, Migration, MigrationError, apply

HERE = __name__
Start = Callable[..., Live]
Code = type[Workflow]


def paused(live: Live) -> tuple[dict[str, Any], Fingerprint]:
    """Return a waiting run as JSON, and the fingerprint of its code."""
    workflow = live.make()
    stored = context_to_dict(live.handler.ctx.to_dict, serializer_for(workflow))
    return json.loads(json.dumps(stored)), fingerprint_of(workflow)


def migrated(live: Live, new: Code, *migrations: Migration, version: str | None = None) -> Migrated:
    """Return what a waiting run becomes; the stored run must stay as it is."""
    stored, then = paused(live)
    before = deepcopy(stored)
    workflow = new()
    result = apply(migrations, {"flow"}, version, stored, then, serializer=serializer_for(workflow))
    assert stored == before
    return result


def misfits(result: Migrated, new: Code) -> tuple[str, ...]:
    """Return in what a migrated run does not fit new code."""
    now = fingerprint_of(new())
    return differences(result.fingerprint, now, occurring=occurring_types(result.context))


async def resumed(live: Live, new: Code, result: Migrated) -> list[Event]:
    """Go on with a migrated run in new code; return what was on the stream until it waited."""
    assert misfits(result, new) == ()
    await live.handler.cancel_run()
    workflow = new()
    stored = json.loads(json.dumps(result.context))
    context = Context.from_dict(workflow, stored, serializer=serializer_for(workflow))
    live.make = new
    live._begin(workflow.run(ctx=context))
    return await live.pause()


RENAMED = Migration("flow", rename_steps={"legal_gate": "counsel_gate"})


# --------------------------------------------------------------------------- old and new code


class Draft(Event):
    text: str
    words: int = 0


class Mood(Enum):
    GOOD = 1


def gated(name: str = "legal", event: type[Event] = Draft, **options: Any) -> Code:
    """Return a workflow with one gate of some name, on an event of some type."""

    async def write(self, ev): ...

    async def begin(self, ctx, ev):
        await ctx.store.set("mood", {"now": Mood.GOOD, "path": ("a",)})
        return event(text="x", words=3, note=["kept"], approvals=[])

    async def publish(self, ev):
        return StopEvent(result=ev)

    body: dict[str, Any] = {"__module__": HERE, name: Review(event, **options)}
    body["begin"] = declared(begin, StartEvent, event, "Flow.begin")
    body["publish"] = declared(publish, Approved, StopEvent, "Flow.publish")
    return made(type("Flow", (Workflow,), body))


def declared(function: Any, takes: Any, gives: Any, name: str, state: Any = None) -> Any:
    """Make a step of a function that was written without annotations."""
    function.__qualname__ = name
    context = Context if state is None else Context[state]
    function.__annotations__ = {"ctx": context, "ev": takes, "return": gives}
    if "ctx" not in function.__code__.co_varnames:
        del function.__annotations__["ctx"]
    return step(function)


def event_type(name: str, *, of: str = HERE, **fields: Any) -> type[Event]:
    """Return the class of an event with these fields, `name=type` or `name=(type, default)`."""
    annotations = {n: spec[0] if isinstance(spec, tuple) else spec for n, spec in fields.items()}
    defaults = {n: spec[1] for n, spec in fields.items() if isinstance(spec, tuple)}
    return type(name, (Event,), {"__annotations__": annotations, "__module__": of, **defaults})


# --------------------------------------------------------------------------- steps


async def test_a_gate_that_is_renamed_keeps_its_open_request_and_the_votes(start_here: Start):
    live = start_here(gated(quorum=2))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    new = gated("counsel", quorum=2)
    assert misfits(migrated(live, new), new) == (
        "Step 'legal_gate' is gone; 'counsel_gate' is new and accepts the same events.",
    )
    result = migrated(live, new, RENAMED)
    assert result.applied == ("flow",)
    await resumed(live, new, result)
    again = request.answer(Approve(), by="erin")
    assert codes(await live.tell(again)) == []
    assert not live.ended
    await live.tell(request.answer(Approve(), by="frank"))
    outcome = await live.result()
    assert outcome.request == request.request
    assert [answer.by.id for answer in outcome.answers] == ["erin", "frank"]
    assert outcome.subject.note == ["kept"]
    assert await live.handler.ctx.store.get("mood") == {"now": Mood.GOOD, "path": ("a",)}


async def test_a_gate_that_is_renamed_still_waits_for_the_next_draft(start_here: Start):
    def flow(name: str) -> Code:
        class Flow(Workflow):
            @step
            async def write(self, ctx: Context, ev: StartEvent | Revision) -> Draft:
                if isinstance(ev, Revision):
                    await ctx.wait_for_event(HumanResponseEvent, requirements={"go": 1})
                return Draft(text="x")

            @step
            async def end(self, ev: Approved) -> StopEvent:
                return StopEvent(result=ev)

        body = {"__module__": HERE, name: Review(Draft, revise=Revision)}
        return made(type("Flow", (Flow,), body))

    live = start_here(flow("legal"))
    (request,) = await live.open()
    await live.tell(request.answer(Revise(feedback="shorter"), by="erin"))
    await resumed(live, flow("counsel"), migrated(live, flow("counsel"), RENAMED))
    (second,) = asked(await live.tell(HumanResponseEvent(go=1)))
    assert (second.request.revision, second.request.supersedes) == (2, request.request_id)
    assert [item.text for item in second.request.feedback] == ["shorter"]


def waiting(name: str, answer: type[Event] = HumanResponseEvent, **options: Any) -> Code:
    """Return a workflow whose step of some name waits for an event."""
    calls: list[str] = []

    async def wait(self, ctx, ev):
        event = await ctx.wait_for_event(answer, **options)
        calls.append(event.get("word") or event.word)
        return StopEvent(result=list(calls))

    wait.__name__ = name
    body = {"__module__": HERE, name: declared(wait, StartEvent, StopEvent, f"Flow.{name}")}
    return made(type("Flow", (Workflow,), body))


@pytest.mark.parametrize("options", [{}, {"waiter_id": "w"}, {"requirements": {"word": "yes"}}])
async def test_a_step_that_is_renamed_still_waits(start_here: Start, options: Any):
    live = start_here(waiting("old", **options))
    await live.pause()
    new = waiting("new", **options)
    await resumed(live, new, migrated(live, new, Migration("flow", rename_steps={"old": "new"})))
    await live.tell(HumanResponseEvent(word="yes"))
    assert await live.result() == ["yes"]


async def test_an_inline_question_of_a_renamed_step_stays_open(start_here: Start):
    def flow(name: str) -> Code:
        async def pay(self, ctx, ev):
            first = await ask(ctx, Question(title="First?"))
            second = await ask(ctx, Question(title="Second?"))
            return StopEvent(result=(first.approved, second.approved))

        pay.__name__ = name
        body = {"__module__": HERE, name: declared(pay, StartEvent, StopEvent, f"Flow.{name}")}
        return made(type("Flow", (Workflow,), body))

    live = start_here(flow("pay"))
    (first,) = await live.open()
    yes = first.answer(Approve(), by="erin")
    (second,) = asked(await live.tell(yes, yes))
    rename = Migration("flow", rename_steps={"pay": "transfer"})
    stored = migrated(live, flow("transfer"), rename).context["workers"]["transfer"]
    names = [waiter["waiter_id"] for waiter in stored["collected_waiters"]]
    assert [name for name in names if name.startswith("aside-")]
    assert "pay:" not in json.dumps([names, list(stored["collected_events"])])
    await resumed(live, flow("transfer"), migrated(live, flow("transfer"), rename))
    await live.tell(second.answer(Reject(), by="erin"))
    assert await live.result() == (True, False)
    assert of_kind(live.seen, ReviewRequestEvent) == [first, second]


class Part(Event):
    number: int


class Done(Event):
    number: int


class Piece(Event):
    number: int


class Ready(Event):
    number: int


def fanned(source: str, target: str, part: type[Event], done: type[Event]) -> Code:
    """Return a workflow that makes a list of parts and collects them when people have answered."""

    async def split(self, ev):
        return [part(number=number) for number in range(3)]

    async def work(self, ctx, ev):
        if ev.number:
            await ctx.wait_for_event(
                HumanResponseEvent,
                waiter_id=f"w{ev.number}",
                requirements={"number": ev.number},
            )
        return done(number=ev.number)

    async def join(self, evs):
        return StopEvent(result=[ev.number for ev in evs])

    split.__name__, join.__name__ = source, target
    join.__qualname__ = f"Flow.{target}"
    join.__annotations__ = {"evs": list[done], "return": StopEvent}
    body = {
        "__module__": HERE,
        source: declared(split, StartEvent, list[part], f"Flow.{source}"),
        "work": declared(work, part, done, "Flow.work"),
        target: step(join),
    }
    return made(type("Flow", (Workflow,), body))


async def test_a_list_that_is_being_collected_is_collected_by_the_renamed_steps(start_here: Start):
    live = start_here(fanned("split", "join", Part, Done))
    await live.pause()
    new = fanned("cut", "gather", Piece, Ready)
    change = Migration(
        "flow",
        rename_steps={"split": "cut", "join": "gather"},
        rename_events={"Part": "Piece", "Done": "Ready"},
    )
    stored = paused(live)[0]
    assert stored["streams"]
    assert stored["collection_release_states"]
    await resumed(live, new, migrated(live, new, change))
    await live.tell(HumanResponseEvent(number=1), HumanResponseEvent(number=2))
    assert sorted(await live.result()) == [0, 1, 2]


async def test_steps_may_swap_their_names_but_not_merge_their_work(start_here: Start):
    class Flow(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(Part(number=1))
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="one")
            return StopEvent()

        @step
        async def two(self, ctx: Context, ev: Part) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="two")
            return StopEvent()

        @step
        async def idle(self, ev: Done) -> StopEvent:
            return StopEvent()

    flow = made(Flow)
    live = start_here(lambda: flow(disable_validation=True))
    await live.pause()
    stored, then = paused(live)

    def workers(**names: str) -> dict[str, Any]:
        codec = serializer_for(live.make())
        migration = Migration("flow", rename_steps=names)
        return apply([migration], {"flow"}, None, stored, then, serializer=codec).context["workers"]

    def waiters(worker: dict[str, Any]) -> list[str]:
        return [waiter["waiter_id"] for waiter in worker["collected_waiters"]]

    swapped = workers(one="two", two="one")
    assert (waiters(swapped["one"]), waiters(swapped["two"])) == (["two"], ["one"])
    merged = workers(one="idle")
    assert (waiters(merged["idle"]), set(merged)) == (["one"], {"idle", "two"})
    assert waiters(workers(idle="one")["one"]) == ["one"]
    with pytest.raises(MigrationError, match="two steps that have work would both be called 'two'"):
        workers(one="two")


# --------------------------------------------------------------------------- events


@pytest.mark.parametrize(("module", "name"), [(HERE, "Article"), ("elsewhere", "elsewhere.Draft")])
async def test_an_event_under_review_that_is_renamed_is_what_was_shown(
    start_here: Start, module: str, name: str
):
    article = event_type(name.rpartition(".")[2], of=module, text=str, words=(int, 0))
    live = start_here(gated())
    (request,) = await live.open()
    new = gated(event=article)
    assert misfits(migrated(live, new), new)
    result = migrated(live, new, Migration("flow", rename_events={"Draft": name}))
    assert f"{HERE}.Draft" not in json.dumps(result.context)
    await resumed(live, new, result)
    # What was shown has not changed, so what was decided about it counts.
    assert codes(await live.tell(request.answer(Approve(), by="erin"))) == []
    outcome = await live.result()
    assert type(outcome.subject) is article
    assert (outcome.subject.text, outcome.subject.note) == ("x", ["kept"])
    assert outcome.request == request.request


class Yes(HumanResponseEvent):
    word: str


@pytest.mark.parametrize("options", [{}, {"waiter_id": "w"}, {"requirements": {"word": "yes"}}])
async def test_the_event_that_a_step_waits_for_may_be_renamed(start_here: Start, options: Any):
    class Agreed(HumanResponseEvent):
        word: str

    live = start_here(waiting("wait", Yes, **options))
    await live.pause()
    new = waiting("wait", Agreed, **options)
    await resumed(
        live, new, migrated(live, new, Migration("flow", rename_events={"Yes": "Agreed"}))
    )
    waiters = live.handler.ctx.to_dict()["workers"]["wait"]["collected_waiters"]
    assert [waiter["waiting_for_event"] for waiter in waiters] == [f"{HERE}.Agreed"]
    await live.tell(Agreed(word="yes"))
    assert await live.result() == ["yes"]


class Offer(Event):
    price: int
    history: list[Any] = Field(default_factory=list)


class Deal(Event):
    price: int
    history: list[Any] = Field(default_factory=list)


def collecting(kind: type[Event], *, mood: type[Enum] = Mood) -> Code:
    """Return a workflow that has events of a kind wherever there can be some."""

    async def begin(self, ctx, ev):
        await ctx.store.set(
            "last", {"offer": kind(price=1, history=[kind(price=0)], mood=mood.GOOD)}
        )
        for price in (1, 2):
            ctx.send_event(kind(price=price, before=(kind(price=price - 1),)))
        ctx.send_event(Part(number=1))

    async def gather(self, ctx, ev):
        found = ctx.collect_events(ev, [kind, kind, kind])
        if found is not None:
            last = await ctx.store.get("last")
            return StopEvent(result=(last["offer"], found))
        return None

    async def wait(self, ctx, ev):
        return await ctx.wait_for_event(kind, waiter_id="w")

    body = {
        "__module__": HERE,
        "begin": declared(begin, StartEvent, kind | Part | None, "Flow.begin"),
        "wait": declared(wait, Part, kind, "Flow.wait"),
        "gather": declared(gather, kind, StopEvent | None, "Flow.gather"),
        "Mood": mood,
    }
    return made(type("Flow", (Workflow,), body))


async def test_a_renamed_event_is_renamed_wherever_it_is(start_here: Start):
    class Feeling(Enum):
        GOOD = 1

    live = start_here(collecting(Offer))
    await live.pause()
    new = collecting(Deal, mood=Feeling)
    change = Migration("flow", rename_events={"Offer": "Deal", "Mood": "Feeling"})
    result = migrated(live, new, change)
    await resumed(live, new, result)
    await live.tell(Deal(price=3))
    last, found = await live.result()
    assert (last, type(last.mood)) == (
        Deal(price=1, history=[Deal(price=0)], mood=Feeling.GOOD),
        Feeling,
    )
    assert sorted(deal.price for deal in found) == [1, 2, 3]
    befores = [deal.before for deal in found if deal.get("before")]
    assert sorted(befores, key=str) == [(Deal(price=0),), (Deal(price=1),)]


async def test_every_part_of_a_run_is_renamed(start_here: Start):
    live = start_here(gated())
    await live.open()
    stored, then = paused(live)
    codec = serializer_for(gated()())
    old, new = (
        codec.serialize(Draft(text="x")).replace("Draft", name) for name in ("Draft", "New")
    )

    def attempt(text: str, step: str) -> dict[str, Any]:
        return {
            "event": text,
            "bound_events": {"first": text},
            "recovery_counts": {step: 1, "other": 2},
            "collection_release_payload": {"binding_id": "", "stream_id": "s", "events": [text]},
        }

    def run(text: str, name: str, step: str) -> dict[str, Any]:
        waiter = {
            **attempt(text, step),
            "waiter_id": f"waiter_{name}__1",
            "waiting_for_event": name,
            "resolved_event": text,
        }
        work = attempt(text, step) | {"collected_events": {"default": [text]}}
        worker = {
            "queue": [attempt(text, step)],
            "in_progress": [{**work, "collect_generations": {"default": 1}}],
            "collected_events": {"default": [text]},
            "collect_generations": {"default": 1},
            "static_collect_events": [text],
            "collected_waiters": [waiter],
        }
        workers = {key: item for key, item in stored["workers"].items() if key != "begin"}
        delivery = {**attempt(text, step), "step_id": step}
        return {
            **stored,
            "workers": {step: worker, **workers},
            "deliveries": [delivery, {**delivery, "step_id": None}],
        }

    migration = Migration("flow", rename_steps={"begin": "start"}, rename_events={"Draft": "New"})
    before = run(old, f"{HERE}.Draft", "begin")
    result = apply([migration], {"flow"}, None, before, then, serializer=codec).context
    expected = run(new, f"{HERE}.New", "start")
    for part in ("deliveries", "streams", "state"):
        assert result[part] == expected[part]
    assert result["workers"]["start"] == expected["workers"]["start"]


async def test_text_that_looks_like_a_renamed_type_stays(start_here: Start):
    looks = {"__is_pydantic": True, "qualified_name": f"{HERE}.Offer", "value": {"price": 1}}
    quoted = f'"qualified_name": "{HERE}.Offer"'

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("looks", [looks, quoted])
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="w")
            return StopEvent(result=await ctx.store.get("looks"))

        @step
        async def never(self, ev: Offer) -> StopEvent: ...

    def flow() -> Workflow:
        return Flow(timeout=None, disable_validation=True)

    live = start_here(flow)
    await live.pause()
    result = migrated(live, flow, Migration("flow", rename_events={f"{HERE}.Offer": "Deal"}))
    live.make = flow
    await live.handler.cancel_run()
    workflow = flow()
    context = Context.from_dict(workflow, result.context, serializer=serializer_for(workflow))
    live._begin(workflow.run(ctx=context))
    await live.tell(HumanResponseEvent())
    assert await live.result() == [looks, quoted]


# --------------------------------------------------------------------------- fields


def to_article(fields: dict[str, Any]) -> dict[str, Any]:
    assert fields.pop("note") == ["kept"]
    return {
        "note": ["kept"],
        "body": fields["text"].upper(),
        "language": "en",
        **{name: value for name, value in fields.items() if name not in ("text", "words")},
    }


ARTICLE = event_type("Article", body=str, language=str, count=(int, 7))
TO_ARTICLE = Migration(
    "flow", to_version="2", rename_events={"Draft": "Article"}, change_fields={"Draft": to_article}
)


async def test_an_open_request_shows_what_its_subject_has_become(start_here: Start):
    live = start_here(gated(quorum=2))
    (old,) = await live.open()
    await live.tell(old.answer(Approve(), by="erin"))
    new = gated(event=ARTICLE, quorum=2)
    result = migrated(live, new, TO_ARTICLE)
    assert (result.version, result.applied) == ("2", ("flow (no version) -> 2",))
    await resumed(live, new, result)
    request = open_request(live)
    assert request.request_id == old.request_id
    assert request.subject.type == "Article"
    assert request.subject.data == {
        "body": "X",
        "language": "en",
        "count": 7,
        "note": ["kept"],
    }
    assert set(request.subject.json_schema["properties"]) == {"body", "language", "count"}
    assert request.digest == request.actual_digest() != old.request.digest
    kept = ("request_id", "created_at", "policy", "title", "gate", "run_id", "allowed")
    assert all(getattr(request, name) == getattr(old.request, name) for name in kept)
    # An answer about what was shown before is no answer about what is shown now.
    assert codes(await live.tell(old.answer(Approve(), by="frank"))) == ["stale_request"]
    await live.tell(ReviewRequestEvent(request=request).answer(Approve(), by="frank"))
    outcome = await live.result()
    assert type(outcome.subject) is ARTICLE
    assert (outcome.subject.body, outcome.subject.language, outcome.subject.count) == ("X", "en", 7)
    assert [answer.by.id for answer in outcome.answers] == ["erin", "frank"]
    assert outcome.request == request


def open_request(live: Live) -> Any:
    """Return the one request that is open at a gate of a run."""
    from llama_index_hitl.models import ReviewRequest

    codec = serializer_for(live.make())
    stored = context_to_dict(live.handler.ctx.to_dict, codec)
    (gate,) = [worker for name, worker in stored["workers"].items() if name.endswith("_gate")]
    (text,) = gate["collected_events"]["llama_index_hitl"]
    (review,) = codec.deserialize(text).memory["open"].values()
    return ReviewRequest.model_validate(review["record"]["request"])


async def test_a_subject_in_a_field_is_migrated_with_its_event(start_here: Start):
    class Payment(BaseModel):
        amount: int

    class Order(Event):
        payment: Payment

    class Sum(BaseModel):
        cents: int
        currency: str = "EUR"

    def flow(model: type[BaseModel]) -> Code:
        order = event_type("Order", payment=model)

        class Flow(Workflow):
            @step
            async def begin(self, ev: StartEvent) -> order:  # type: ignore[valid-type]
                return order(payment=model.model_validate({"amount": 3, "cents": 0}))

            pay = Review(order, subject="payment")

            @step
            async def end(self, ev: Approved) -> StopEvent:
                return StopEvent(result=ev.subject)

        return made(Flow)

    live = start_here(flow(Payment))
    await live.open()
    new = flow(Sum)
    change = Migration(
        "flow",
        to_version="2",
        change_fields={"Order": lambda f: {"payment": {"cents": f["payment"]["amount"] * 100}}},
    )
    await resumed(live, new, migrated(live, new, change))
    request = open_request(live)
    assert request.subject.data == {"cents": 300, "currency": "EUR"}
    await live.tell(ReviewRequestEvent(request=request).answer(Approve(), by="erin"))
    assert (await live.result()) == Sum(cents=300)


async def test_what_was_approved_and_waits_is_changed_in_its_proposal_only(start_here: Start):
    def flow(event: type[Event]) -> Code:
        async def publish(self, ctx, ev):
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="w", requirements={"go": 1})
            return StopEvent(result=ev)

        body = {"publish": declared(publish, Approved, StopEvent, "Flow.publish")}
        return made(type("Flow", (gated(event=event),), {"__module__": HERE, **body}))

    live = start_here(flow(Draft))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    await resumed(live, flow(ARTICLE), migrated(live, flow(ARTICLE), TO_ARTICLE))
    await live.tell(HumanResponseEvent(go=1))
    outcome = await live.result()
    assert (type(outcome.subject), outcome.subject.body) == (ARTICLE, "X")
    assert outcome.request == request.request


async def test_every_instance_is_changed_wherever_it_is(start_here: Start):
    cents = event_type("Offer", cents=int, history=(list[Any], []))
    live = start_here(collecting(Offer))
    await live.pause()

    def change(fields: dict[str, Any]) -> dict[str, Any]:
        fields["cents"] = fields.pop("price") * 100
        return fields

    new = collecting(cents)
    migration = Migration("flow", to_version="2", change_fields={"Offer": change})
    result = migrated(live, new, migration)
    texts = json.dumps(result.context)
    assert texts.count("cents") == 6
    assert "price" not in texts
    assert f"{HERE}.Offer" not in result.fingerprint.types
    codec = serializer_for(new())
    last = codec.deserialize(result.context["state"]["state_data"]["_data"]["last"])["offer"]
    assert last == cents(cents=100, history=[cents(cents=0)], mood=Mood.GOOD)
    (event,) = result.context["workers"]["gather"]["collected_events"]["default"][:1]
    assert codec.deserialize(event).before == (cents(cents=0),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields["nothing"], r"the change of .*\.Draft raised KeyError\('nothing'\)"),
        (lambda fields: None, r"the change of .*\.Draft returned NoneType, not a dict"),
        (lambda fields: {}, r"What legal-\w+ asks about does not fit .*text: Field required"),
        (
            lambda fields: {**fields, "words": "many"},
            r"does not fit the code .*words: Input should",
        ),
    ],
)
async def test_a_change_that_does_not_work_is_an_error(
    start_here: Start, change: Any, message: str
):
    live = start_here(gated())
    await live.open()
    migration = Migration("flow", to_version="2", change_fields={"Draft": change})
    with pytest.raises(MigrationError, match=message):
        migrated(live, gated(), migration)


def tampered(stored: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return a stored run in which somebody has changed the open request."""
    buffers = stored["workers"]["legal_gate"]["collected_events"]
    event = json.loads(buffers["llama_index_hitl"][0])
    (review,) = event["value"]["_data"]["memory"]["open"].values()
    change(review)
    buffers["llama_index_hitl"] = [json.dumps(event)]
    return stored


@pytest.mark.parametrize(
    "change",
    [
        lambda review: review["proposal"]["value"].update(text="y"),
        lambda review: review["record"]["request"]["subject"]["data"].update(text="y"),
        lambda review: review["record"]["request"].update(title="y"),
        lambda review: review["record"]["request"].update(digest="0" * 64),
    ],
)
async def test_a_migration_does_not_make_good_what_somebody_has_changed(
    start_here: Start, change: Any
):
    live = start_here(gated())
    await live.open()
    stored, then = paused(live)
    codec = serializer_for(gated(event=ARTICLE)())
    with pytest.raises(MigrationError, match="what is stored has been changed"):
        apply([TO_ARTICLE], {"flow"}, None, tampered(stored, change), then, serializer=codec)


# --------------------------------------------------------------------------- the state


class Budget(BaseModel):
    spent: int = 0
    loose: Any = None


def spending(state: type[BaseModel] | None) -> Code:
    async def begin(self, ctx, ev):
        await ctx.store.set("spent", 3)
        await ctx.store.set("loose", ({"a"},))
        return Part(number=1)

    async def end(self, ctx, ev):
        await ctx.wait_for_event(HumanResponseEvent, waiter_id="w")
        return StopEvent(result=await ctx.store.get_state())

    body = {
        "__module__": HERE,
        "begin": declared(begin, StartEvent, Part, "Flow.begin", state),
        "end": declared(end, Part, StopEvent, "Flow.end", state),
    }
    return made(type("Flow", (Workflow,), body))


class Purse(BaseModel):
    cents: int
    loose: Any = None


def to_cents(fields: dict[str, Any]) -> dict[str, Any]:
    return {"cents": fields["spent"] * 100, "loose": fields["loose"]}


@pytest.mark.parametrize(
    "change",
    [
        {"change_state": to_cents, "rename_events": {"Budget": "Purse"}},
        {"change_fields": {"Budget": to_cents}, "rename_events": {"Budget": f"{HERE}.Purse"}},
    ],
)
async def test_a_typed_state_is_renamed_and_changed(start_here: Start, change: Any):
    live = start_here(spending(Budget))
    await live.pause()
    new = spending(Purse)
    result = migrated(live, new, Migration("flow", to_version="2", **change))
    assert (result.context["state"]["state_type"], result.fingerprint.state) == (
        "Purse",
        f"{HERE}.Purse",
    )
    await resumed(live, new, result)
    await live.tell(HumanResponseEvent())
    assert await live.result() == Purse(cents=300, loose=({"a"},))


async def test_a_state_without_a_type_is_changed(start_here: Start):
    live = start_here(spending(None))
    await live.pause()

    def change(values: dict[str, Any]) -> dict[str, Any]:
        return {"loose": values["loose"], "cents": values["spent"] * 100, "more": {"a": [1]}}

    result = migrated(live, spending(None), Migration("flow", to_version="2", change_state=change))
    await resumed(live, spending(None), result)
    await live.tell(HumanResponseEvent())
    state = await live.result()
    assert dict(state.items()) == {"loose": ({"a"},), "cents": 300, "more": {"a": [1]}}


# --------------------------------------------------------------------------- which are applied


async def test_migrations_are_applied_in_the_order_of_their_versions(start_here: Start):
    live = start_here(gated())
    await live.open()

    def count(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "words": fields["words"] + 1}

    steps = [
        Migration("flow", from_version="2", to_version="3", rename_events={"Article": "Text"}),
        Migration("flow", from_version="3", to_version="4", change_fields={"Text": count}),
        Migration("other", from_version="1", to_version="9", change_fields={"Draft": count}),
        Migration(
            "flow",
            from_version="1",
            to_version="2",
            rename_events={"Draft": "Article"},
            change_fields={"Draft": count},
        ),
    ]
    new = gated(event=event_type("Text", text=str, words=(int, 0)))
    result = migrated(live, new, *steps, version="1")
    assert (result.version, result.applied) == ("4", ("flow 1 -> 2", "flow 2 -> 3", "flow 3 -> 4"))
    await resumed(live, new, result)
    assert open_request(live).subject.data["words"] == 5
    assert migrated(live, new, *steps, version="4").applied == ()
    assert migrated(live, new, *steps, version=None).applied == ()


async def test_a_migration_that_is_for_another_or_has_nothing_to_do_is_not_applied(
    start_here: Start,
):
    live = start_here(gated("counsel"))
    await live.open()
    stored, then = paused(live)
    for migration in (RENAMED, Migration("other", rename_steps={"counsel_gate": "x"})):
        result = migrated(live, gated("counsel"), migration)
        assert result == Migrated(stored, None, then)


async def test_renaming_there_and_back_changes_nothing(start_here: Start):
    live = start_here(gated())
    await live.open()
    stored, then = paused(live)
    there = Migration(
        "flow",
        to_version="2",
        rename_steps={"legal_gate": "a", "begin": "b"},
        rename_events={"Draft": "Else", "Mood": "Other"},
    )
    back = Migration(
        "flow",
        from_version="2",
        to_version="1",
        rename_steps={"a": "legal_gate", "b": "begin"},
        rename_events={"Else": "Draft", "Other": "Mood"},
    )
    result = migrated(live, gated(), there, back)
    assert (result.context, result.fingerprint) == (stored, then)


async def test_a_name_that_may_be_two_types_is_an_error(start_here: Start):
    other = event_type("Draft", of="elsewhere", text=str)

    class Flow(gated()):  # type: ignore[misc]
        @step
        async def more(self, ev: other) -> StopEvent: ...  # type: ignore[valid-type]

    def flow() -> Workflow:
        return Flow(disable_validation=True)

    live = start_here(flow)
    await live.open()
    with pytest.raises(MigrationError, match=rf"Draft may be elsewhere\.Draft or {HERE}\.Draft"):
        migrated(live, flow, Migration("flow", rename_events={"Draft": "Article"}))
    result = migrated(live, flow, Migration("flow", rename_events={f"{HERE}.Draft": "Article"}))
    assert set(result.fingerprint.types) == {"elsewhere.Draft", f"{HERE}.Article"}


async def test_a_run_in_an_old_format_of_upstreams_or_a_damaged_one_is_an_error(start_here: Start):
    live = start_here(gated())
    await live.open()
    stored, then = paused(live)
    codec = serializer_for(gated("counsel")())
    for version in (1, None):
        with pytest.raises(MigrationError, match="upstream's format; only 2 can be migrated"):
            apply([RENAMED], {"flow"}, None, {**stored, "version": version}, then, serializer=codec)
    stored["state"]["state_data"]["_data"]["mood"] = "{"
    with pytest.raises(MigrationError, match="a stored value is no JSON"):
        apply([RENAMED], {"flow"}, None, stored, then, serializer=codec)
    assert issubclass(MigrationError, SnapshotError)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: run.update(workers=[]),
        lambda run: run.update(state=3),
        lambda run: run["workers"].update(legal_gate=None),
        lambda run: run["workers"]["legal_gate"]["collected_waiters"].append({}),
        lambda run: run["workers"]["legal_gate"]["collected_events"].update(
            llama_index_hitl=["[]"]
        ),
        lambda run: run["workers"]["legal_gate"].update(collected_events={}, in_progress=[{}]),
    ],
)
async def test_a_damaged_run_is_an_error(start_here: Start, damage: Any):
    live = start_here(gated())
    await live.open()
    stored, then = paused(live)
    damage(stored)
    codec = serializer_for(gated("counsel")())
    with pytest.raises(MigrationError, match="The stored run is damaged"):
        apply([RENAMED], {"flow"}, None, stored, then, serializer=codec)


def test_a_migration_says_what_it_does():
    migration = Migration(
        "article",
        from_version="1",
        to_version="2",
        rename_steps={"legal_gate": "counsel_gate"},
        rename_events={"Draft": "Article"},
        change_fields={"Draft": to_article},
        change_state=to_cents,
    )
    assert migration.describe() == (
        "article 1 -> 2: step 'legal_gate' becomes 'counsel_gate'; Draft becomes Article; "
        "the fields of Draft change; the state changes"
    )
    assert Migration("article").describe() == "article: nothing changes"
    assert Migration("article", to_version="1").name == "article (no version) -> 1"
    assert Migration("article", from_version="1").name == "article 1 -> 1"


def test_a_migration_that_could_be_applied_twice_is_refused():
    with pytest.raises(ValueError, match="needs to_version="):
        Migration("article", change_fields={"Draft": to_article})
    with pytest.raises(ValueError, match="needs to_version="):
        Migration("article", from_version="1", change_state=to_cents)
    with pytest.raises(ValueError, match="must lead to another version"):
        Migration("article", from_version="1", to_version="1")
