"""Actions that a model proposes: what they are, which need a person, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter, create_model

from llama_index_hitl.errors import GateError, HitlError
from llama_index_hitl.models import JsonObject
from llama_index_hitl.prebuilt._base import one_line

CLAIM = "requires_confirmation"
"""Field by which a model without `confirmation()` says that an action must be confirmed."""


class Action(BaseModel):
    """Base for the kinds of action that a language model may propose.

    Which actions a person must confirm is for code to say, in `confirmation`. The language model
    cannot: a method is no field that it could fill.
    """

    def confirmation(self) -> str | None:
        """Return why a person must confirm this; None: nobody has to.

        Must depend on the values of the action alone. If it raises, a person is asked.

        Example:
            >>> from typing import Literal
            >>> class Transfer(Action):
            ...     kind: Literal["transfer"] = "transfer"
            ...     amount: int
            ...     recipient: str
            ...
            ...     def confirmation(self) -> str | None:
            ...         return "above the limit of 100" if self.amount > 100 else None
            >>> Transfer(amount=500, recipient="Alice").confirmation()
            'above the limit of 100'
        """
        return None

    def summary(self) -> str:
        """Return the action in a few words, for people."""
        return _words_of(self)


class PlanError(HitlError, ValueError):
    """A plan cannot be carried out: too many actions, or one that is not valid.

    Example:
        >>> class Once(ActionPlan):
        ...     max_actions = 1
        ...
        ...     async def plan(self, request):
        ...         return [Action(), Action()]
        ...
        ...     async def execute(self, action, effect_key): ...
        >>> async def main():
        ...     return await Once().run(request="Do it twice.")
        >>> asyncio.run(main())
        Traceback (most recent call last):
            ...
        llama_index_hitl.prebuilt._actions.PlanError: The plan has 2 actions, and may have 1.
        Ask for less at a time, or raise `max_actions`.
    """


def confirmation_of(action: BaseModel) -> str | None:
    """Return why a person must confirm an action; None: nobody has to.

    Code decides. What the language model wrote into a field `requires_confirmation` is set to
    false before the action's own validators judge it, so it can only ask for a confirmation.
    """
    try:
        said = type(action).confirmation(action) if isinstance(action, Action) else None
        if said is not None:
            return one_line(str(said)) or "its own code says so"
        return "its own validator says so" if _flagged(action) else None
    except Exception as error:  # noqa: BLE001 - whatever it is, a person decides then
        return one_line(f"whether it needs one is not known: {type(error).__name__}: {error}")


def _flagged(action: BaseModel) -> bool:
    if getattr(action, CLAIM, False):
        return True
    if CLAIM not in type(action).model_fields:
        return False
    judged = type(action).model_validate({**action.model_dump(), CLAIM: False})
    return bool(getattr(judged, CLAIM))


def summary_of(action: BaseModel) -> str:
    """Return an action in words, on one line: no value of it can look like a line of its own."""
    return one_line(action.summary() if isinstance(action, Action) else _words_of(action))


def _words_of(action: BaseModel) -> str:
    kind = type(action)
    # What tells the kinds of action apart says no more than the name of the model.
    constant = {n for n, f in kind.model_fields.items() if len(_literals(f.annotation)) == 1}
    values = action.model_dump(mode="json", exclude={CLAIM, *constant}, exclude_none=True)
    shown = ", ".join(f"{name}={value}" for name, value in values.items())
    return f"{kind.__name__}: {shown}" if shown else kind.__name__


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


# --------------------------------------------------------------------------- the kinds of action


def models_in(kind: Any) -> tuple[type[BaseModel], ...]:
    """Return the models that an action type, perhaps a union, is made of.

    Raises:
        GateError: It is not made of pydantic models, or one of them lets the language model fill
            what code must say.
    """
    found = tuple(_members(kind))
    for model in found:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise GateError(f"action= takes pydantic models, or a union of them, not {model!r}.")
        if "confirmation" in model.model_fields:
            raise GateError(
                f"{model.__name__}.confirmation is a field, which the model could fill; make it a "
                "method."
            )
    return found


def _members(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif arguments := get_args(kind):
        for member in arguments:
            yield from _members(member)
    else:
        yield kind


def _told_apart(kind: Any, models: Sequence[type[BaseModel]]) -> Any:
    """Return an action type in which no action can be taken for one of another kind.

    Without this pydantic takes what fits: an invalid transfer may fit what has no fields at all.

    Raises:
        GateError: The models have no literal field in common.
    """
    if len(models) == 1 or get_origin(kind) is Annotated:
        return kind
    tags = [
        {name for name, field in model.model_fields.items() if _literals(field.annotation)}
        for model in models
    ]
    common = sorted(set.intersection(*tags))
    if not common:
        raise GateError(
            "The models of a union of actions must have a field in common that tells them apart, "
            f"such as kind: Literal['transfer']: {', '.join(model.__name__ for model in models)}."
        )
    return Annotated[Union[tuple(models)], Field(discriminator=common[0])]  # noqa: UP007


class _Asked(BaseModel):
    """What the language model is asked for."""

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """Return the schema in the dialect that structured outputs take."""
        plain: dict[str, Any] = _plain(super().model_json_schema(*args, **options))
        return plain


_REFUSED_BY_OPENAI = ("default", "discriminator", "pattern")


def _plain(schema: Any) -> Any:
    """Return a schema without what OpenAI refuses; what comes back is checked by the model."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {}
    for name, value in schema.items():
        if name in ("properties", "$defs"):
            plain[name] = {key: _plain(item) for key, item in value.items()}
        elif name not in _REFUSED_BY_OPENAI:
            plain["anyOf" if name == "oneOf" else name] = _plain(value)
    return plain


class ActionKinds:
    """The action type of one workflow, and the models made of it.

    Args:
        kind: A pydantic model, or a union of several.
        limit: How many actions a plan may have.

    Raises:
        GateError: It cannot be the type of actions.
    """

    def __init__(self, kind: Any, limit: int) -> None:
        self.type = _told_apart(kind, models_in(kind))
        self.adapter: TypeAdapter[Any] = TypeAdapter(self.type)
        self.limit = limit
        self.asked: type[BaseModel] = create_model(
            "Plan",
            __base__=_Asked,
            __doc__="The actions to take.",
            actions=(
                list[self.type],  # type: ignore[name-defined]
                Field(
                    max_length=limit,
                    description="In the order in which to take them; empty: nothing is to be done.",
                ),
            ),
        )

    def read(self, data: JsonObject) -> BaseModel:
        """Return an action made of JSON, judged by its own validators.

        Raises:
            pydantic.ValidationError: It is not valid.
        """
        action: BaseModel = self.adapter.validate_python(data)
        return action

    def checked(self, actions: Sequence[BaseModel]) -> list[JsonObject]:
        """Return actions as JSON.

        Raises:
            PlanError: There are too many, or one is not valid or changes on the way.
        """
        if len(actions) > self.limit:
            raise PlanError(
                f"The plan has {len(actions)} actions, and may have {self.limit}. Ask for less at "
                "a time, or raise `max_actions`."
            )
        return [self._checked(number, action) for number, action in enumerate(actions, start=1)]

    def _checked(self, number: int, action: BaseModel) -> JsonObject:
        try:
            data: JsonObject = action.model_dump(mode="json")
            json.dumps(data, allow_nan=False)
            kept = self.read(data) == action
        except (ValueError, AttributeError) as error:
            raise PlanError(f"Action {number} of the plan is not valid: {error}") from error
        if not kept:
            raise PlanError(f"Action {number} of the plan changes when it is written as JSON.")
        return data
