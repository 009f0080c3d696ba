"""Fields of a request, and the one parser from raw input to an answer, for every front end.

A front end shows `decisions_of(request)` and, for the decision a person picks, `fields_of(...)`.
What they type goes into `parse_answer`, and comes out as an `Answer` or as an `InvalidAnswer` that
says which field is wrong and why. Nothing here guesses: a decision is one exact word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from pydantic import JsonValue, TypeAdapter, ValidationError

from llama_index_hitl.errors import FieldProblem, InvalidAnswer
from llama_index_hitl.grants import numbers_in, problems_of_terms
from llama_index_hitl.models import (
    Answer,
    Approve,
    Decision,
    DecisionKind,
    Edit,
    GrantTerms,
    JsonObject,
    Respond,
    Reviewer,
    ReviewRequest,
    Subject,
    Value,
)

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError as SchemaProblem

Widget: TypeAlias = Literal[
    "text", "textarea", "markdown", "code", "integer", "number", "boolean", "choice", "json"
]
"""How to ask for the value of a field."""

_DECISIONS: TypeAdapter[Any] = TypeAdapter(Decision)
_MESSAGE_LIMIT = 300  # characters of a message shown to people: an instance may be huge

LABELS: Mapping[DecisionKind, str] = {
    DecisionKind.APPROVE: "Approve",
    DecisionKind.REJECT: "Reject",
    DecisionKind.REVISE: "Send back with feedback",
    DecisionKind.EDIT: "Edit and approve",
    DecisionKind.RESPOND: "Respond",
    DecisionKind.ESCALATE: "Escalate",
    DecisionKind.DELEGATE: "Delegate to somebody else",
    DecisionKind.ABSTAIN: "Abstain",
}
"""What each decision is called in front of people."""


class FormField(Value):
    """One thing to type.

    Attributes:
        name: Key in the raw input, such as `feedback` or `subject.amount`.
        label: What it is called.
        widget: How to ask for it; `choice` has `choices`, `json` takes JSON text.
        required: Whether it must be given.
        choices: The allowed values of a `choice`.
        value: The present value, to start an edit from; never a decision.
        help: One line of explanation.
        language: Programming language of a `code` field.

    Example:
        >>> request = ReviewRequest(
        ...     request_id="r-1", title="Go?", allowed=["approve", "revise"], created_at=utc_now()
        ... )
        >>> field = fields_of(request, DecisionKind.REVISE)[0]
        >>> field.name, field.widget, field.required
        ('feedback', 'textarea', True)
    """

    name: str
    label: str
    widget: Widget = "text"
    required: bool = False
    choices: tuple[JsonValue, ...] = ()
    value: JsonValue = None
    help: str = ""
    language: str | None = None


def decisions_of(request: ReviewRequest) -> tuple[DecisionKind, ...]:
    """Return the decisions that a request allows, in the order in which to offer them.

    Args:
        request: The request.

    Example:
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> [LABELS[kind] for kind in decisions_of(request)]
        ['Approve', 'Reject']
    """
    return tuple(kind for kind in DecisionKind if kind in request.allowed)


def fields_of(request: ReviewRequest, kind: DecisionKind) -> tuple[FormField, ...]:
    """Return what has to be typed for one kind of decision.

    Args:
        request: The request to answer.
        kind: The decision that the person picked.

    Returns:
        The fields in order; a comment comes last and is never required. Those of an approval, on
        a request that offers a standing one, are `grant_fields_of(request)`, none of them required.

    Example:
        >>> subject = {"type": "Pay", "data": {"amount": 40, "to": "Ann"}}
        >>> request = ReviewRequest(
        ...     request_id="r-1",
        ...     title="Pay?",
        ...     subject=subject,
        ...     allowed=["approve", "edit"],
        ...     created_at=utc_now(),
        ... )
        >>> [field.name for field in fields_of(request, DecisionKind.EDIT)]
        ['subject.amount', 'subject.to', 'comment']
    """
    comment = FormField(name="comment", label="Comment", widget="textarea", help="For the record.")
    match kind:
        case DecisionKind.APPROVE:
            own = list(grant_fields_of(request))
        case DecisionKind.REVISE:
            own = [FormField(name="feedback", label="Feedback", widget="textarea", required=True)]
        case DecisionKind.EDIT if request.subject is not None:
            subject = request.subject
            own = list(fields_of_schema(subject.json_schema, prefix="subject", data=subject.data))
        case DecisionKind.RESPOND:
            own = _response_fields(request.response_schema or {})
        case DecisionKind.ESCALATE:
            names = ", ".join(request.escalate_to)
            own = [FormField(name="to", label="Escalate to", help=f"Empty: all of {names}")]
        case DecisionKind.DELEGATE:
            own = [FormField(name="to", label="Delegate to", required=True, help="A person's id.")]
        case _:
            own = []
    return (*own, comment)


def grant_fields_of(request: ReviewRequest) -> tuple[FormField, ...]:
    """Return what has to be typed to let calls like this happen without asking; often nothing.

    Only what is typed grants anything: the first field says what, and no other one counts
    without it.

    Args:
        request: The request.

    Example:
        >>> request = ReviewRequest(
        ...     request_id="r-1",
        ...     title="Pay?",
        ...     grantable={"tool": "pay", "version": "3f1a"},
        ...     created_at=utc_now(),
        ... )
        >>> [field.name for field in grant_fields_of(request)]
        ['grant.arguments', 'grant.until', 'grant.uses']
    """
    offer = request.grantable
    if offer is None or not request.policy.single:
        return ()
    who = f" by {offer.agent}" if offer.agent else ""
    numbers = () if request.subject is None else tuple(numbers_in(request.subject.data))
    limits = (
        FormField(name=f"grant.{name}.{path}", label=f"{path}, at most {words}")
        for path in numbers
        for name, words in (("at_most", "each time"), ("in_total", "in total"))
    )
    return (
        FormField(
            name="grant.arguments",
            label="Without asking, from now on",
            widget="choice",
            choices=("any", "same"),
            help=f"Calls of {offer.tool}{who}: any, or with the same arguments only. Empty: none.",
        ),
        FormField(
            name="grant.until", label="Until", help="Such as 2026-03-06T18:00+01:00. Empty: no end."
        ),
        FormField(
            name="grant.uses",
            label="So many times",
            widget="integer",
            help="From 1. Empty: any number.",
        ),
        *limits,
    )


def fields_of_schema(
    schema: JsonObject, *, prefix: str = "", data: JsonObject | None = None
) -> tuple[FormField, ...]:
    """Return what has to be typed for an object of some JSON schema, one field for each property.

    Args:
        schema: The schema; without properties there are no fields, unless `data` has some.
        prefix: What the names of the fields begin with, before a dot.
        data: The present values, to start from; those that the schema does not know come last.

    Example:
        >>> from pydantic import BaseModel
        >>> class Pay(BaseModel):
        ...     to: str
        ...     amount: float
        >>> [(field.name, field.widget) for field in fields_of_schema(Pay.model_json_schema())]
        [('to', 'text'), ('amount', 'number')]
    """
    data = data or {}
    properties = cast("Mapping[str, JsonObject]", schema.get("properties") or {})
    required = cast("list[str]", schema.get("required") or [])
    known = (
        _field(_path(prefix, name), name, sub, schema, data.get(name), required=name in required)
        for name, sub in properties.items()
    )
    extra = (
        _field(_path(prefix, name), name, {}, schema, data[name])
        for name in data
        if name not in properties
    )
    return (*known, *extra)


def _response_fields(schema: JsonObject) -> list[FormField]:
    if schema.get("type") == "object" and schema.get("properties"):
        return list(fields_of_schema(schema, prefix="response"))
    return [_field("response", "Response", schema, schema, None, required=True)]


def _path(*parts: object) -> str:
    return ".".join(str(part) for part in parts if part != "")


def _field(
    name: str,
    label: str,
    schema: JsonObject,
    root: JsonObject,
    value: JsonValue,
    *,
    required: bool = False,
) -> FormField:
    flat = _resolved(schema, root)
    widget, choices = _widget(flat, value)
    return FormField(
        name=name,
        label=str(flat.get("title") or label.replace("_", " ").capitalize()),
        widget=widget,
        required=required,
        choices=choices,
        value=value if value is not None else flat.get("default"),
        help=str(flat.get("description") or ""),
        language=cast("str | None", flat.get("language")),
    )


def _resolved(schema: JsonObject, root: JsonObject) -> JsonObject:
    """Follow a local `$ref` and look through `anyOf [X, null]`; the outer keywords win."""
    flat: JsonObject = dict(schema)
    reference = flat.pop("$ref", None)
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        definitions = cast("Mapping[str, JsonObject]", root.get("$defs") or {})
        target = definitions.get(reference.removeprefix("#/$defs/"), {})
        if target is not schema:
            # The title of what it leads to is the name of a class, not that of this field.
            flat = {**_without(_resolved(target, root), "title"), **flat}
    options = flat.get("anyOf")
    if isinstance(options, list):
        real = [o for o in options if isinstance(o, dict) and o.get("type") != "null"]
        if len(real) == 1:
            rest = _without(flat, "anyOf")
            flat = {**_resolved(real[0], root), **rest, "nullable": len(real) < len(options)}
    return flat


def _without(schema: JsonObject, key: str) -> JsonObject:
    return {name: value for name, value in schema.items() if name != key}


def _widget(flat: JsonObject, value: JsonValue) -> tuple[Widget, tuple[JsonValue, ...]]:
    if isinstance(choices := flat.get("enum"), list):
        return "choice", tuple(choices)
    if "const" in flat:
        return "choice", (flat["const"],)
    if (hint := flat.get("format")) in ("textarea", "markdown", "code"):
        return cast("Widget", hint), ()
    kind = flat.get("type")
    if kind is None and isinstance(value, str):
        kind = "string"
    if kind == "string":
        return ("textarea" if isinstance(value, str) and "\n" in value else "text"), ()
    if kind in ("integer", "number", "boolean"):
        return cast("Widget", kind), ()
    return "json", ()


# --------------------------------------------------------------------------- parsing


def parse_answer(
    request: ReviewRequest,
    raw: str | Mapping[str, Any],
    *,
    by: Reviewer,
    at: datetime,
    channel: str = "api",
    role: str | None = None,
    shown: Subject | None = None,
) -> Answer:
    """Turn what somebody typed into an answer to this request.

    Text is one decision word, exactly, optionally with a colon and words after it: `approve`,
    `reject: too expensive`, `revise: shorter, please`. Nothing else is understood as a decision:
    not an empty line, not "yes", not "approved", not prose. Text that begins with a brace is read
    as JSON.

    A mapping has `decision` and the fields of `fields_of`, as `subject.amount` or nested; values
    may be strings, as forms send them. Fields of an edit that are left out keep their values.

    Args:
        request: The request to answer.
        raw: What was typed.
        by: Who typed it, as the channel's sign-in knows them.
        at: When, time zone included.
        channel: Where.
        role: In which role, where it matters.
        shown: The subject as this person saw it, where some of its values were hidden from them:
            an edit keeps those, and may not change them. None: they saw it as it is.

    Returns:
        The answer, its content checked against the request's schemas.

    Raises:
        InvalidAnswer: With every problem found, field by field.

    Example:
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> answer = parse_answer(request, "reject: too long", by=Reviewer(id="erin"), at=utc_now())
        >>> answer.decision
        Reject(comment='too long', kind='reject')
    """
    form = _from_text(request, raw) if isinstance(raw, str) else dict(raw)
    kind = _kind(request, form)
    if kind is DecisionKind.APPROVE:
        form = _with_grant(request, form)
    data = _decision_data(request, kind, form, shown)
    try:
        decision = _DECISIONS.validate_python({**data, "kind": kind.value})
        answer = Answer(
            request_id=request.request_id,
            digest=request.digest,
            decision=decision,
            by=by,
            role=role,
            channel=channel,
            at=at,
        )
    except ValidationError as error:
        raise InvalidAnswer(request.request_id, problems_of(error, strip=(kind.value,))) from None
    if shown is not None and not isinstance(answer.decision, Edit):
        # A limit on what is hidden, taken or refused, would tell how large it is.
        request = request.model_copy(update={"subject": shown})
    check_decision(request, answer.decision, at=at)
    return answer


def problems_of(
    error: ValidationError, *, prefix: str = "", strip: Iterable[str] = ()
) -> list[FieldProblem]:
    """Return what a pydantic error found, field by field, in short words.

    Args:
        error: What pydantic raised.
        prefix: What the names of the fields begin with, before a dot.
        strip: Parts of pydantic's own paths to leave out, such as names of the types of a union.

    Example:
        >>> from pydantic import BaseModel, ValidationError
        >>> class Pay(BaseModel):
        ...     amount: float
        >>> try:
        ...     Pay(amount="a lot")
        ... except ValidationError as error:
        ...     print(*problems_of(error, prefix="subject"))
        subject.amount: Input should be a valid number, unable to parse string as a number
    """
    dropped = set(strip)
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        parts = [prefix, *(str(part) for part in item["loc"] if part not in dropped)]
        path = ".".join(part for part in parts if part)
        found.append(FieldProblem(path, item["msg"][:_MESSAGE_LIMIT]))
    return found


def _from_text(request: ReviewRequest, raw: str) -> dict[str, Any]:
    text = raw.strip()
    if text.startswith("{"):
        try:
            loaded = json_in(text)
        except (ValueError, RecursionError) as error:
            problem = FieldProblem("", f"this is not JSON: {error}")
            raise InvalidAnswer(request.request_id, [problem]) from None
        return cast("dict[str, Any]", loaded)
    word, colon, rest = text.partition(":")
    form = {"decision": word.strip().lower()}
    if colon and rest.strip():
        form[_TEXT_FIELD.get(form["decision"], "comment")] = rest.strip()
    return form


def json_in(text: str) -> JsonValue:
    """Return what a JSON text holds.

    Args:
        text: The text.

    Raises:
        ValueError: It is no JSON, or says two things about one field, of which the last would win.
        RecursionError: It is nested too deeply.

    Example:
        >>> json_in('{"amount": 40, "amount": 4000}')
        Traceback (most recent call last):
            ...
        ValueError: 'amount' is there twice
    """
    return cast(
        "JsonValue",
        json.loads(text, object_pairs_hook=_each_once, parse_constant=_refuse_constant),
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:60]!r} is there twice")
        found[name] = value
    return found


_TEXT_FIELD: Mapping[str, str] = {"revise": "feedback", "delegate": "to", "respond": "response"}


def _kind(request: ReviewRequest, form: dict[str, Any]) -> DecisionKind:
    given = form.get("decision")
    if isinstance(given, Mapping):  # a whole decision, as its schema has it
        form.update(given)
        given = form.pop("kind", None)
    form.pop("decision", None)
    allowed = ", ".join(decisions_of(request))
    if given is None or given == "":
        problem = f"say one of: {allowed}"
    elif given not in request.allowed:
        problem = f"{str(given)[:60]!r} is not one of: {allowed}"
    elif "kind" in form:
        problem = "there are two decisions; give one"
    else:
        return DecisionKind(given)
    raise InvalidAnswer(request.request_id, [FieldProblem("decision", problem)])


def _decision_data(
    request: ReviewRequest, kind: DecisionKind, form: Mapping[str, Any], shown: Subject | None
) -> dict[str, Any]:
    """Collect the fields of one decision; strings become what the schema asks for."""
    data: dict[str, Any] = {}
    problems: list[FieldProblem] = []
    fields = {field.name: field for field in fields_of(request, kind)}
    target = {DecisionKind.EDIT: "subject", DecisionKind.RESPOND: "response"}.get(kind)
    collected: JsonObject = {}
    masks: Mapping[str, _Mask] = {}
    if kind is DecisionKind.EDIT and request.subject is not None:
        collected.update(request.subject.data)
        masks = {} if shown is None else _masks(request.subject, shown)
    for name, value in _flattened(form, target):
        field = fields.get(name)
        try:
            parsed = _read(value, field, masks.get(name))
        except ValueError as error:
            problems.append(FieldProblem(name, str(error)))
            continue
        if target is not None and name.startswith(f"{target}."):
            if value == "" and field is not None and not field.required and parsed is None:
                continue  # an empty optional input of a form: as if it were not there
            collected[name.removeprefix(f"{target}.")] = parsed
        elif name == "comment" and not value:
            continue
        else:
            data[name] = parsed
    if problems:
        raise InvalidAnswer(request.request_id, problems)
    if kind is DecisionKind.ESCALATE and isinstance(data.get("to"), str):
        data["to"] = [part.strip() for part in data["to"].split(",") if part.strip()]
    given = kind is DecisionKind.EDIT or target in form
    if target is not None and target not in data and (collected or given):
        data[target] = collected
    return data


_Mask: TypeAlias = tuple[JsonValue, JsonValue]
"""A value as somebody saw it, with a part of it hidden, and as it is."""


def _masks(stored: Subject, shown: Subject) -> dict[str, _Mask]:
    return {
        f"subject.{name}": (shown.data.get(name), value)
        for name, value in stored.data.items()
        if shown.data.get(name) != value
    }


def _read(value: Any, field: FormField | None, mask: _Mask | None) -> Any:
    """Read one value that was typed, and put back what was hidden from whoever typed it."""
    if mask is None:
        return _coerced(value, field)
    shown, stored = mask
    return stored if value == shown else _unmasked(_coerced(value, field), shown, stored)


def _unmasked(edited: JsonValue, shown: JsonValue, stored: JsonValue) -> JsonValue:
    """Return an edited value with the parts that its editor could not see as they are stored.

    Raises:
        ValueError: They would be changed. What is in a list has no name to know it by, so a list
            with hidden parts must be left as it is.
    """
    if shown == stored:
        return edited
    if edited == shown:
        return stored
    if isinstance(edited, dict) and isinstance(shown, dict) and isinstance(stored, dict):
        hidden = {
            name: _unmasked(edited.get(name, shown.get(name)), shown.get(name), value)
            for name, value in stored.items()
            if shown.get(name) != value
        }
        return {**edited, **hidden}
    raise ValueError("a part of this is hidden from you: leave it as it is")


def _with_grant(request: ReviewRequest, form: Mapping[str, Any]) -> dict[str, Any]:
    """Put together the terms of a standing approval; what nobody asked for is not given."""
    nested = form.get("grant")
    rest = {name: value for name, value in form.items() if not str(name).startswith("grant.")}
    given = {**nested} if isinstance(nested, Mapping) else {}
    given |= {n.removeprefix("grant."): v for n, v in form.items() if n not in rest}
    terms: dict[str, Any] = {}
    for name, value in given.items():
        limits, _, path = name.partition(".")
        if value in (None, ""):
            continue  # an empty input of a form
        if path:
            known = terms.get(limits)
            terms[limits] = {**(known if isinstance(known, Mapping) else {}), path: value}
        else:
            terms[name] = value
    if not terms and not isinstance(nested, Mapping):
        return rest
    if "arguments" not in terms:
        problem = FieldProblem("grant.arguments", "say any or same, or leave out the other terms")
        raise InvalidAnswer(request.request_id, [problem])
    return {**rest, "grant": terms}


def _flattened(form: Mapping[str, Any], target: str | None) -> Iterable[tuple[str, Any]]:
    for name, value in form.items():
        if name == target and isinstance(value, Mapping):
            yield from ((f"{target}.{key}", item) for key, item in value.items())
        else:
            yield str(name), value


_BOOLEANS = {
    "true": True,
    "on": True,
    "1": True,
    "false": False,
    "off": False,
    "0": False,
}


def _coerced(value: Any, field: FormField | None) -> Any:
    """Read a string as the field's type says; anything but a string is taken as it is."""
    if field is None or not isinstance(value, str):
        return value
    text = value.strip()
    if field.widget in ("text", "textarea", "markdown", "code"):
        return value
    if field.widget == "choice":
        for choice in field.choices:
            if value == choice or text == json.dumps(choice):
                return choice
        if not text and not field.required:
            return None
        raise ValueError(f"choose one of: {', '.join(str(choice) for choice in field.choices)}")
    if not text and not field.required:
        return None
    return _parsed(text, field.widget)


