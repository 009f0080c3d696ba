"""The JSON API, under `/api`: for programs, and for the scripts of the pages.

A request or run that somebody may not see is unknown to them: 404, as if it were not there. Every
response that is no success has an `ErrorBody`.
"""

from __future__ import annotations

from fastapi import APIRouter

from llama_index_hitl.web._api import answers, health, requests, runs, workflows
from llama_index_hitl.web._api._strict import StrictRoute

__all__ = ["api"]


def api() -> APIRouter:
    """Return all routes of the API, to be included in the application."""
    router = APIRouter(
        prefix="/api",
        route_class=StrictRoute,
        generate_unique_id_function=lambda route: route.name,
    )
    for part in (workflows, runs, requests, answers, health):
        router.include_router(part.router)
    return router
