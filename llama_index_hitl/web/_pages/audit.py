"""The audit page of a run: every row, whether they are as they were written, and the seal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from llama_index_hitl.audit import AuditRow, AuditSeal, export, seal_of, verify
from llama_index_hitl.models import Reviewer
from llama_index_hitl.stores.protocol import Run, StoredRequest
from llama_index_hitl.web._auditing import seen_rows
from llama_index_hitl.web._pages import page
from llama_index_hitl.web._pages.runs import seen
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web.people import Person

router = APIRouter(include_in_schema=False)
