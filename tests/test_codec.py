"""Values come back as they were, or are refused before a run is paused; data chooses no class."""

import asyncio
import contextlib
import dataclasses
import enum
import gc
import json
import subprocess
import sys
import weakref
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import TextNode
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from strategies import json_values, thorough
from workflows import Context, Workflow, step
from workflows.context.serializers import JsonSerializer
from workflows.context.state_store import DictState
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    SerializableEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)

from llama_index_hitl._codec import (
    SnapshotSerializer,
    check_survives,
    serializer_for,
)
from llama_index_hitl._codec.pydantic_models import same
from llama_index_hitl.errors import SnapshotError, UnserializableState

T = TypeVar("T")

# --------------------------------------------------------------------------- classes to store


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Level(enum.IntEnum):
    LOW = 1


class Shape(enum.Enum):
    DOT = (0, 0)


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Line:
    name: str
    price: Decimal = Decimal(0)
    tags: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: Any = None


@dataclasses.dataclass
class Counted:
    made: int = 0

    def __post_init__(self) -> None:
        self.made += 1

    @cached_property
    def double(self) -> int:
        return self.made * 2


class Pair(NamedTuple):
    left: Any
    right: Any


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "somebody"


class Grams(int):
    pass


class Animal(BaseModel):
    name: str = "?"


class Dog(Animal):
    tricks: Any = ()


class Kennel(BaseModel):
    animals: list[Animal] = Field(default_factory=list)
    loose: Any = None
    by_id: dict[int, Animal] = Field(default_factory=dict)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    when: datetime
    amount: Decimal
    mood: Mood
    raw: bytes = b""

    @computed_field
    def shown(self) -> str:
        return f"{self.amount}"


class Aliased(BaseModel):
    inner: Any = Field(alias="Inner")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Numbers(RootModel[list[Any]]):
    pass


class Word(RootModel[str]):
    pass


class Doubled(BaseModel):
    a: int = 0

    def __init__(self, a: int = 0) -> None:
        super().__init__(a=a * 2)


class Bumped(BaseModel):
    a: int = 0

    @model_validator(mode="after")
    def bump(self) -> Self:
        self.a += 1
        return self


class Louder(BaseModel):
    a: str = ""

    @field_validator("a")
    @classmethod
    def shout(cls, value: str) -> str:
        return f"{value}!"


class Page(BaseModel):
    node: TextNode


class Offer(Event):
    text: str = ""
    amount: float | None = None
    count: int = 0
    when: datetime | None = None
    extra: Any = None
    parts: dict[str, Any] = Field(default_factory=dict)
    kennel: Kennel | None = None


class Nested(Event):
    inner: SerializableEvent
    others: list[SerializableEvent] = Field(default_factory=list)


class Hashed(BaseModel):
    word: Annotated[str, AfterValidator(lambda word: f"<{word}>")]


class Hidden(BaseModel):
    shown: int = 0
    key: str = "secret"
    handle: Any = Field(default=None, exclude=True)

    @field_serializer("key")
    def hide(self, value: str) -> str:
        return "***"


class Rounded(BaseModel):
    price: Annotated[Decimal, PlainSerializer(lambda value: str(round(value, 1)))]


class Short(BaseModel):
    left: int = 0
    right: Any = None

    @model_serializer
    def write(self) -> str:
        return f"{self.left}"

    @model_validator(mode="before")
    @classmethod
    def read(cls, data: Any) -> Any:
        return {"left": data} if isinstance(data, str) else data


class Partial(BaseModel):
    kept: Any = None
    left_out: Any = None

    @model_serializer
    def write(self) -> dict[str, Any]:
        return {"kept": self.kept}


class Private(BaseModel):
    a: int = 0
    _client: Any = PrivateAttr(default=None)


class OddZone(tzinfo):
    def utcoffset(self, when: Any) -> timedelta:
        return timedelta(0)


class Unknown(BaseModel):
    """Named by `UNKNOWN` only, which is no class."""


class UnknownEnum(enum.Enum):
    A = 1


@dataclasses.dataclass
class OddDataclass(ValueError):
    a: int


class Loaded(str):
    pass


