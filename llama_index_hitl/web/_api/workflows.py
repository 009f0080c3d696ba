"""Which workflows can be started, and with what."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from llama_index_hitl.forms import FormField
from llama_index_hitl.models import JsonObject, Value
from llama_index_hitl.web._api import _examples
from llama_index_hitl.web._api._documented import example, failing
from llama_index_hitl.web._api._strict import StrictRoute
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web._starting import start_form, startable
from llama_index_hitl.web.people import Person

router = APIRouter(tags=["workflows"], route_class=StrictRoute)


class WorkflowView(Value):
    """A workflow that can be started.

    Attributes:
        name: What to start it by.
        description: What it says of itself.
        start_schema: JSON schema of what it is started with.
        fields: The same as a form.
        any_fields: It takes any fields; what it does with them, its description says.
    """

    name: str
    description: str
    start_schema: JsonObject
    fields: tuple[FormField, ...]
    any_fields: bool


class WorkflowList(Value):
    """The workflows that somebody may start, by name."""

    items: tuple[WorkflowView, ...]


@router.get(
    "/workflows",
    summary="Workflows that can be started",
    responses={**example(_examples.WORKFLOWS), **failing()},
)
async def list_workflows(request: Request, person: Person) -> WorkflowList:
    """Return the workflows that you may start, and what each is started with."""
    site = site_of(request)
    forms = [start_form(site, person, name) for name in startable(site, person)]
    return WorkflowList(
        items=tuple(
            WorkflowView(
                name=form.name,
                description=form.description,
                start_schema=form.json_schema,
                fields=form.fields,
                any_fields=form.any_fields,
            )
            for form in forms
        )
    )
