"""The start pages: what can be started, and a form for each, made of its start event."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, cast

from fastapi import APIRouter, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from llama_index_hitl.errors import FieldProblem, InvalidStart
from llama_index_hitl.forms import json_in
from llama_index_hitl.models import Reviewer
from llama_index_hitl.web._pages import page, redirect
from llama_index_hitl.web._running import start
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web._starting import StartForm, start_form, startable
from llama_index_hitl.web.people import Person

PAIRS = 4
"""Lines for names and values that a form has which takes any; a script adds more."""

_OWN = frozenset({"csrf_token", "_form_id"})
"""Inputs of the form that are no fields of the start event; those cannot begin with `_`."""

_SECTION = re.compile(r"^(?:Args|Attributes|Example|Examples|Note|Raises|Returns):$", re.MULTILINE)

router = APIRouter(include_in_schema=False)


@router.get("/start", name="start")
async def start_page(request: Request, person: Person) -> Response:
    """Show what this person may start."""
    site = site_of(request)
    forms = [start_form(site, person, name) for name in startable(site, person)]
    return page(request, "start.html", person=person, forms=forms)


@router.get("/start/{workflow}", name="start_form")
async def form_page(request: Request, person: Person, workflow: str) -> Response:
    """Show the form of one workflow."""
    return _form(request, person, start_form(site_of(request), person, workflow))


@router.post("/start/{workflow}", name="start_run")
async def start_run(request: Request, person: Person, workflow: str) -> Response:
    """Start a run, and show it; or give the form back with what is wrong at its fields."""
    site = site_of(request)
    form = start_form(site, person, workflow)
    data = await request.form()
    try:
        raw = _raw(form, data)
        run, _ = await start(site, person, workflow, raw, run_id=_run_id(data, person, form, raw))
    except InvalidStart as error:
        return _form(request, person, form, data, error.problems)
    return redirect(request, "run", run_id=run.run_id)


def _form(
    request: Request,
    person: Reviewer,
    form: StartForm,
    data: FormData | None = None,
    problems: tuple[FieldProblem, ...] = (),
) -> Response:
    known = {field.name for field in form.fields} | {"_as_json", "_pairs"}
    at = {p.field.partition(".")[0]: p.message for p in reversed(problems)}
    return page(
        request,
        "start_form.html",
        person=person,
        status=422 if problems else 200,
        form=form,
        about=_about(form.description),
        form_id=_text(data, "_form_id") or secrets.token_hex(8),
        values={} if data is None else {name: _text(data, name) for name in data},
        pairs=[*_pairs(data), *[("", "")] * PAIRS][: max(PAIRS, len(list(_pairs(data))) + 1)],
        problems=at,
        # What is wrong with no field that is shown stands above all of them.
        elsewhere=[str(p) for p in problems if p.field.partition(".")[0] not in known],
    )


def _about(description: str) -> tuple[str, str]:
    """Return what a workflow says of itself: its first line, and the rest for those who start it.

    What follows under headings such as `Args:` is for those who write code.
    """
    first, _, rest = description.partition("\n")
    return first, _SECTION.split(rest)[0].strip()


def _raw(form: StartForm, data: FormData) -> Mapping[str, Any]:
    """Return what was typed, by name of the field.

    Raises:
        InvalidStart: Something that is needed is missing, or what was typed cannot be read.
    """
    if form.any_fields:
        return _any_fields(data)
    missing = [
        FieldProblem(field.name, "This is needed.")
        for field in form.fields
        if field.required and not _text(data, field.name).strip()
    ]
    if missing:
        raise InvalidStart(missing)
    return {name: _text(data, name) for name in data if name not in _OWN}


def _any_fields(data: FormData) -> Mapping[str, Any]:
    """Return names and values as they were typed, one by one or as JSON."""
    pairs = [(name.strip(), value) for name, value in _pairs(data)]
    text = _text(data, "_as_json").strip()
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidStart([FieldProblem("_pairs", "A name is there twice.")])
    if "" in found:
        raise InvalidStart([FieldProblem("_pairs", "A value has no name.")])
    if not text:
        return found
    try:
        typed = json_in(text)
    except (ValueError, RecursionError) as error:
        raise InvalidStart([FieldProblem("_as_json", f"This is not JSON: {error}")]) from None
    if not isinstance(typed, dict):
        raise InvalidStart([FieldProblem("_as_json", "This must be an object: {...}.")])
    if both := sorted(found.keys() & typed.keys()):
        raise InvalidStart([FieldProblem("_as_json", f"{both[0]} is there twice.")])
    return {**found, **typed}


def _pairs(data: FormData | None) -> Iterator[tuple[str, str]]:
    """Yield the names and values that were typed line by line, without lines left empty."""
    if data is None:
        return
    values = (str(value) for value in data.getlist("_value"))
    for name, value in zip((str(name) for name in data.getlist("_name")), values, strict=False):
        if name.strip() or value:
            yield name, value


def _run_id(data: FormData, person: Reviewer, form: StartForm, raw: Mapping[str, Any]) -> str:
    """Return the id of the run: what one form sends twice is one run.

    It depends on what was typed, too: whoever goes back and types something else starts another
    run. And it is no id that a form could choose.
    """
    form_id = _text(data, "_form_id") or secrets.token_hex(8)
    whole = json.dumps([form_id, person.id, form.name, raw], sort_keys=True)
    return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:16]


def _text(data: FormData | None, name: str) -> str:
    value = cast("object", None if data is None else data.get(name))
    return value if isinstance(value, str) else ""