UNNAMED = [Unknown(), UnknownEnum.A]
del Unknown, UnknownEnum


def loaded(word: str) -> Loaded:
    found = Loaded(word)
    found.more = 1
    return found


class Flow(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Offer | Nested:
        return Offer()

    @step
    async def end(self, ev: Offer | Nested) -> StopEvent:
        return StopEvent()


FLOW = Flow(timeout=None)
CODEC = serializer_for(FLOW, (Name, Grams))


def through(value: Any, codec: SnapshotSerializer = CODEC) -> Any:
    return codec.deserialize(codec.serialize(value))


def survives(value: Any, codec: SnapshotSerializer = CODEC) -> None:
    for form in (value, [value], {"key": (value,)}, Offer(extra=value), Offer(loose=[value])):
        again = through(form, codec)
        assert same(again, form), again
        strict = json.dumps(codec.serialize_value(form), allow_nan=False)
        assert same(codec.deserialize(strict), form)


def problems(value: Any, key: str = "state") -> list[str]:
    return [str(problem) for problem in CODEC.problems_in(value, key)]


# --------------------------------------------------------------------------- values

AN_INSTANT = datetime(2030, 1, 2, 3, 4, 5, 678901)  # noqa: DTZ001

VALUES = [
    None,
    True,
    0,
    -1,
    2**63,
    16**5000,
    -(16**5000),
    1.5,
    -0.0,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    "\0 \ud800 \U0001f600 日",
    AN_INSTANT,
    AN_INSTANT.replace(fold=1),
    AN_INSTANT.replace(tzinfo=UTC),
    AN_INSTANT.replace(tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    AN_INSTANT.replace(tzinfo=timezone(timedelta(seconds=1.5))),
    AN_INSTANT.replace(tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2030, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    date.min,
    time(23, 59, 59, 999999),
    time(1, tzinfo=UTC),
    time(1, tzinfo=ZoneInfo("Asia/Tokyo"), fold=1),
    timedelta.max,
    timedelta(days=-1, microseconds=1),
    Decimal("1.10"),
    Decimal("-0E-7"),
    Decimal("Infinity"),
    UUID(int=7),
    b"\xff\0",
    bytearray(b"x"),
    Path("a/b"),
    PurePosixPath("/x"),
    PureWindowsPath("C:\\x"),
    (),
    (1, (2, [3])),
    set(),
    {1, "a", (2, 3)},
    frozenset({frozenset({1}), b"x"}),
    {1: "a", (2, 3): "b", None: {True: 1}},
    Mood.GOOD,
    Level.LOW,
    Shape.DOT,
    Right.READ,
    Right.READ | Right.WRITE,
    Right(0),
    Line("x", Decimal("1.10"), {"a"}),
    Point(1, Point(2, {3})),
    Pair(1, [b"x"]),
    Name("erin"),
    Grams(5),
    Animal(name="x"),
    Dog(name="x", tricks=("sit", {1})),
    Kennel(animals=[Dog(name="a", tricks=1), Animal()], loose={"a": (1,)}, by_id={1: Dog()}),
    Strict(
        when=AN_INSTANT.replace(tzinfo=ZoneInfo("Asia/Tokyo")),
        amount=Decimal("1.10"),
        mood=Mood.BAD,
        raw=b"\xff",
    ),
    Strict(when=AN_INSTANT, amount=Decimal(1), mood=Mood.GOOD, raw=b"x"),
    Aliased(Inner=(1, 2)),
    Open(a=1, b=(2,)),
    Numbers([1, "a"]),
    Word("x"),
    Numbers([(1,)]),
    StartEvent(topic=("a",), text="b"),
    StopEvent(result={"a": {1}}),
    HumanResponseEvent(response=Decimal(1)),
    DictState(a=(1,)),
    Nested(inner=Offer(extra=(1,)), others=[Offer(when=AN_INSTANT), StartEvent(a={1})]),
    ChatMessage(content="hello", role="assistant"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_a_value_comes_back_equal_and_of_its_type_wherever_it_is(value: Any):
    survives(value)


def test_the_reader_of_what_pydantic_makes_of_an_offset_gets_the_same_instant():
    class When(BaseModel):
        at: datetime

    at = When.model_validate({"at": "2030-01-01T12:00:00+01:30"}).at
    again = through({"at": at})["at"]
    assert (again, again.utcoffset()) == (at, timedelta(hours=1, minutes=30))


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones()),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([Mood.GOOD, Level.LOW, Right.READ | Right.WRITE, Shape.DOT]),
    st.builds(PurePosixPath, st.sampled_from(["a", "/b/c", "."])),
)
hashables = st.recursive(
    leaves.filter(lambda value: value == value), lambda inner: st.tuples(inner, inner), max_leaves=3
)
reserved = st.sampled_from(["__hitl", "__is_pydantic", "__is_component", "qualified_name", "value"])
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(hashables, max_size=3),
        st.frozensets(hashables, max_size=3),
        st.dictionaries(st.text(max_size=5) | reserved, inner, max_size=3),
        st.dictionaries(hashables, inner, max_size=3),
        st.builds(Point, st.integers(), inner),
        st.builds(Pair, inner, inner),
        st.builds(Kennel, loose=inner, animals=st.lists(st.builds(Dog, tricks=inner), max_size=1)),
        st.builds(
            Offer,
            text=st.text(max_size=5),
            extra=inner,
            parts=st.dictionaries(reserved | st.text(max_size=3), inner, max_size=2),
            loose=inner,
        ),
        st.builds(lambda value: StartEvent(x=value, __hitl=value), inner),
    ),
    max_leaves=8,
)


@thorough
@given(values)
def test_nested_values_come_back_equal_and_of_their_types(value: Any):
    text = CODEC.serialize(value)
    again = CODEC.deserialize(text)
    assert same(again, value)
    assert same(CODEC.deserialize_value(json.loads(CODEC.serialize(again))), value)


@pytest.mark.parametrize(
    "data",
    [
        {"__hitl": "set", "value": [1]},
        {"__is_pydantic": True, "qualified_name": f"{__name__}.Dog", "value": {"name": "x"}},
        {"__is_component": True, "qualified_name": "os.path", "value": {}},
        {"a": [{"__hitl": "datetime", "value": "2030-01-01", "qualified_name": "x"}]},
    ],
)
def test_what_a_person_typed_stays_what_it_is_whatever_it_looks_like(data: Any):
    survives(data)
    survives([Animal(), data, Offer(extra=data), data])
    survives(Offer(extra=data, parts={"x": data}))
    survives(InputRequiredEvent(memory=data))


@thorough
@given(json_values)
def test_plain_json_is_written_as_upstream_does(value: Any):
    value = json.loads(json.dumps(value))
    if not any(key in json.dumps(value) for key in ("__hitl", "__is_")):
        assert CODEC.serialize(value) == JsonSerializer().serialize(value)


def test_a_plain_event_is_written_as_upstream_does():
    event = Offer(text="x", count=2, kennel=Kennel(animals=[Animal()]))
    assert CODEC.serialize(event) == JsonSerializer().serialize(event)


def test_what_upstream_wrote_is_read():
    event = Nested(inner=Offer(text="x", more="y"), others=[StartEvent(a=1)])
    upstream = JsonSerializer()
    assert CODEC.deserialize(upstream.serialize(event)) == event
    assert CODEC.deserialize(upstream.serialize({"a": [event]})) == {"a": [event]}


def test_text_is_read_as_it_is_written_however_it_is_escaped():
    assert CODEC.deserialize(r'{"\u005f_hitl": "set", "value": [1]}') in (
        {1},
        {"__hitl": "set", "value": [1]},
    )


# --------------------------------------------------------------------------- models


def test_what_an_author_hides_or_shortens_is_stored_as_they_wrote_it():
    hidden = Hidden(shown=1, handle=object())
    assert "secret" not in CODEC.serialize(hidden)
    assert through(hidden) == Hidden(shown=1, key="***")
    assert through(Rounded(price=Decimal("1.26"))).price == Decimal("1.3")
    assert through({"short": Short(left=3, right=object())}) == {"short": Short(left=3)}
    assert through(Partial(kept=(1,), left_out=object())) == Partial(kept=(1,))
    assert through(Offer(extra=Partial(kept={1}))).extra == Partial(kept={1})


def test_private_attributes_are_not_stored():
    private = Private(a=1)
    private._client = object()
    assert through(private) == Private(a=1)


def test_a_value_that_its_own_validators_would_change_is_refused():
    (problem,) = problems(Hashed(word="x"))
    assert problem == "state.word: '<x>' comes back as '<<x>>'"
    assert problems(Doubled(1)) == ["state.a: 2 comes back as 4"]
    assert problems(Bumped()) == ["state.a: 1 comes back as 2"]
    assert problems([Louder(a="x")]) == ["state[0].a: 'x!' comes back as 'x!!'"]


def test_a_number_may_become_what_its_annotation_says():
    offer = Offer()
    offer.amount = 3
    assert through(offer).amount == 3.0


def test_a_field_of_the_wrong_type_is_refused_with_its_name():
    offer = Offer(text="x")
    offer.count = "three"
    offer.when = [object()]
    assert problems(offer, "begin.Offer") == [
        "begin.Offer.when[0]: a value of type object cannot be stored"
    ]
    offer.when = None
    (problem,) = problems(offer, "begin.Offer")
    assert problem.startswith(
        "begin.Offer.count: 'three' does not fit: Input should be a valid int"
    )


def test_a_class_whose_code_raises_does_not_end_the_check():
    class Raising(BaseModel):
        a: int = 0

        @model_serializer
        def write(self) -> Any:
            raise KeyError("a")

    codec = serializer_for(FLOW, (Raising,))
    (problem,) = codec.problems_in({"x": Raising(), "y": 1}, "state")
    assert str(problem).startswith("state.x: Raising cannot be read from its JSON: ")


def test_a_component_of_llama_index_keeps_its_loose_values():
    codec = serializer_for(FLOW, (TextNode,))
    node = TextNode(text="x", metadata={"at": AN_INSTANT, "tags": ("a",)})
    again = through(node, codec)
    assert (type(again), again.metadata, again.node_id) == (TextNode, node.metadata, node.node_id)
    assert through(Page(node=node), codec).node.metadata == node.metadata


def test_what_is_done_when_a_dataclass_is_made_is_not_done_again():
    counted = Counted()
    assert counted.double == 2
    assert through(counted) == counted
    assert through(Point(1)).__slots__ == ("x", "y")


def test_a_field_that_was_added_to_a_dataclass_has_its_default():
    stored = CODEC.serialize_value(Line("x"))
    del stored["value"]["tags"], stored["value"]["price"]
    assert CODEC.deserialize_value(stored) == Line("x")
    del stored["value"]["name"]
    with pytest.raises(SnapshotError, match="no 'name' for Line"):
        CODEC.deserialize_value(stored)
    stored["value"] = {"name": "x", "colour": 1}
    with pytest.raises(SnapshotError, match="Line has no field colour"):
        CODEC.deserialize_value(stored)


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "a value of type object cannot be stored"),
        (len, "a value of type builtin_function_or_method cannot be stored"),
        (int, "a value of type type cannot be stored"),
        (1j, "a value of type complex cannot be stored"),
        (range(3), "a value of type range cannot be stored"),
        (ValueError("x"), "a value of type ValueError cannot be stored"),
        (asyncio.Lock(), "a value of type asyncio.locks.Lock cannot be stored"),
        (SecretStr("x"), "a value of type pydantic.types.SecretStr cannot be stored"),
        (defaultdict(list), "a value of type collections.defaultdict cannot be stored"),
        (OrderedDict(), "a value of type collections.OrderedDict cannot be stored"),
        (OddDataclass(1), f"a value of type {__name__}.OddDataclass cannot be stored"),
        (Loaded("x"), f"the code of the workflow does not name its class, {__name__}.Loaded"),
        (loaded("x"), f"a value of type {__name__}.Loaded cannot be stored"),
        (UNNAMED[0], f"the code of the workflow does not name its class, {__name__}.Unknown"),
        (UNNAMED[1], f"the code of the workflow does not name its class, {__name__}.UnknownEnum"),
        (
            AN_INSTANT.replace(tzinfo=OddZone()),
            "its time zone is of type OddZone; use datetime.timezone or zoneinfo",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_survive_is_refused_by_name(value: Any, message: str):
    assert problems(value) == [f"state: {message}"]
    assert problems({"client": {"session": [1, 2, value]}}) == [
        f"state.client.session[2]: {message}"
    ]
    assert problems({"a": ({value} if value.__hash__ else [value],)}) == [
        f"state.a[0][0]: {message}"
    ]
    assert problems(Offer(extra=[value], loose=Kennel(loose={"x y": value}))) == [
        f"state.extra[0]: {message}",
        f"state.loose.loose['x y']: {message}",
    ]
    assert problems(Line(name=value)) == [f"state.name: {message}"]
    assert problems({(1, 2): value}) == [f"state[(1, 2)]: {message}"]
    assert problems(StopEvent(result=value)) == [f"state.result: {message}"]


def test_every_problem_is_told_at_once():
    with pytest.raises(UnserializableState) as raised:
        CODEC.serialize({"a": object(), "b": 1, "c": [len, {2: object()}]})
    assert [problem.field for problem in raised.value.problems] == ["a", "c[0]", "c[1][2]"]
    with pytest.raises(UnserializableState, match=r"state\.client: a value of type object"):
        check_survives(CODEC, "state.client", object())
    check_survives(CODEC, "state.client", [1])


def test_attributes_that_a_dataclass_does_not_declare_are_refused():
    line = Line("x")
    line.more = 1
    assert problems(line) == [f"state.more: {__name__}.Line does not declare this field"]


def test_a_value_that_contains_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    assert problems(loop) == ["state: it is nested too deeply, or contains itself"]
    offer = Offer()
    offer.extra = {"offer": offer}
    (problem,) = problems(offer)
    assert problem.startswith("state")


# --------------------------------------------------------------------------- which classes


def test_classes_of_a_test_function_are_found_through_the_steps_that_use_them():
    class Local(enum.Enum):
        A = 1

    @dataclasses.dataclass
    class Note:
        mood: Local

    class Holder(BaseModel):
        note: Any = None

    class Mine(Flow):
        class Inner(enum.Enum):
            B = 2

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Offer | Nested:
            await ctx.store.set("note", Note(Local.A))
            return Offer(extra=Holder())

    codec = serializer_for(Mine())
    for value in (Local.A, Note(Local.A), Holder(note=Note(Local.A)), Mine.Inner.B):
        survives(value, codec)
    assert problems(Local.A)


def test_types_are_found_in_annotations_at_any_depth():
    class Deep(enum.Enum):
        A = 1

    @dataclasses.dataclass
    class Holder:
        deep: dict[str, Deep] | None = None

    class Box(BaseModel, Generic[T]):
        content: list[T]

    class Asked(Event):
        box: Box[tuple[Holder, ...]]
        loose: Any = None

    class State(BaseModel):
        pair: Annotated[Pair | None, Field(description="x")] = None

    class Typed(Workflow):
        @step
        async def begin(self, ctx: Context[State], ev: StartEvent) -> Asked: ...

        @step
        async def end(self, ev: Asked) -> StopEvent: ...

    codec = serializer_for(Typed())
    survives(State(pair=Pair(1, 2)), codec)
    holder = Holder({"x": Deep.A})
    survives(Asked(box=Box[tuple[Holder, ...]](content=[(holder,)]), loose=holder), codec)


def test_snapshot_types_and_types_add_classes():
    class First(BaseModel):
        a: int = 0

    class Second(First):
        b: int = 0

    class Listed(Flow):
        snapshot_types = (First,)

    flow = Listed()
    assert serializer_for(flow).problems_in(Second())
    survives(First(), serializer_for(flow))
    survives([First(), Second()], serializer_for(flow, [Second]))
    assert serializer_for(flow).problems_in(Second())
    survives([First(), Second()], serializer_for(flow).with_types(Second))
    with pytest.raises(TypeError, match="takes classes, not 'First'"):
        serializer_for(flow, ["First"])


def test_a_serializer_is_made_once_for_a_class_and_forgotten_with_it():
    class Brief(Flow):
        pass

    assert serializer_for(Brief()) is serializer_for(Brief())
    assert serializer_for(Brief(), [Name]) is serializer_for(Brief(), [Name])
    assert serializer_for(Brief()) is not serializer_for(FLOW)
    gone = weakref.ref(Brief)
    del Brief
    gc.collect()
    assert gone() is None


def test_of_two_classes_of_one_name_none_is_taken_for_the_other():
    def make(number: int) -> Any:
        class Same(BaseModel):
            kind: int = number

        return Same

    first, second = make(1), make(2)
    codec = serializer_for(FLOW, [first, second])
    assert codec.problems_in(first())
    assert codec.problems_in(second())
    with pytest.raises(SnapshotError, match="Several classes are called"):
        codec.resolve_class(f"{__name__}.Same")

    class Space:
        class Mood(enum.Enum):
            OTHER = 1

    # A nested class has a name of its own, behind which the shared one stands back.
    codec = serializer_for(FLOW, [Space.Mood, Mood])
    survives([Space.Mood.OTHER, Mood.GOOD], codec)


# --------------------------------------------------------------------------- hostile data


@pytest.mark.parametrize(
    "name", ["os.path", "builtins.eval", "subprocess.Popen", "", None, [1], f"{__name__}.Unlisted"]
)
@pytest.mark.parametrize(
    "form",
    ["__is_pydantic", "__is_component", "model", "enum", "dataclass", "memory", "subclass of str"],
)
def test_data_chooses_no_class(name: Any, form: str):
    mark = {form: True} if form.startswith("__") else {"__hitl": form}
    data = {**mark, "value": {}, "qualified_name": name}
    before = set(sys.modules)
    if form.startswith("__") and not name:
        assert CODEC.deserialize_value(data) == data  # it claims nothing
    else:
        with pytest.raises(SnapshotError):
            CODEC.deserialize(json.dumps(data))
    with pytest.raises(SnapshotError):
        CODEC.resolve_class(name)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "data",
    [
        {"__hitl": "eval", "value": "1"},
        {"__hitl": ["set"], "value": [1]},
        {"__hitl": None},
        {"__hitl": "set"},
        {"__hitl": "set", "value": "abc"},
        {"__hitl": "set", "value": [[1]]},
        {"__hitl": "tuple", "value": {"a": 1}},
        {"__hitl": "dict", "value": [[1]]},
        {"__hitl": "dict", "value": [[[1], 2]]},
        {"__hitl": "datetime", "value": 3},
        {"__hitl": "datetime", "value": "yesterday"},
        {"__hitl": "datetime", "value": "2030-01-01", "zone": "../../etc/passwd"},
        {"__hitl": "datetime", "value": "2030-01-01", "zone": "Mars/Base"},
        {"__hitl": "timedelta", "value": [1e400, 0, 0]},
        {"__hitl": "timedelta", "value": [10**12, 0, 0]},
        {"__hitl": "timedelta", "value": [1]},
        {"__hitl": "decimal", "value": "one"},
        {"__hitl": "uuid", "value": "x"},
        {"__hitl": "bytes", "value": "%%"},
        {"__hitl": "float", "value": "1.5"},
        {"__hitl": "int", "value": "zz"},
        {"__hitl": "path", "value": True},
        {"__hitl": "enum", "qualified_name": f"{__name__}.Mood", "value": "__class__"},
        {"__hitl": "enum", "qualified_name": f"{__name__}.Mood", "value": ["GOOD"]},
        {"__hitl": "enum", "qualified_name": f"{__name__}.Right", "value": 1e9},
        {"__hitl": "enum", "qualified_name": f"{__name__}.Line", "value": "GOOD"},
        {"__hitl": "dataclass", "qualified_name": f"{__name__}.Dog", "value": {}},
        {"__hitl": "dataclass", "qualified_name": f"{__name__}.Line", "value": ["x"]},
        {"__hitl": "dataclass", "qualified_name": f"{__name__}.Line", "value": {"__class__": 1}},
        {"__hitl": "named tuple", "qualified_name": f"{__name__}.Pair", "value": [1]},
        {"__hitl": "named tuple", "qualified_name": f"{__name__}.Line", "value": [1, 2]},
        {"__hitl": "model", "qualified_name": f"{__name__}.Line", "value": {"name": "x"}},
        {"__hitl": "model", "qualified_name": f"{__name__}.Kennel", "value": {"animals": 3}},
        {"__hitl": "model", "qualified_name": f"{__name__}.Kennel", "value": "x"},
        {"__hitl": "subclass of str", "qualified_name": f"{__name__}.Name", "value": 3},
        {"__hitl": "subclass of int", "qualified_name": f"{__name__}.Name", "value": 3},
        {"__hitl": "subclass of int", "qualified_name": f"{__name__}.Level", "value": 3},
        {"__hitl": "memory", "qualified_name": f"{__name__}.Dog", "value": {}},
        {"__is_pydantic": True, "qualified_name": f"{__name__}.Offer", "value": {"count": "x"}},
        {"__is_pydantic": True, "qualified_name": f"{__name__}.Offer"},
    ],
    ids=lambda data: json.dumps(data).replace(__name__, "")[:60],
)
def test_what_was_never_written_is_an_error_and_nothing_else(data: Any):
    for form in (data, [data], {"a": {"b": data}}):
        with pytest.raises(SnapshotError):
            CODEC.deserialize(json.dumps(form))