def _parsed(text: str, widget: Widget) -> JsonValue:
    try:
        if widget == "boolean":
            return _BOOLEANS[text.lower()]
        if widget == "integer":
            return int(text)
        if widget == "number":
            return float(text)
        return json_in(text)
    except (ValueError, KeyError, RecursionError):
        wanted = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}
        raise ValueError(f"this must be {wanted.get(widget, 'JSON')}") from None


# --------------------------------------------------------------------------- checking


def check_decision(
    request: ReviewRequest,
    decision: Decision,
    *,
    at: datetime | None = None,
) -> None:
    """Check what a decision holds against the request's schemas, without the subject's model.

    Args:
        request: The request that was answered.
        decision: What was decided.
        at: When; None: that it comes too late for something is not looked at.

    Raises:
        InvalidAnswer: An edited subject or a response does not match its schema, or a standing
            approval comes with it that the request does not offer or that cannot be.

    Example:
        >>> request = ReviewRequest(
        ...     request_id="r-1",
        ...     title="Which colour?",
        ...     allowed=["respond"],
        ...     response_schema={"type": "string"},
        ...     created_at=utc_now(),
        ... )
        >>> check_decision(request, Respond(response="blue"))
        >>> check_decision(request, Respond(response=7))
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.InvalidAnswer: The answer to r-1 is not valid: response: 7 is
        not of type 'string'. Correct it and answer again; the request is still open.
    """
    if isinstance(decision, Edit) and request.subject is not None:
        schema, known = request.subject.json_schema, request.subject.data
        problems = _unknown_fields("subject", decision.subject, schema, known)
        problems += _schema_problems("subject", decision.subject, schema)
    elif isinstance(decision, Respond):
        schema = request.response_schema or {}
        problems = _schema_problems("response", decision.response, schema)
        if isinstance(decision.response, dict):
            problems += _unknown_fields("response", decision.response, schema, {})
    elif isinstance(decision, Approve) and decision.grant is not None:
        problems = _grant_problems(request, decision.grant, at)
    else:
        return
    if problems:
        raise InvalidAnswer(request.request_id, problems)


