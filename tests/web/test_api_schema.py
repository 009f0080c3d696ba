"""The OpenAPI document says what the API does, and the API does what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from durable import NOON
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase
from invoices import WORKFLOWS
from pydantic import TypeAdapter
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from llama_index_hitl.runner import Receipt, Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import create_app
