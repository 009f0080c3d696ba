"""The OpenAPI document says what the API does, and the API does what it says."""

from __future__ import annotations

import asyncio
import copy
import inspect
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from durable import NOON
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from invoices import INVOICE, WORKFLOWS
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from llama_index_hitl import Reviewer
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
STREAMS = re.compile("/events$|^/api/chat")
EVERYBODY = Reviewer(id="root", roles=("admin", "finance", "legal", "chief"))


@pytest.fixture(scope="module")
def served() -> FastAPI:
    clock = ManualClock(NOON)
    flows = {name: make(timeout=None) for name, make in WORKFLOWS.items()}
    for flow in flows.values():
        flow.clock = clock  # type: ignore[attr-defined]
    runner = Runner(MemoryStore(), flows, clock=clock)
    return create_app(runner, authenticate=lambda _: EVERYBODY, works=False, clock=clock)


@pytest.fixture(scope="module")
def document(served: FastAPI) -> dict[str, Any]:
    return served.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_says_what_it_does_and_is_told_apart(document: dict[str, Any]) -> None:
    found = dict(operations(document))
    assert len(found) > 20
    assert all(path.split()[1].startswith("/api/") for path in found)
    for name, operation in found.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
    ids = [operation["operationId"] for operation in found.values()]
    assert len(set(ids)) == len(ids)
    assert {"answer_request", "list_requests", "start_run"} <= set(ids)


def test_every_failure_has_the_one_body_and_an_example_of_it(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    for name, operation in operations(document):
        assert {"401", "422", "429", "503"} <= operation["responses"].keys() or "health" in name
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            content = response["content"]["application/json"]
            assert content["schema"] == schema, (name, status)
            for kind, example in content.get("examples", {}).items():
                assert example["value"]["error"]["type"] == kind
                assert kind in response["description"]


def test_every_example_is_as_its_schema_says(document: dict[str, Any]) -> None:
    checked = 0
    for name, operation in operations(document):
        contents = [
            *(response.get("content", {}) for response in operation["responses"].values()),
            operation.get("requestBody", {}).get("content", {}),
        ]
        for content in contents:
            told = content.get("application/json", {})
            values = [example["value"] for example in told.get("examples", {}).values()]
            values += [told["example"]] if "example" in told else []
            whole = {**told.get("schema", {}), "components": document["components"]}
            for value in values:
                problems = list(Draft202012Validator(whole).iter_errors(value))
                assert problems == [], (name, value)
                checked += 1
    assert checked > 100


def test_every_json_success_has_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if STREAMS.search(name.split()[1]):
            continue
        for status, response in operation["responses"].items():
            if status in ("200", "201", "202"):
                assert "example" in response["content"]["application/json"], (name, status)


# --------------------------------------------------------------------------- generated requests


class Caller:
    """Sends generated requests to an application with something in it, in one event loop."""

    def __init__(self, app: FastAPI, loop: asyncio.Runner) -> None:
        self._loop = loop
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://api.test"
        )
        self.runs = ["article-1", "invoice-1", "broken-1"]
        self.requests: list[str] = []
        loop.run(self._fill())

    async def _fill(self) -> None:
        for workflow in ("article", "invoice", "broken"):
            inputs = INVOICE if workflow == "invoice" else {}
            body = {"workflow": workflow, "inputs": inputs, "run_id": f"{workflow}-1", "wait": True}
            assert (await self._client.post("/api/runs", json=body)).status_code == 201
        listed = (await self._client.get("/api/requests", params={"view": "all"})).json()
        self.requests = [item["request_id"] for item in listed["items"]]
        self.digests = [item["digest"] for item in listed["items"]]

    def send(self, case: schemathesis.Case) -> httpx.Response:
        """Send a generated request as it would go over the wire."""
        sent = case.as_transport_kwargs(base_url="http://api.test")
        wanted = inspect.signature(requests.Request).parameters
        made = requests.Request(**{name: sent[name] for name in sent if name in wanted}).prepare()
        assert made.url is not None
        return self._loop.run(
            self._client.request(
                made.method or "GET", made.url, content=made.body, headers=dict(made.headers)
            )
        )

    def close(self) -> None:
        self._loop.run(self._client.aclose())


@pytest.fixture(scope="module")
def caller(served: FastAPI) -> Iterator[Caller]:
    with asyncio.Runner() as loop:
        made = Caller(served, loop)
        yield made
        made.close()


def _generated(document: dict[str, Any], mode: schemathesis.GenerationMode) -> list[Any]:
    wanted = copy.deepcopy(document)
    for path in [path for path in wanted["paths"] if STREAMS.search(path)]:
        del wanted["paths"][path]
    schema = schemathesis.openapi.from_dict(wanted)
    schema.config.generation.update(modes=[mode])
    made = [found.ok() for found in schema.get_all_operations()]
    assert len(made) == 19
    if mode is schemathesis.GenerationMode.NEGATIVE:  # a path may be any text
        made = [one for one in made if one.body or one.query]
    return made


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_sent_gets_what_the_document_says(
    document: dict[str, Any], caller: Caller, mode: schemathesis.GenerationMode
) -> None:
    seen: set[int] = set()
    for operation in _generated(document, mode):

        @settings(
            max_examples=6,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
        def check(case: schemathesis.Case, data: st.DataObject) -> None:
            known = {"run_id": caller.runs, "request_id": caller.requests}
            for name in case.path_parameters or {}:
                if data.draw(st.booleans()):
                    case.path_parameters[name] = data.draw(st.sampled_from(known[name]))
            if isinstance(case.body, dict) and "digest" in case.body and data.draw(st.booleans()):
                case.body["digest"] = data.draw(st.sampled_from(caller.digests))
            response = caller.send(case)
            seen.add(response.status_code)
            case.validate_response(response, checks=CHECKS)

        check()

    assert 500 not in seen
    assert {404, 422} <= seen
    assert 200 in seen or mode is schemathesis.GenerationMode.NEGATIVE
