"""The page that tells a person what went wrong, and where to go on."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from llama_index_hitl.web._failures import Failure
from llama_index_hitl.web._pages import page
from llama_index_hitl.web._sign_in import sign_in_path

_TITLES = {
    401: "You are not signed in",
    403: "This is not for you to do",
    404: "There is nothing here",
    409: "That cannot be done now",
    410: "This is over",
    413: "This is too large",
    422: "Something does not fit",
    429: "Too many at once",
    503: "This cannot be reached just now",
}


def failure_page(request: Request, status: int, failure: Failure) -> Response:
    """Return the page; whoever only has to sign in is led there, and back afterwards."""
    sign_in = sign_in_path(request) if status == 401 else None
    # Scripts, which ask for parts of pages, have to see that nobody is signed in any more.
    if sign_in is not None and request.method == "GET" and "x-fragment" not in request.headers:
        return RedirectResponse(sign_in, 303)
    return page(
        request,
        "failure.html",
        person=getattr(request.state, "person", None),
        status=status,
        heading=_TITLES.get(status, "Something went wrong"),
        failure=failure,
        sign_in=sign_in,
    )
