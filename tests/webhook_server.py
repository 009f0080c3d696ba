"""A receiver of webhooks on 127.0.0.1, real and as ill-behaved as a test wants it.

    with WebhookServer(Reply(500), Reply(200)) as server:
        notifier = WebhookNotifier(server.url, secret)

Each POST takes the next reply; when none is left, it is answered with 204.
"""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_PIECE = b"x" * 65_536


@dataclass(frozen=True)
class Reply:
    """How to answer.

    Attributes:
        status: The status code.
        headers: Headers to send.
        body: The body.
        endless: Go on sending after the body until the client has had enough.
        silent_before: Say nothing until the server is closed: before the `status`, or the `body`.
        cut: Close the connection without an answer.
    """

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    endless: bool = False
    silent_before: str | None = None
    cut: bool = False


@dataclass(frozen=True)
class Received:
    """What came in, byte for byte."""

    path: str
    headers: dict[str, str]
    body: bytes


class WebhookServer:
    """Receives while its context is open."""

    def __init__(self, *replies: Reply) -> None:
        self.received: list[Received] = []
        self.sent_pieces = 0
        self._replies = list(replies)
        self._some = threading.Event()
        self._closing = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"http://127.0.0.1:{self._server.server_port}/hooks?token=t0ken"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next_reply(self, received: Received) -> Reply:
        """Keep what came in and say how to answer."""
        self.received.append(received)
        self._some.set()
        return self._replies.pop(0) if self._replies else Reply()

    def wait_for_one(self) -> None:
        """Wait until something came in."""
        self._some.wait()

    def wait_until_closed(self) -> None:
        """Keep the client waiting."""
        self._closing.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the answers under way
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    owner: WebhookServer
    protocol_version = "HTTP/1.0"  # closes the connection after each answer
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet: what came in is in the record."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.owner.next_reply(Received(self.path, headers, body))
        if reply.cut:
            return
        try:
            self._answer(reply)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, reply: Reply) -> None:
        if reply.silent_before == "status":
            self.owner.wait_until_closed()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        if reply.silent_before == "body":
            self.owner.wait_until_closed()
        self.wfile.write(reply.body)
        while reply.endless:
            self.wfile.write(_PIECE)
            self.owner.sent_pieces += 1
