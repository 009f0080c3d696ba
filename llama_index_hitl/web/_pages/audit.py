"""The audit page of a run: every row, whether they are as they were written, and the seal."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