@pytest.mark.parametrize(
    ("kind", "name"), [("model", "Line"), ("enum", "Line"), ("memory", "Line"), ("enum", "Dog")]
)
def test_a_class_is_not_taken_for_what_it_is_not(kind: str, name: str):
    data = {"__hitl": kind, "qualified_name": f"{__name__}.{name}", "value": {}}
    with pytest.raises(SnapshotError, match=f"{name} is stored as '{kind}', and is none"):
        CODEC.deserialize_value(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nothing",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"__hitl": "tuple", "value": [' * 400 + "]}" * 400,
        "9" * 10_000,
        None,
    ],
    ids=lambda text: str(text)[:12],
)
def test_text_that_is_no_snapshot_is_an_error_and_nothing_else(text: Any):
    with pytest.raises(SnapshotError):
        CODEC.deserialize(text)


fragments = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=4)
    | st.sampled_from([f"{__name__}.Offer", f"{__name__}.Line", f"{__name__}.Mood", "GOOD"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        | st.fixed_dictionaries(
            {
                "__hitl": st.sampled_from(
                    [
                        "set",
                        "dict",
                        "tuple",
                        "enum",
                        "model",
                        "dataclass",
                        "datetime",
                        "int",
                        "memory",
                    ]
                )
            },
            optional={"value": inner, "qualified_name": inner, "zone": inner},
        )
    ),
    max_leaves=10,
)


@thorough
@given(fragments)
def test_any_data_is_read_or_refused(data: Any):
    with contextlib.suppress(SnapshotError):
        CODEC.deserialize_value(data)


def test_an_exception_comes_back_if_the_code_names_it():
    failed = StepFailedEvent(
        step_name="a",
        input_event=Offer(extra=(1,)),
        exception=OddDataclass(1),
        attempts=1,
        elapsed_seconds=1.0,
        failed_at=AN_INSTANT,
    )
    again = through(failed)
    assert type(again.exception) is OddDataclass
    assert again.input_event == failed.input_event


def test_the_codec_does_not_import_llama_index_core():
    code = (
        "import sys, llama_index_hitl._codec as codec\n"
        "from llama_index_hitl._demo import *\n"
        "from workflows import Workflow, step\n"
        "from workflows.events import StartEvent, StopEvent\n"
        "class Flow(Workflow):\n"
        "    @step\n"
        "    async def a(self, ev: StartEvent) -> StopEvent: ...\n"
        "s = codec.serializer_for(Flow())\n"
        "s.deserialize(s.serialize({'a': (1, StartEvent(a=object))}) if 0 else s.serialize([()]))\n"
        "print('llama_index.core' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
