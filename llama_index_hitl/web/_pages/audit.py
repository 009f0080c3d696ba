"""The audit page of a run: every row, whether they are as they were written, and the seal."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from starlette.responses import Response

from llama_index_hitl.rendering import text_of
from llama_index_hitl.web._pages import page
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web._trail import Trail, TrailRow, trail_of
from llama_index_hitl.web.people import Person

router = APIRouter(include_in_schema=False)


@router.get("/runs/{run_id}/audit", name="audit")
async def audit_page(request: Request, person: Person, run_id: str) -> Response:
    """Show the audit trail of a run, as far as this person may see it, and whether it is whole."""
    trail = await trail_of(site_of(request), person, run_id)
    return page(
        request, "audit.html", person=person, trail=trail, broken=_broken(trail), details=_details
    )


@router.get("/runs/{run_id}/audit.jsonl", name="audit_export")
async def audit_export(request: Request, person: Person, run_id: str) -> Response:
    """Return the rows that this person may see as JSON Lines, to be kept.

    Each has its number and hash; rows that are whole can be checked with these.
    """
    trail = await trail_of(site_of(request), person, run_id)
    lines = "".join(row.model_dump_json() + "\n" for row in trail.rows)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", run_id)[:100]
    headers = {
        "Content-Disposition": f'attachment; filename="audit-{name}.jsonl"',
        "Cache-Control": "no-store",
    }
    return Response(lines, media_type="application/x-ndjson", headers=headers)


def _broken(trail: Trail) -> frozenset[int]:
    """Return the numbers of the rows that a finding begins with."""
    found = (re.match(r"row (\d+) ", finding) for finding in trail.findings)
    return frozenset(int(match[1]) for match in found if match is not None)


def _details(row: TrailRow) -> str:
    """Return the details of a row as text, and beside them what else there is to check it by."""
    rest = {"request_id": row.request_id, "digest": row.digest, "hash": row.hash}
    known = {name: value for name, value in rest.items() if value is not None}
    return text_of({**row.details, **known})
