"""`hitl serve`: who may reach it, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from llama_index_hitl.cli import app as cli
from llama_index_hitl.cli._serving import _without_query
from llama_index_hitl.errors import CannotListen
from llama_index_hitl.web import NamedTokens
from llama_index_hitl.web.serving import GRACE, is_loopback, listen, serve, serving, url_of


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.7", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_only_what_cannot_be_reached_from_elsewhere_is_here(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_the_address_to_open_is_one_of_this_machine() -> None:
    with listen("0.0.0.0", 0) as everywhere:  # noqa: S104
        port = everywhere.getsockname()[1]
        assert url_of(everywhere, "/reviews") == f"http://127.0.0.1:{port}/reviews/"


def test_an_address_that_is_taken_is_said_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"port {port}, is in use.*--port"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(CannotListen, match="is not of this machine"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_server_and_what_streams(
    app: FastAPI, sign: signal.Signals
) -> None:
    addresses: asyncio.Queue[str] = asyncio.Queue()
    server = asyncio.create_task(serve(app, port=0, ready=addresses.put_nowait))
    url = await addresses.get()
    async with httpx.AsyncClient(base_url=url, headers={"X-Person": "alice"}) as client:
        async with client.stream("GET", "/api/inbox/events") as stream:
            assert stream.status_code == 200
            assert "server" not in stream.headers
            signal.raise_signal(sign)
            async for _ in stream.aiter_raw():
                pass  # to its end, which comes
        await asyncio.wait_for(server, 3)
        with pytest.raises(httpx.ConnectError):
            await client.get("/api/health")


async def test_a_block_serves_and_at_its_end_streams_have_ended_and_nobody_is_there(
    app: FastAPI,
) -> None:
    interrupted = signal.getsignal(signal.SIGINT)
    async with httpx.AsyncClient(headers={"X-Person": "alice"}) as client:
        async with asyncio.timeout(GRACE), serving(app) as url:
            inbox = client.build_request("GET", f"{url}api/inbox/events")
            stream = await client.send(inbox, stream=True)
            assert stream.status_code == 200
            assert signal.getsignal(signal.SIGINT) is interrupted
        async for _ in stream.aiter_raw():
            pass  # to its end, which comes
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}api/health")


async def test_a_block_serves_other_applications_too() -> None:
    other = FastAPI()
    other.get("/")(lambda: "other")
    async with serving(other) as url, httpx.AsyncClient() as client:
        assert (await client.get(url)).json() == "other"


# --------------------------------------------------------------------------- the command


def hitl(*arguments: str, **environment: str) -> Any:
    unset = dict.fromkeys(("HITL_APP", "HITL_STORE", "HITL_TOKENS", "HITL_SECRET"))
    return CliRunner().invoke(cli, ["serve", *arguments], env={**unset, **environment})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "without --tokens everybody would be you"),  # noqa: S104
        (("--demo", "--app", "shop:workflows"), "leave out --app"),
        (("--tokens", "TOKENS", "--by", "alice"), "leave out --by"),
        (("--tokens", "TOKENS", "--role", "legal"), "leave out --by"),
        (("--tokens", "EMPTY"), "Nobody has a token"),
        (("--tokens", "TOKENS", "--secret", "short"), "at least 32"),
        (("--root-path", "reviews"), "must begin with a slash"),
        (("--by", "role:legal"), "cannot be"),
        (("--port", "70000"), "65535"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_served(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    tokens = NamedTokens(tmp_path / "tokens")
    tokens.add("alice")
    places = {"TOKENS": str(tmp_path / "tokens"), "EMPTY": str(tmp_path / "empty")}
    given = [places.get(word, word) for word in arguments]
    ended = hitl(*given, "--store", str(tmp_path / "runs.db"))
    assert ended.exit_code == 2
    assert said in " ".join(ended.output.replace("│", " ").split())
    assert not (tmp_path / "runs.db").exists()


def test_a_port_that_is_taken_ends_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = hitl("--port", str(port), "--store", str(tmp_path / "runs.db"))
    assert ended.exit_code == 1
    assert f"port {port}, is in use" in ended.output
    assert "Traceback" not in ended.output


def test_lines_about_requests_do_not_say_what_was_looked_for() -> None:
    arguments = ("127.0.0.1:5", "GET", "/requests?text=salary", "1.1", 200)
    record = logging.LogRecord(
        "uvicorn.access", 20, "", 0, '%s - "%s %s HTTP/%s" %d', arguments, None
    )
    assert _without_query(record)
    assert record.getMessage() == '127.0.0.1:5 - "GET /requests HTTP/1.1" 200'