def _grant_problems(
    request: ReviewRequest, terms: GrantTerms, at: datetime | None
) -> list[FieldProblem]:
    if request.grantable is None:
        return [FieldProblem("grant", "this can only be approved for this once")]
    if not request.policy.single:
        return [FieldProblem("grant", "what several people must approve is approved each time")]
    arguments = {} if request.subject is None else request.subject.data
    return [
        FieldProblem(f"grant.{problem.field}", problem.message)
        for problem in problems_of_terms(terms, arguments, at)
    ]


def parse_form(
    schema: JsonObject, raw: Mapping[str, Any]
) -> tuple[JsonObject, tuple[FieldProblem, ...]]:
    """Turn what somebody typed into the fields of `fields_of_schema(schema)` into an object.

    Values may be strings, as forms send them, or what they mean. An empty input of an optional
    field that has no text to begin with is as if it were not there.

    Args:
        schema: JSON schema of the object; one without properties takes any fields.
        raw: What was typed, by name of the field, without a prefix.

    Returns:
        The object, and everything that is wrong with it, field by field; it is good for something
        only if nothing is.

    Example:
        >>> from pydantic import BaseModel
        >>> class Pay(BaseModel):
        ...     to: str
        ...     amount: float
        >>> parse_form(Pay.model_json_schema(), {"to": "Ann", "amount": "40"})
        ({'to': 'Ann', 'amount': 40.0}, ())
        >>> [str(problem) for problem in parse_form(Pay.model_json_schema(), {"to": "Ann"})[1]]
        ["amount: 'amount' is a required property"]
    """
    fields = {field.name: field for field in fields_of_schema(schema)}
    found: JsonObject = {}
    problems: list[FieldProblem] = []
    for name, value in raw.items():
        field = fields.get(name)
        if value == "" and field is not None and _may_be_empty(field):
            continue
        try:
            found[name] = _coerced(value, field)
        except ValueError as error:
            problems.append(FieldProblem(name, str(error)))
    if not problems:
        problems += _unknown_fields("", found, schema, {}) if fields else []
        problems += _schema_problems("", found, schema)
    return found, tuple(problems)


