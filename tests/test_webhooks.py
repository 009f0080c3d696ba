"""Webhooks, sent to a real server on this machine, and checked as a receiver would."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import brief, json_objects, texts, thorough
from webhook_server import Reply, WebhookServer

from llama_index_hitl.errors import NoticeRefused, NotifierError, NotifyFailed, WebhookInvalid
from llama_index_hitl.notifiers import (
    WebhookNotifier,
    new_webhook_secret,
    sign_webhook,
    verify_webhook,
)
from llama_index_hitl.stores.protocol import Notice, NoticeKind
from llama_index_hitl.testing import ManualClock

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRET, OTHER = ("whsec_" + base64.b64encode(bytes(range(n, n + 32))).decode() for n in (0, 100))

# The worked example that the libraries of Standard Webhooks are tested with.
KNOWN_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
KNOWN_BODY = b'{"test": 2432232314}'
KNOWN_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
KNOWN_AT = datetime.fromtimestamp(1614265330, UTC)


def notice(**changes):
    values = {
        "notice_id": "n-1",
        "kind": NoticeKind.OPENED,
        "run_id": "run-1",
        "at": NOW - timedelta(hours=1),
        "due": NOW,
        "request_id": "gate-1",
        "payload": {"title": "A draft"},
    }
    return Notice(**{**values, **changes})


def notifier_to(server, secret=SECRET, **options):
    return WebhookNotifier(server.url, secret, clock=ManualClock(NOW), **options)


# --------------------------------------------------------------------------- signatures


def test_the_known_example_is_signed_as_known():
    headers = sign_webhook(
        KNOWN_BODY, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", at=KNOWN_AT, secrets=KNOWN_SECRET
    )
    assert headers == KNOWN_HEADERS


def test_the_known_example_verifies():
    found = verify_webhook(KNOWN_BODY, KNOWN_HEADERS, KNOWN_SECRET, now=KNOWN_AT)
    assert found == {"test": 2432232314}


@brief
@given(json_objects, st.integers(-299, 299))
def test_what_was_signed_verifies_within_the_tolerance(value, seconds):
    body = json.dumps(value).encode()
    headers = sign_webhook(body, message_id="m", at=NOW, secrets=SECRET)
    found = verify_webhook(body, headers, SECRET, now=NOW + timedelta(seconds=seconds))
    assert found == value


def test_header_names_in_any_case_are_the_same():
    headers = {name.title(): value for name, value in KNOWN_HEADERS.items()}
    assert verify_webhook(KNOWN_BODY, headers, KNOWN_SECRET, now=KNOWN_AT)


def test_while_secrets_rotate_either_end_may_be_ahead():
    both = sign_webhook(b"{}", message_id="m", at=NOW, secrets=[SECRET, OTHER])
    assert both["webhook-signature"].count("v1,") == 2
    for known in (SECRET, OTHER, [OTHER, SECRET]):
        assert verify_webhook(b"{}", both, known, now=NOW) == {}
    one = sign_webhook(b"{}", message_id="m", at=NOW, secrets=OTHER)
    assert verify_webhook(b"{}", one, [SECRET, OTHER], now=NOW) == {}


def test_signatures_of_other_kinds_and_nonsense_are_passed_over():
    given = KNOWN_HEADERS["webhook-signature"]
    for more in ("v1a,abc", "v2," + given[3:], "v1,", ",", "v1,ä\ud800", ""):
        headers = {**KNOWN_HEADERS, "webhook-signature": f"{more} {given}"}
        assert verify_webhook(KNOWN_BODY, headers, KNOWN_SECRET, now=KNOWN_AT)
        with pytest.raises(WebhookInvalid, match=r"None of its signatures|has no"):
            verify_webhook(
                KNOWN_BODY, {**headers, "webhook-signature": more}, KNOWN_SECRET, now=KNOWN_AT
            )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-id": "msg_other"}, "None of its signatures"),
        ({"webhook-timestamp": "1614265331"}, "None of its signatures"),
        ({"webhook-timestamp": "1614265029"}, "more than 0:05:00 before or after"),
        ({"webhook-timestamp": "1614265631"}, "more than 0:05:00 before or after"),
        ({"webhook-timestamp": "9" * 5_000}, "not a number of seconds"),
        ({"webhook-timestamp": "1614265330.0"}, "not a number of seconds"),
        ({"webhook-timestamp": "-1614265330"}, "not a number of seconds"),
        ({"webhook-timestamp": "١٦١٤٢٦٥٣٣٠"}, "not a number of seconds"),
        ({"webhook-id": ""}, "no webhook-id"),
        ({"webhook-signature": ""}, "no webhook-signature"),
    ],
)
def test_a_header_that_was_tampered_with_is_refused(change, reason):
    with pytest.raises(WebhookInvalid, match=reason):
        verify_webhook(KNOWN_BODY, KNOWN_HEADERS | change, KNOWN_SECRET, now=KNOWN_AT)


def test_headers_that_are_missing_are_named():
    with pytest.raises(WebhookInvalid, match="no webhook-id and no webhook-timestamp and no web"):
        verify_webhook(KNOWN_BODY, {"content-type": "x"}, KNOWN_SECRET, now=KNOWN_AT)


@thorough
@given(st.integers(0, len(KNOWN_BODY) - 1), st.integers(1, 255))
def test_a_body_that_was_tampered_with_is_refused(place, by):
    body = bytearray(KNOWN_BODY)
    body[place] ^= by
    with pytest.raises(WebhookInvalid, match="None of its signatures"):
        verify_webhook(bytes(body), KNOWN_HEADERS, KNOWN_SECRET, now=KNOWN_AT)


def test_a_stranger_cannot_sign():
    headers = sign_webhook(b"{}", message_id="m", at=NOW, secrets=OTHER)
    with pytest.raises(WebhookInvalid, match="None of its signatures"):
        verify_webhook(b"{}", headers, SECRET, now=NOW)


@pytest.mark.parametrize("body", [b"[]", b"", b"\xff", b"[" * 100_000, b'"text"'])
def test_a_signed_body_that_is_no_object_is_refused(body):
    headers = sign_webhook(body, message_id="m", at=NOW, secrets=SECRET)
    with pytest.raises(WebhookInvalid, match="not a JSON object"):
        verify_webhook(body, headers, SECRET, now=NOW)


@brief
@given(st.dictionaries(st.sampled_from(sorted(KNOWN_HEADERS)), st.text()), st.binary())
def test_no_webhook_at_all_raises_anything_else(headers, body):
    with pytest.raises(WebhookInvalid):
        verify_webhook(body, {**KNOWN_HEADERS, **headers}, SECRET, now=KNOWN_AT)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hunter2hunter2",
        "whsec_",
        "whsec_????",
        "whsec_hunter2hunter2",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        SECRET.removeprefix("whsec_"),
        SECRET + "\n",
        "whsec_" + "ä" * 40,
    ],
)
def test_what_is_no_secret_is_refused_and_not_quoted(secret):
    with pytest.raises(NotifierError, match="A webhook secret is whsec_ and 24 to 64") as caught:
        WebhookNotifier("https://example.com", [SECRET, secret])
    assert "hunter2" not in str(caught.value)


def test_a_webhook_without_a_secret_is_refused():
    with pytest.raises(NotifierError, match="needs a secret"):
        WebhookNotifier("https://example.com", [])


def test_a_new_secret_is_a_secret_and_new():
    one, other = new_webhook_secret(), new_webhook_secret()
    assert one != other
    headers = sign_webhook(b"{}", message_id="m", at=NOW, secrets=one)
    assert verify_webhook(b"{}", headers, one, now=NOW) == {}


# --------------------------------------------------------------------------- sending


async def test_a_notice_is_posted_and_signed():
    with WebhookServer(Reply(200)) as server:
        await notifier_to(server).notify(notice())
    (got,) = server.received
    assert got.path == "/hooks?token=t0ken"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == "n-1"
    assert got.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    # Worked out here anew, not with the code under test.
    signed = b"n-1." + str(int(NOW.timestamp())).encode() + b"." + got.body
    digest = hmac.new(bytes(range(32)), signed, hashlib.sha256).digest()
    assert got.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert verify_webhook(got.body, got.headers, SECRET, now=NOW) == {
        "type": "hitl.opened",
        "timestamp": "2026-01-01T11:00:00+00:00",
        "data": {
            "notice_id": "n-1",
            "run_id": "run-1",
            "request_id": "gate-1",
            "payload": {"title": "A draft"},
        },
    }


async def test_text_in_any_script_arrives_as_it_is():
    payload = {"title": "Prüfung 日本 🙂 \u2028 \x00", "nested": [1, None, {"ß": 1.5}]}
    with WebhookServer() as server:
        await notifier_to(server).notify(notice(payload=payload, request_id="Prüfung-1"))
    (got,) = server.received
    data = verify_webhook(got.body, got.headers, SECRET, now=NOW)["data"]
    assert (data["payload"], data["request_id"]) == (payload, "Prüfung-1")
    assert "日本".encode() in got.body


@pytest.mark.parametrize("notice_id", ["a.b", "Prüfung-1", "a\r\nx: y", "", "x" * 10_000])
async def test_an_id_that_does_not_fit_into_a_header_is_told_in_the_body(notice_id):
    with WebhookServer() as server:
        await notifier_to(server).notify(notice(notice_id=notice_id))
        await notifier_to(server).notify(notice(notice_id=notice_id))
    one, other = server.received
    assert one.headers["webhook-id"] == other.headers["webhook-id"]
    assert one.headers["webhook-id"].isascii()
    assert "." not in one.headers["webhook-id"]
    data = verify_webhook(one.body, one.headers, SECRET, now=NOW)["data"]
    assert data["notice_id"] == notice_id


async def test_every_secret_signs():
    with WebhookServer() as server:
        await notifier_to(server, [SECRET, OTHER]).notify(notice())
    (got,) = server.received
    for secret in (SECRET, OTHER):
        assert verify_webhook(got.body, got.headers, secret, now=NOW)


async def test_the_time_of_sending_is_signed_not_that_of_the_first_attempt():
    clock = ManualClock(NOW)
    with WebhookServer(Reply(500), Reply(200)) as server:
        notifier = WebhookNotifier(server.url, SECRET, clock=clock)
        with pytest.raises(NotifyFailed, match="answered 500"):
            await notifier.notify(notice())
        clock.advance(days=2)
        await notifier.notify(notice())
    first, second = server.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert verify_webhook(second.body, second.headers, SECRET, now=NOW + timedelta(days=2))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_means_told(status):
    with WebhookServer(Reply(status)) as server:
        await notifier_to(server).notify(notice())


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 500, 502, 503, 599])
async def test_any_other_answer_means_not_told(status):
    with (
        WebhookServer(Reply(status)) as server,
        pytest.raises(NotifyFailed, match=f"answered {status}") as caught,
    ):
        await notifier_to(server).notify(notice())
    assert not isinstance(caught.value, NoticeRefused)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    with (
        WebhookServer() as elsewhere,
        WebhookServer(Reply(status, {"Location": elsewhere.url})) as server,
        pytest.raises(NotifyFailed, match="a redirect, which is not followed"),
    ):
        await notifier_to(server).notify(notice())
    assert elsewhere.received == []


async def test_a_redirect_is_not_followed_by_a_client_that_follows_redirects_either():
    with WebhookServer() as elsewhere, WebhookServer(Reply(307, {"Location": elsewhere.url})) as it:
        async with httpx.AsyncClient(follow_redirects=True, trust_env=False) as client:
            with pytest.raises(NotifyFailed, match="a redirect"):
                await notifier_to(it, client=client).notify(notice())
    assert elsewhere.received == []


async def test_gone_means_never_again():
    with WebhookServer(Reply(410)) as server, pytest.raises(NoticeRefused, match="no more of them"):
        await notifier_to(server).notify(notice())


@pytest.mark.parametrize("silent_before", ["status", "body"])
@pytest.mark.parametrize("status", [200, 500])
async def test_a_server_that_says_nothing_more_is_not_waited_for(silent_before, status):
    with WebhookServer(Reply(status, silent_before=silent_before)) as server:
        notifier = notifier_to(server, timeout=timedelta(milliseconds=200))
        if (silent_before, status) == ("body", 200):
            await notifier.notify(notice())
            return
        said = "did not answer within 0.2 seconds" if silent_before == "status" else "answered 500"
        with pytest.raises(NotifyFailed, match=said):
            await notifier.notify(notice())


async def test_a_time_limit_of_the_clients_own_does_not_shorten_ours():
    with WebhookServer(Reply(200, silent_before="status")) as server:
        async with httpx.AsyncClient(timeout=0.001, trust_env=False) as client:
            notifier = notifier_to(server, client=client, timeout=timedelta(milliseconds=300))
            with pytest.raises(NotifyFailed, match=r"within 0\.3 seconds"):
                await notifier.notify(notice())


async def test_a_cancelled_notifier_is_cancelled():
    with WebhookServer(Reply(200, silent_before="status")) as server:
        task = asyncio.create_task(notifier_to(server).notify(notice()))
        await asyncio.to_thread(server.wait_for_one)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("status", [200, 500])
async def test_an_endless_answer_is_not_read(status):
    with WebhookServer(Reply(status, endless=True)) as server:
        sending = notifier_to(server).notify(notice())
        if status == 200:
            await sending
        else:
            with pytest.raises(NotifyFailed, match="answered 500"):
                await sending
    # Only what the two sockets hold was sent before the connection was closed.
    assert server.sent_pieces < 500


async def test_headers_without_end_are_a_failure():
    many = {f"x-{n}": "y" * 1_000 for n in range(1_000)}
    with (
        WebhookServer(Reply(200, many)) as server,
        pytest.raises(NotifyFailed, match="cannot be reached"),
    ):
        await notifier_to(server).notify(notice())


async def test_a_connection_that_is_cut_is_a_failure():
    with (
        WebhookServer(Reply(cut=True)) as server,
        pytest.raises(NotifyFailed, match=r"cannot be reached \(RemoteProtocolError\)"),
    ):
        await notifier_to(server).notify(notice())


async def test_a_server_that_is_not_there_is_a_failure():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        notifier = WebhookNotifier(f"http://127.0.0.1:{taken.getsockname()[1]}/", SECRET)
        with pytest.raises(NotifyFailed, match=r"cannot be reached \(ConnectError\)"):
            await notifier.notify(notice())


async def test_a_server_that_does_not_speak_tls_is_a_failure():
    with WebhookServer() as server:
        notifier = WebhookNotifier(server.url.replace("http:", "https:"), SECRET)
        with pytest.raises(NotifyFailed, match="cannot be reached"):
            await notifier.notify(notice())
    assert server.received == []


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("0", 0),
        ("120", 120),
        ("86400", 86_400),
        ("99999999999999999999", 999_999_999),
        ("Thu, 01 Jan 2026 12:02:00 GMT", 120),
        ("Thu, 01 Jan 2026 13:02:00 +0100", 120),
        ("Thu, 01 Jan 2026 12:02:00 -0000", 120),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("Thu, 01 Jan 2099 12:00:00 GMT", 2_303_683_200),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Thu, 32 Jan 2026 12:02:00 GMT", None),
    ],
)
async def test_how_long_the_receiver_asks_to_wait_is_kept(said, wait):
    with (
        WebhookServer(Reply(503, {"Retry-After": said})) as server,
        pytest.raises(NotifyFailed) as caught,
    ):
        await notifier_to(server).notify(notice())
    assert caught.value.retry_after == (None if wait is None else timedelta(seconds=wait))


async def test_a_wait_that_nobody_asked_for_is_not_known():
    with WebhookServer(Reply(503)) as server, pytest.raises(NotifyFailed) as caught:
        await notifier_to(server).notify(notice())
    assert caught.value.retry_after is None


header_values = st.text(
    st.characters(min_codepoint=32, max_codepoint=255), max_size=40
) | st.from_regex(
    r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:+]{0,9} [A-Z0-9+-]{0,6}",
    fullmatch=True,
)


@thorough
@given(header_values)
def test_whatever_the_receiver_asks_is_a_time_or_nothing(said):
    async def answer(request):
        return httpx.Response(503, headers={b"retry-after": said.encode("latin-1")})

    async def send():
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            notifier = WebhookNotifier(
                "https://example.com", SECRET, client=client, clock=ManualClock(NOW)
            )
            await notifier.notify(notice())

    with pytest.raises(NotifyFailed) as caught:
        asyncio.run(send())
    wait = caught.value.retry_after
    assert wait is None or wait >= timedelta()


# --------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hooks",
        "https://127.0.0.1/",
        "http://localhost:8000/hooks",
        "http://127.0.0.1/",
        "http://127.8.8.8:99/",
        "http://[::1]:8000/",
    ],
)
def test_an_address_that_nobody_can_listen_to_is_taken(url):
    WebhookNotifier(url, SECRET)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hooks",
        "http://10.0.0.1/",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "http://127.0.0.1@example.com/",
        "http://0.0.0.0/",
        "http://[::ffff:10.0.0.1]/",
    ],
)
def test_an_address_in_the_clear_is_refused_unless_the_host_insists(url):
    with pytest.raises(
        NotifierError, match=r"in the clear\. Use https://, or give allow_http=True"
    ):
        WebhookNotifier(url, SECRET)
    WebhookNotifier(url, SECRET, allow_http=True)


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "/hooks", "ftp://example.com/", "file:///etc/passwd", "https://",
     "https:///hooks", "https://[", "https://exa mple.com/", "https://a:b:c/", "http://\x00/"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url):
    with pytest.raises(NotifierError, match="address"):
        WebhookNotifier(url, SECRET)


async def test_neither_errors_nor_names_give_the_secret_or_the_token_away():
    with WebhookServer(
        Reply(500), Reply(307, {"Location": "/x"}), Reply(410), Reply(cut=True)
    ) as s:
        notifier = WebhookNotifier(s.url.replace("//", "//user:pa55@"), SECRET)
        said = [repr(notifier), str(notifier), notifier.name]
        for _ in range(4):
            with pytest.raises(NotifyFailed) as caught:
                await notifier.notify(notice())
            said.append(str(caught.value))
        port = s.url.split(":")[2].split("/")[0]
    told = " ".join(said)
    assert f"http://127.0.0.1:{port}" in told
    for hidden in ("t0ken", "pa55", SECRET, SECRET[6:]):
        assert hidden not in told


def test_the_name_is_the_same_in_every_process_and_tells_addresses_apart():
    one, again, other = (
        WebhookNotifier(f"https://example.com/{path}", SECRET).name for path in ("a", "a", "b")
    )
    assert one == again != other
    assert one.startswith("https://example.com ")
    assert WebhookNotifier("https://example.com", SECRET, name="crm").name == "crm"


async def test_what_may_go_in_the_clear_does_not_go_through_a_proxy(monkeypatch):
    with WebhookServer() as proxy, WebhookServer() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await notifier_to(server).notify(notice())
    assert (len(proxy.received), len(server.received)) == (0, 1)


async def test_a_client_of_ones_own_is_used_and_left_open():
    async with httpx.AsyncClient(headers={"x-mine": "yes"}, trust_env=False) as client:
        with WebhookServer() as server:
            for _ in range(2):
                await notifier_to(server, client=client).notify(notice())
        assert not client.is_closed
    assert [got.headers["x-mine"] for got in server.received] == ["yes", "yes"]


@pytest.mark.parametrize("module", ["llama_index_hitl", "llama_index_hitl.notifiers"])
def test_the_http_client_is_imported_when_it_is_needed(module):
    code = f"import sys, {module}; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@brief
@given(texts)
def test_any_secret_of_the_right_length_signs(words):
    key = hashlib.sha256(words.encode()).digest()
    for text in (base64.b64encode(key).decode(), base64.b64encode(key).decode().rstrip("=")):
        headers = sign_webhook(b"{}", message_id="m", at=NOW, secrets=f"whsec_{text}")
        expected = hmac.new(key, f"m.{int(NOW.timestamp())}.{{}}".encode(), hashlib.sha256)
        assert headers["webhook-signature"] == (
            "v1," + base64.b64encode(expected.digest()).decode()
        )
