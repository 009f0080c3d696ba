"""Everything that is served: what is refused before it is looked at, and what no answer lacks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from durable import NOON
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from safe import ANN_TOKEN, OLD, ORIGIN, app_on, bearer, client, sign_in
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect

from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import AnswerLinks, Limits
from llama_index_hitl.web._guards import LOOPBACK
from llama_index_hitl.web.limits import nested_deeper

SUBJECT = "the subject of a review"
AS_ANN = bearer(ANN_TOKEN)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


def with_probes(app: FastAPI) -> FastAPI:
    """Add what fails, what streams, and what says what it has got."""

    @app.get("/api/broken")
    async def broken() -> None:
        raise RuntimeError(SUBJECT)

    @app.get("/broken")
    async def broken_page() -> None:
        raise RuntimeError(SUBJECT)

    @app.get("/api/number/{number}")
    async def number(number: int) -> int:
        return number

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            yield "data: 1\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            yield "data: 1\n\n"
            raise RuntimeError(SUBJECT)

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/api/echo")
    async def echo(request: Request) -> dict[str, Any]:
        return {"got": len(await request.body())}

    @app.websocket("/api/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    return app


# --------------------------------------------------------------------------- headers

EVERYWHERE = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.mark.parametrize("root", ["", "/a/reviews"])
async def test_no_answer_goes_out_without_the_headers(root: str, clock: ManualClock) -> None:
    served = with_probes(app_on(clock, limits=Limits(body=100)))
    app = Starlette(routes=[Mount(root, served)]) if root else served
    async with client(app, **AS_ANN) as program:
        for status, method, path, options in (
            (200, "GET", "/api/me", {}),
            (200, "GET", "/sign-in", {}),
            (200, "GET", "/stream", {}),
            (303, "POST", "/sign-out", {}),
            (401, "GET", "/api/me", {"headers": bearer("wrong")}),
            (403, "POST", "/api/echo", {"headers": {"Origin": "https://evil.test"}}),
            (404, "GET", "/api/nothing", {}),
            (404, "GET", "/nothing", {}),
            (404, "GET", "/static/nothing.js", {}),
            (404, "GET", "/static/../app.py", {}),
            (405, "PUT", "/api/me", {}),
            (413, "POST", "/api/echo", {"content": b"x" * 101}),
            (415, "POST", "/api/echo", {"headers": {"Content-Type": "text/plain"}}),
            (422, "GET", "/api/number/x", {}),
            (500, "GET", "/api/broken", {}),
            (500, "GET", "/broken", {}),
        ):
            answer = await program.request(method, root + path, **options)
            assert (answer.status_code, method, path) == (status, method, path)
            found = {name: answer.headers.get_list(name) for name in EVERYWHERE}
            assert found == {name: [value] for name, value in EVERYWHERE.items()}, path
            assert "strict-transport-security" not in answer.headers
            assert SUBJECT not in answer.text
            assert "Traceback" not in answer.text


async def test_files_may_be_kept_and_are_asked_about(clock: ManualClock) -> None:
    async with client(app_on(clock)) as browser:
        file = await browser.get("/static/app.css")
        assert file.status_code == 200
        again = await browser.get(
            "/static/app.css", headers={"If-None-Match": file.headers["etag"]}
        )
        assert again.status_code == 304
        for answer in (file, again):
            assert answer.headers.get_list("cache-control") == ["no-cache"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers.get_list("content-security-policy")


async def test_over_https_browsers_are_told_to_stay_there(clock: ManualClock) -> None:
    async with client(app_on(clock), "https://reviews.test") as browser:
        answer = await browser.get("/api/nothing")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


async def test_what_fails_is_logged_without_what_it_said(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(with_probes(app_on(clock))) as program:
        for path in ("/api/broken", "/broken"):
            assert SUBJECT not in (await program.get(path)).text
        with pytest.raises(ConnectionAbortedError) as aborted:
            await program.get("/breaks")
        assert aborted.value.__suppress_context__
    assert "RuntimeError" in caplog.text
    assert "in broken" in caplog.text
    assert SUBJECT not in caplog.text.replace(f'SUBJECT = "{SUBJECT}"', "")


# --------------------------------------------------------------------------- where it comes from


SENT_BY = [
    ({}, 200),
    ({"Origin": ORIGIN}, 200),
    ({"Origin": ORIGIN.upper()}, 200),
    ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
    ({"Sec-Fetch-Site": "none"}, 200),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "none", "Origin": "https://evil.test"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN}, 403),
    ({"Origin": "https://evil.test"}, 403),
    ({"Origin": "http://reviews.test.evil.test"}, 403),
    ({"Origin": "http://reviews.test:8080"}, 403),
    ({"Origin": "http://evil.test#reviews.test"}, 403),
    ({"Origin": "http://x@reviews.test"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://["}, 403),
    ({"Origin": ""}, 403),
]


async def test_what_changes_something_is_not_taken_from_pages_of_other_sites(
    clock: ManualClock,
) -> None:
    # Whatever the sign-in: the host's own may go by cookies, which browsers send by themselves.
    app = with_probes(app_on(clock, authenticate=lambda _: None))
    async with client(app) as browser:
        for headers, status in SENT_BY:
            taken = await browser.post("/api/echo", headers=headers)
            assert (headers, taken.status_code) == (headers, status)
            for method in ("PUT", "PATCH", "DELETE"):
                other = await browser.request(method, "/api/echo", headers=headers)
                assert other.status_code == (405 if status == 200 else 403)
            assert (await browser.get("/api/number/1", headers=headers)).status_code == 200


def test_sockets_are_not_opened_by_pages_of_other_sites(clock: ManualClock) -> None:
    http = TestClient(with_probes(app_on(clock)))
    for headers in ({}, {"Origin": "http://testserver"}):
        with http.websocket_connect("/api/talk", headers=headers) as talk:
            assert talk.receive_text() == "hello"
    for headers in ({"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}):
        with (
            pytest.raises(WebSocketDisconnect),
            http.websocket_connect("/api/talk", headers=headers),
        ):
            pass


KINDS = [
    ("application/json", 200),
    ("Application/JSON; charset=utf-8", 200),
    ("text/plain", 415),
    ("TEXT/plain; x=application/json", 415),
    ("application/x-www-form-urlencoded", 415),
    ("multipart/form-data; boundary=x", 415),
]


async def test_the_api_takes_nothing_that_any_page_could_send(clock: ManualClock) -> None:
    async with client(with_probes(app_on(clock))) as browser:
        for kind, status in KINDS:
            headers = {"Content-Type": kind}
            answer = await browser.post("/api/echo", content=b"{}", headers=headers)
            assert (kind, answer.status_code) == (kind, status)


HOSTS = [
    ("localhost", 200),
    ("LOCALHOST:8000", 200),
    ("127.0.0.1:8000", 200),
    ("[::1]", 200),
    ("[::1]:8000", 200),
    ("evil.test", 421),
    ("evil.test:8000", 421),
    ("localhost.evil.test", 421),
    ("127.0.0.1.evil.test", 421),
    ("", 421),
]


async def test_a_name_that_somebody_else_makes_lead_here_is_not_served(
    clock: ManualClock,
) -> None:
    app = with_probes(app_on(clock, authenticate=lambda _: None, allowed_hosts=LOOPBACK))
    async with client(app) as browser:
        for host, status in HOSTS:
            answer = await browser.get("/api/number/1", headers={"Host": host})
            assert (host, answer.status_code) == (host, status)


def test_nor_are_sockets_served_under_such_a_name(clock: ManualClock) -> None:
    http = TestClient(with_probes(app_on(clock, allowed_hosts=LOOPBACK)))
    with http.websocket_connect("/api/talk", headers={"Host": "localhost"}) as talk:
        assert talk.receive_text() == "hello"
    with (
        pytest.raises(WebSocketDisconnect),
        http.websocket_connect("/api/talk", headers={"Host": "evil.test"}),
    ):
        pass


# --------------------------------------------------------------------------- how much


async def test_a_body_is_counted_whether_its_size_is_announced_or_not(clock: ManualClock) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 10

    app = with_probes(app_on(clock, limits=Limits(body=100)))
    async with client(app) as program:
        assert (await program.post("/api/echo", content=b"x" * 100)).json() == {"got": 100}
        assert (await program.post("/api/echo", content=chunks(10))).json() == {"got": 100}
        refused = await program.post("/api/echo", content=b"x" * 101)
        assert refused.status_code == 413
        assert refused.json()["error"]["type"] == "too_large"
        sent = 0
        assert (await program.post("/api/echo", content=chunks(1000))).status_code == 413
        assert sent < 1000 or refused.status_code == 413
        endless = {"Content-Length": "9" * 5000}
        assert (await program.post("/api/echo", content=b"x", headers=endless)).status_code == 413
        lies = {"Content-Length": "1"}
        assert (
            await program.post("/api/echo", content=b"x" * 101, headers=lies)
        ).status_code == 413


async def test_reading_stops_as_soon_as_it_is_too_much(clock: ManualClock) -> None:
    app = with_probes(app_on(clock, limits=Limits(body=100)))
    received = 0

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}  # for ever

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = _scope("POST", "/api/echo")
    await app(scope, receive, send)
    assert received == 2
    assert sent[0]["status"] == 413


async def test_a_client_that_goes_away_while_it_sends_is_let_go(clock: ManualClock) -> None:
    app = with_probes(app_on(clock))
    messages = iter(
        [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    await app(_scope("POST", "/api/echo"), receive, send)


def _scope(method: str, path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"reviews.test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def test_deep_nesting_is_refused_and_brackets_in_text_are_not(clock: ManualClock) -> None:
    app = with_probes(app_on(clock))
    async with client(app) as program:
        for deep in ("[" * 200_000, '{"a":' * 101 + "1" + "}" * 101):
            refused = await program.post("/api/echo", content=deep.encode())
            assert refused.status_code == 422
            assert refused.json()["error"]["type"] == "too_deep"
        fine = json.dumps({"text": "[" * 1000, "flat": [[]] * 500, 'a"[': '\\"[' * 50})
        assert (await program.post("/api/echo", content=fine.encode())).status_code == 200


@pytest.mark.parametrize(
    ("body", "deeper"),
    [
        (b"[[[]]]", False),
        (b"[[[[]]]]", True),
        (b'{"a":[{"b":{}}]}', True),
        (b"[],[],[],[]", False),
        (b'["[[[["]', False),
        (b'["\\"[[[["]', False),
        (b'["\\\\",[[[', True),
        (b'"unfinished [[[[', False),  # no JSON, which is found out without going deep
        (b'[[["unfinished \\', False),
        (b"\xff\x00[[[[", True),
    ],
)
def test_how_deeply_something_is_nested(body: bytes, deeper: bool) -> None:
    assert nested_deeper(body, 3) is deeper


def test_quotes_without_end_are_looked_at_once_each() -> None:
    body = b"[]" * 101 + b'"' + b'\\"' * 500_000
    begun = time.process_time()
    assert not nested_deeper(body, 100)
    assert time.process_time() - begun < 2  # by the square of it this takes an hour


# --------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("root", ["", "/reviews"])
async def test_a_redirect_leads_to_no_host_that_the_client_has_named(
    root: str, clock: ManualClock
) -> None:
    app = Starlette(routes=[Mount(root or "/", app_on(clock))])
    async with client(app, Host="evil.example") as browser:
        for path, place in (("/runs/?after=x", "/runs?after=x"), ("/sign-in/", "/sign-in")):
            response = await browser.get(root + path)
            assert (response.status_code, response.headers["location"]) == (307, root + place)


# --------------------------------------------------------------------------- links in logs


@contextlib.contextmanager
def access_log() -> Iterator[list[str]]:
    """Collect what uvicorn writes into its access log."""
    lines: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("uvicorn.access"), Collecting()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize("root", ["", "/a/reviews"])
async def test_the_access_log_of_a_server_holds_no_link(root: str, clock: ManualClock) -> None:
    served = app_on(clock, links=AnswerLinks([OLD], ORIGIN, clock=clock))
    app: Any = Starlette(routes=[Mount(root, served)]) if root else served
    config = uvicorn.Config(app, log_config=None, access_log=True, lifespan="off")
    server = _Server(config)
    with access_log() as lines, socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}{root}"
        async with httpx.AsyncClient() as browser:
            assert (await browser.get(f"{url}/link/secret.token")).status_code == 404
            assert (await browser.post(f"{url}/link/secret.token")).status_code == 404
            assert (await browser.get(f"{url}/api/me")).status_code == 401
        server.should_exit = True
        await task
    assert [line.split('"')[1] for line in lines] == [
        f"GET {root}/link/- HTTP/1.1",
        f"POST {root}/link/- HTTP/1.1",
        f"GET {root}/api/me HTTP/1.1",
    ]


async def test_a_link_is_told_to_no_other_site(clock: ManualClock) -> None:
    app = app_on(clock, links=AnswerLinks([OLD], ORIGIN, clock=clock))
    async with client(app) as browser:
        await sign_in(browser)
        answer = await browser.get("/link/nothing")
        assert answer.headers["referrer-policy"] == "strict-origin"