def _may_be_empty(field: FormField) -> bool:
    return not field.required and not isinstance(field.value, str)


def _unknown_fields(
    prefix: str, data: JsonObject, schema: JsonObject, known: JsonObject
) -> list[FieldProblem]:
    """Find misspelt fields: most models would drop or keep them without a word."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or schema.get("additionalProperties"):
        return []
    strangers = [name for name in data if name not in properties and name not in known]
    return [FieldProblem(_path(prefix, name), "there is no such field") for name in strangers]


def _schema_problems(prefix: str, data: JsonValue, schema: JsonObject) -> list[FieldProblem]:
    # Imported where it is needed: most answers are checked without it, and it takes 60 ms.
    from jsonschema.exceptions import SchemaError, UnknownType
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if not schema:
        return []
    # An empty registry: a reference to elsewhere is an error, never a download.
    validator = validator_for(schema)(schema, registry=Registry())
    try:
        return [
            FieldProblem(
                _path(prefix, *error.absolute_path, *_missing_in(error)),
                error.message[:_MESSAGE_LIMIT],
            )
            for error in validator.iter_errors(data)
        ]
    except (Unresolvable, SchemaError, UnknownType) as error:
        return [FieldProblem(prefix, f"this cannot be checked: {error}"[:_MESSAGE_LIMIT])]


def _missing_in(error: SchemaProblem) -> tuple[str, ...]:
    """Return the name of the field that is missing, if that is what is wrong."""
    names, found = error.validator_value, error.instance
    if error.validator != "required" or not isinstance(names, list) or not isinstance(found, dict):
        return ()
    # There is one error for each name that is missing, and only its words say which.
    missing = (name for name in names if name not in found)
    return tuple(name for name in missing if error.message.startswith(repr(name)))[:1]
