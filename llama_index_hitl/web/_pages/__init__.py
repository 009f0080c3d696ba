"""The pages: HTML from templates, which scripts of the same origin make livelier.

`page` renders a template for a person; in templates, `path(name, ...)` gives the address of a
route wherever the application is mounted, and `csrf_token` what a form must send.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import URL
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import NoMatchFound
from starlette.staticfiles import StaticFiles
from workflows import Workflow

from llama_index_hitl.models import Reviewer
from llama_index_hitl.web._pages import _filters
from llama_index_hitl.web._sessions import csrf_token
from llama_index_hitl.web._site import site_of

STATIC = Path(__file__).parent.parent / "static"
"""Style and scripts, as they are served under `/static`."""


class Assets(StaticFiles):
    """Serves `STATIC`; browsers ask each time whether what they keep is current."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


@cache
def environment() -> Environment:
    """Return what renders templates: everything is escaped, and an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("llama_index_hitl.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(_filters.FILTERS)
    return made


def path_of(connection: HTTPConnection, name: str, /, **params: Any) -> str:
    """Return the address of a route of this application, wherever it is mounted.

    Raises:
        NoMatchFound: There is no route of that name with such parameters.
    """
    root = str(connection.scope.get("root_path", "")).rstrip("/")
    # Ids may hold anything; left as they are, some would end the address or make no route fit.
    written = {key: quote(str(value), safe="") for key, value in params.items()}
    return root + str(connection.app.url_path_for(name, **written))


def workflow_title(registered: Mapping[str, Workflow], name: str) -> str:
    """Return what people call a workflow that a request names, which has the name of its class.

    That is the name under which it is registered, unless it is under several, or elsewhere.
    """
    found = [key for key, workflow in registered.items() if workflow.workflow_name == name]
    return _filters.titled(found[0]) if len(found) == 1 else _filters.short_name(name)


def page(
    request: Request,
    template: str,
    /,
    *,
    person: Reviewer | None,
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """Return a page, or a part of one.

    Args:
        request: What is answered.
        template: Name of the template.
        person: Who is signed in; None: nobody.
        status: Status of the response.
        **values: What the template needs beside `site`, `person`, `request`, `base`, `path`,
            `has_path`, `called`, `csrf_token` and `now`.
    """
    site = site_of(request)

    def path(name: str, /, **params: Any) -> str:
        return path_of(request, name, **params)

    def has_path(name: str, /, **params: Any) -> bool:
        try:
            path_of(request, name, **params)
        except NoMatchFound:
            return False
        return True

    body = (
        environment()
        .get_template(template)
        .render(
            site=site,
            person=person,
            request=request,
            base=str(request.scope.get("root_path", "")).rstrip("/"),
            path=path,
            has_path=has_path,
            called=partial(workflow_title, site.runner.workflows),
            csrf_token=csrf_token(request),
            now=site.clock(),
            **values,
        )
    )
    return HTMLResponse(body, status, headers={"Cache-Control": "no-store"})


def redirect(request: Request, name: str, /, *, notice: str = "", **params: Any) -> Response:
    """Return the way to another page, after a form was taken.

    Args:
        request: What is answered.
        name: Name of the route.
        notice: Key of the words in `base.html` that the page greets with; never free text.
        **params: Parameters of the route.
    """
    url = URL(path_of(request, name, **params))
    if notice:
        url = url.include_query_params(notice=notice)
    return RedirectResponse(str(url), 303)
