"""Changed code is noticed, named in plain words, and no more than what a paused run leans on."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import reduce
from operator import or_
from typing import Any, Literal

import pytest
from flows import Draft, Live, drafts, revised, stages, transfers
from pydantic import BaseModel, Field
from workflows import Context, Workflow, step
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    SerializableEvent,
    StartEvent,
    StopEvent,
)

from llama_index_hitl import Approved, Review, ReviewRecord, Revision
from llama_index_hitl._codec import context_to_dict, serializer_for
from llama_index_hitl._fingerprint import (
    Fingerprint,
    differences,
    fingerprint_of,
    occurring_types,
)

HERE = __name__
Start = Callable[..., Live]


class Money(BaseModel):
    amount: Decimal
    currency: str = "EUR"


@dataclass
class Line:
    name: str
    count: int = 1


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Tree(BaseModel):
    name: str
    leaves: list["Tree"] = Field(default_factory=list)


class Opaque:
    pass


class Everything(Event):
    text: str
    limited: int = Field(default=3, ge=1, description="Words", title="Other")
    maybe: float | None = None
    when: datetime
    money: Money
    lines: list[Line]
    colours: set[Colour]
    kind: Literal["a", "b"]
    pair: tuple[int, str]
    by_name: dict[str, int]
    loose: Any = None
    bare: dict = Field(default_factory=dict)
    tree: Tree | None = None
    record: ReviewRecord | None = None
    nested: SerializableEvent | None = None
    opaque: Opaque | None = None
    many: dict[str, Money] | list[Money] | tuple[Money, Money] = Field(default=())
    aliased: int = Field(default=0, alias="Other")


def flow_of(*events: type[Event], state: type[BaseModel] | None = None) -> Workflow:
    """Return a workflow whose step `work` accepts some events."""

    async def work(self, ctx, ev): ...

    work.__qualname__ = "Flow.work"
    context = Context[state] if state else Context
    work.__annotations__ = {"ctx": context, "ev": reduce(or_, events), "return": StopEvent | None}

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent: ...

    Flow.work = step(work)
    return Flow(disable_validation=True)


def test_a_fingerprint_says_what_the_fields_hold_where_it_is_short():
    fields = fingerprint_of(flow_of(Everything)).types[f"{HERE}.Everything"]
    hashed = fields.pop("many")
    assert hashed.startswith("optional array #")
    assert fields == {
        "aliased": "optional integer",
        "bare": "optional object",
        "by_name": "object of integer",
        "colours": 'set of "blue" | "red"',
        "kind": '"a" | "b"',
        "limited": "optional integer",
        "lines": "array of {count?: integer, name: string}",
        "loose": "optional anything",
        "maybe": "optional number | null",
        "money": "{amount: number | string, currency?: string}",
        "nested": "optional anything | null",
        "opaque": f"optional {HERE}.Opaque | null",
        "pair": "array [integer, string]",
        "record": "optional llama_index_hitl.models.ReviewRecord | null",
        "text": "string",
        "tree": "optional {leaves?: array of (as 1 above), name: string} | null",
        "when": "date-time",
    }


class Marked(Approved):
    """A marker, and a field of its own."""

    mark: str = ""


class State(BaseModel):
    spent: int = 0


def test_only_what_is_the_users_own_is_looked_into():
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context[State], ev: StartEvent | Revision) -> Draft:
            return Draft(text="")

        check = Review(Draft, approved=Marked, revise=Revision)

        @step
        async def end(self, ev: Marked) -> StopEvent: ...

    found = fingerprint_of(Flow(timeout=None))
    assert found.types == {
        f"{HERE}.Marked": {"mark": "optional string"},
        f"{HERE}.State": {"spent": "optional integer"},
        "flows.Draft": {"text": "string"},
    }
    assert found.state == f"{HERE}.State"
    assert found.steps["begin"] == (
        "llama_index_hitl.events.Revision",
        "workflows.events.StartEvent",
    )
    assert set(found.steps) == {"begin", "check_gate", "end"}
    assert found.steps["end"] == (f"{HERE}.Marked",)


def test_the_events_of_a_step_are_in_order():
    names = ["Zebra", "Ape", "Mole", "Bee", "Yak", "Cat", "Wolf", "Dove"]
    events = [type(name, (Event,), {"__module__": HERE}) for name in names]
    found = fingerprint_of(flow_of(*events)).steps["work"]
    assert found == tuple(f"{HERE}.{name}" for name in sorted(names))


def test_a_fingerprint_is_made_once_survives_json_and_has_a_digest():
    flow = stages()
    found = fingerprint_of(flow())
    assert fingerprint_of(flow()) is found
    again = Fingerprint.model_validate_json(found.model_dump_json())
    assert (again, again.digest) == (found, found.digest)
    assert fingerprint_of(transfers()()).digest != found.digest
    assert len(found.model_dump_json()) < 1_000


def test_a_step_that_is_no_method_is_seen():
    class Flow(drafts()):  # type: ignore[misc]
        pass

    @step(workflow=Flow)
    async def late(ev: HumanResponseEvent) -> None: ...

    found, before = fingerprint_of(Flow()), fingerprint_of(drafts()())
    assert set(found.steps) - set(before.steps) == {"late"}


def test_the_digest_is_the_same_in_every_process():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_fingerprint import *\n"
        "print(fingerprint_of(flow_of(Everything, Marked, state=State)).digest)\n"
    )
    folder = __file__.rpartition("/")[0]
    found = {
        subprocess.run(
            [sys.executable, "-c", code, folder],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert len(found) == 1
    (digest,) = found
    assert len(digest) == 64


# --------------------------------------------------------------------------- differences


def one_event(**fields: Any) -> Workflow:
    """Return a workflow that accepts an event `Thing` with these fields, `name=(type, default)`."""
    annotations = {
        name: spec if not isinstance(spec, tuple) else spec[0] for name, spec in fields.items()
    }
    defaults = {name: spec[1] for name, spec in fields.items() if isinstance(spec, tuple)}
    return flow_of(
        type("Thing", (Event,), {"__annotations__": annotations, "__module__": HERE, **defaults})
    )


THING = f"{HERE}.Thing"


def changes(then: Workflow, now: Workflow, *occurring: str) -> tuple[str, ...]:
    return differences(fingerprint_of(then), fingerprint_of(now), occurring=set(occurring))


class Nested1(BaseModel):
    a: int


class Nested2(BaseModel):
    a: int
    b: int


class Wide(BaseModel):
    """More than can be read."""

    a_field_with_a_long_name: int
    another_field_with_a_long_name: int
    a_third_field_with_a_long_name: int
    a_fourth_field_with_a_long_name: int


class Wider(Wide):
    more: int


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({"a": str}, {"a": str}, ()),
        ({"a": str}, {"a": str, "b": (int, 1)}, ()),
        ({"a": str}, {"a": (str, "")}, ()),
        ({"a": (str, "")}, {"a": str}, ()),
        ({"a": str}, {"a": str | None}, ()),
        ({"a": int}, {"a": int | str}, ()),
        ({"a": int}, {"a": float}, ()),
        ({"a": int}, {"a": Any}, ()),
        ({"a": Literal["x"]}, {"a": Literal["x", "y"]}, ()),
        ({"a": Nested1}, {"a": Nested1}, ()),
        ({"a": str}, {"a": str, "b": int}, ("Field Thing.b is new and has no default.",)),
        ({"a": str, "b": int}, {"a": str}, ("Field Thing.b is gone.",)),
        (
            {"a": str, "b": int},
            {"a": str, "c": int},
            (
                "Field Thing.b is gone; 'c' is new and holds the same.",
                "Field Thing.c is new and has no default.",
            ),
        ),
        ({"a": str}, {"a": int}, ("Field Thing.a was string and is integer.",)),
        ({"a": str | None}, {"a": str}, ("Field Thing.a was string | null and is string.",)),
        ({"a": float}, {"a": int}, ("Field Thing.a was number and is integer.",)),
        ({"a": Any}, {"a": int}, ("Field Thing.a was anything and is integer.",)),
        (
            {"a": Literal["x", "y"]},
            {"a": Literal["x"]},
            ('Field Thing.a was "x" | "y" and is "x".',),
        ),
        (
            {"a": Nested1},
            {"a": Nested2},
            ("Field Thing.a was {a: integer} and is {a: integer, b: integer}.",),
        ),
        (
            {"a": list[Nested1]},
            {"a": list[Nested1] | None},
            ("Field Thing.a was array of {a: integer} and is array of {a: integer} | null.",),
        ),
    ],
)
def test_changed_fields_are_told_in_plain_words(then: Any, now: Any, expected: tuple[str, ...]):
    assert changes(one_event(**then), one_event(**now), THING) == expected


def test_a_change_within_what_is_too_long_to_read_is_seen():
    (told,) = changes(one_event(a=Wide), one_event(a=Wider), THING)
    assert told.startswith("Field Thing.a was object #")
    assert " and is object #" in told
    assert changes(one_event(a=Wide), one_event(a=Wide), THING) == ()


def test_a_changed_event_of_which_the_run_holds_nothing_is_no_difference():
    assert changes(one_event(a=str), one_event(a=int), f"{HERE}.Other") == ()


def test_a_change_of_the_state_is_told():
    def flow(**fields: Any) -> Workflow:
        return flow_of(
            Draft, state=type("Mine", (BaseModel,), {"__annotations__": fields, "__module__": HERE})
        )

    name = f"{HERE}.Mine"
    assert changes(flow(a=int), flow(a=str), name) == ("Field Mine.a was integer and is string.",)
    gone = changes(flow(a=int), flow_of(Draft, state=State), name)
    assert gone == (f"State type {name} is gone.",)


def steps_of(**accepted: type[Event] | tuple[type[Event], ...]) -> Fingerprint:
    """Return the fingerprint of code with these steps."""
    types: dict[str, dict[str, str]] = {}
    steps: dict[str, tuple[str, ...]] = {}
    for name, events in accepted.items():
        found = fingerprint_of(flow_of(*(events if isinstance(events, tuple) else (events,))))
        steps[name] = found.steps["work"]
        types |= found.types
    return Fingerprint(steps=steps, types=types)


class Begun(Event):
    pass


class Ended(Event):
    pass


class Offer(Event):
    price: float


def test_a_step_that_is_gone_is_told_with_what_it_may_be_called_now():
    then = steps_of(legal_gate=(Draft, HumanResponseEvent), end=Ended)
    now = steps_of(counsel_gate=(Draft, HumanResponseEvent), end=Ended, other=Begun)
    hint = "'counsel_gate' is new and accepts the same events"
    assert differences(then, now, occurring=set()) == (f"Step 'legal_gate' is gone; {hint}.",)
    now = steps_of(end=Ended, other=Begun)
    assert differences(then, now, occurring=set()) == ("Step 'legal_gate' is gone.",)
    # Of several the one with the name that is most alike.
    now = steps_of(final=Ended, legal=(Draft, HumanResponseEvent), a=(Draft, HumanResponseEvent))
    assert differences(then, now, occurring=set()) == (
        "Step 'legal_gate' is gone; 'legal' is new and accepts the same events.",
        "Step 'end' is gone; 'final' is new and accepts the same events.",
    )


def test_an_event_that_a_step_no_longer_accepts_is_told_and_one_more_is_not():
    then = steps_of(work=(Begun, Offer))
    now = steps_of(work=Begun, other=Offer)
    assert differences(then, now, occurring=set()) == (
        f"Step 'work' no longer accepts {HERE}.Offer.",
    )
    assert differences(now, steps_of(work=(Begun, Ended), other=Offer), occurring=set()) == ()


def test_an_event_that_is_gone_is_told_with_what_it_may_be_called_now():
    class Bid(Event):
        price: float

    class Moved(Event):
        price: float

    Moved.__name__, Moved.__module__ = "Offer", "elsewhere"
    then = steps_of(work=(Begun, Offer))
    occurring = {f"{HERE}.Offer"}
    assert differences(then, steps_of(work=(Begun, Bid)), occurring=occurring) == (
        f"Step 'work' accepts {HERE}.Bid in place of {HERE}.Offer.",
        f"Event type {HERE}.Offer is gone; {HERE}.Bid is new and has the same fields.",
    )
    assert differences(then, steps_of(work=(Begun, Bid, Moved)), occurring=occurring) == (
        f"Step 'work' accepts elsewhere.Offer in place of {HERE}.Offer.",
        f"Event type {HERE}.Offer is gone; elsewhere.Offer is new and has the same fields.",
    )
    assert differences(then, steps_of(work=Begun), occurring=occurring) == (
        f"Step 'work' no longer accepts {HERE}.Offer.",
        f"Event type {HERE}.Offer is gone.",
    )
    # Events without fields are all alike: nothing is guessed where there are several.
    now = steps_of(work=(Ended, type("Over", (Event,), {})))
    assert differences(steps_of(work=Begun), now, occurring=set()) == (
        f"Step 'work' no longer accepts {HERE}.Begun.",
    )


def test_an_event_that_was_moved_is_recognised_by_its_name_even_without_fields():
    moved = type("Begun", (Event,), {"__module__": "elsewhere"})
    now = steps_of(work=(Ended, moved, type("Begin", (Event,), {"__module__": HERE})))
    assert differences(steps_of(work=Begun), now, occurring=set()) == (
        f"Step 'work' accepts elsewhere.Begun in place of {HERE}.Begun.",
    )


def test_a_renamed_step_is_recognised_by_its_renamed_event():
    class Bid(Event):
        price: float

    then, now = steps_of(sell=Offer), steps_of(auction=Bid)
    assert differences(then, now, occurring=set()) == (
        "Step 'sell' is gone; 'auction' is new and accepts the same events.",
    )


# --------------------------------------------------------------------------- what occurs


class Ask(Event):
    pass


async def test_the_types_that_occur_in_a_run_are_found_wherever_they_are(start_here: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Ask | Offer | None:
            await ctx.store.set("items", [{"x": (Money(amount=1), Colour.RED)}, Line("x")])
            await ctx.store.set("typed", '{"qualified_name": "not.One"}')
            ctx.send_event(Ask(mark=Tree(name="x")))
            return Offer(price=1)

        @step
        async def ask(self, ctx: Context, ev: Ask) -> StopEvent:
            await ctx.wait_for_event(Begun, waiter_id="w")
            return StopEvent()

        @step
        async def gather(self, ctx: Context, ev: Offer) -> StopEvent | None:
            return None if ctx.collect_events(ev, [Offer, Ended]) is None else StopEvent()

    class Unchecked(Flow):
        def __init__(self) -> None:
            super().__init__(timeout=None, disable_validation=True)

    live = start_here(Unchecked)
    await live.pause()
    stored = context_to_dict(live.handler.ctx.to_dict, serializer_for(live.make()))
    names = {"Ask", "Offer", "Begun", "Money", "Colour", "Line", "Tree"}
    assert occurring_types(stored) == {f"{HERE}.{name}" for name in names}
    assert occurring_types(json.loads(json.dumps(stored))) == occurring_types(stored)
    assert occurring_types(live.handler.ctx.to_dict(serializer_for(live.make()))) == (
        occurring_types(stored)
    )


async def test_the_proposal_of_an_open_request_occurs(start_here: Start):
    live = start_here(revised())
    await live.open()
    stored = context_to_dict(live.handler.ctx.to_dict, serializer_for(live.make()))
    assert occurring_types(stored) == {"flows.Draft", "workflows.events.InputRequiredEvent"}


def test_text_that_people_wrote_names_no_type():
    text = '"qualified_name": "a.B"'
    event = InputRequiredEvent(prefix=text, other={text: text, "x": ["qualified_name", "a.B"]})
    stored = {
        "workers": {"a": {"queue": [{"event": serializer_for(flow_of(Draft)).serialize(event)}]}}
    }
    assert occurring_types(stored) == {"workflows.events.InputRequiredEvent"}
    key = {"x": json.dumps({'a "qualified_name': "a.B"})}
    assert occurring_types(key) == set()
    name = "modül.Größe"
    assert occurring_types({"x": [json.dumps({"qualified_name": name})]}) == {name}
