"""Named tokens, sessions, forms that only our pages can send, and those who guess."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from durable import NOON
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from safe import (
    ANN_TOKEN,
    BOB_TOKEN,
    NEW,
    OLD,
    OTHER,
    app_on,
    bearer,
    client,
    named_tokens,
    sign_in,
)
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from llama_index_hitl.errors import TokenError, TooMany, WeakSecret
from llama_index_hitl.models import Reviewer
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import Limits, NamedTokens
from llama_index_hitl.web._sessions import csrf_token
from llama_index_hitl.web._sign_in import own_path, sign_in_path
from llama_index_hitl.web.limits import Attempts, Streams, address_key
from llama_index_hitl.web.people import Person

CHANGES = "/api/changes"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


def with_probes(app: FastAPI) -> FastAPI:
    """Add what changes something, and what a page shows of a session."""

    @app.post(CHANGES)
    async def change(person: Person) -> str:
        return person.id

    @app.post("/form")
    async def form(request: Request, person: Person) -> PlainTextResponse:
        async with request.form() as form:
            return PlainTextResponse(f"{person.id} {form['said']}")

    @app.get("/token-of-forms")
    async def token_of_forms(request: Request) -> PlainTextResponse:
        return PlainTextResponse(csrf_token(request))

    return app


async def token_of_forms(browser: httpx.AsyncClient) -> str:
    return (await browser.get("/token-of-forms")).text


async def who(browser: httpx.AsyncClient) -> str | None:
    answer = await browser.get("/api/me")
    assert answer.status_code in (200, 401)
    return answer.json()["id"] if answer.is_success else None


# --------------------------------------------------------------------------- tokens


async def test_a_token_says_who_is_asking_and_in_what_roles(clock: ManualClock) -> None:
    async with client(app_on(clock)) as program:
        me = await program.get("/api/me", headers=bearer(ANN_TOKEN))
        assert (me.json()["id"], me.json()["roles"]) == ("ann", ["legal"])
        for wrong in (ANN_TOKEN[:-1], ANN_TOKEN.upper(), "", "\xe4" * 40):
            headers = [(b"Authorization", b"Bearer " + wrong.encode("latin-1"))]
            refused = await program.get("/api/me", headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "not_signed_in"


def test_a_file_of_tokens_holds_none_and_belongs_to_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "tokens.json"
    tokens = NamedTokens(file, clock=ManualClock(NOON))
    token = tokens.add("ann", ["legal", "chief"])

    kept = json.loads(file.read_text())["tokens"][0]
    assert token not in file.read_text()
    assert token[5:20] not in file.read_text()
    assert kept["last4"] == token[-4:]
    assert kept["created"] == NOON.isoformat().replace("+00:00", "Z")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) == len("hitl_") + 43  # 256 bits
    assert tokens.find(token).reviewer == Reviewer(id="ann", roles=("legal", "chief"))
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "tokens.json",
        "tokens.json.lock",
    ]


def test_what_one_process_changes_counts_in_the_others_at_once(tmp_path: Path) -> None:
    here, there = (NamedTokens(tmp_path / "tokens.json") for _ in range(2))
    assert there.all() == ()
    ann, bob = here.add("ann"), there.add("bob")
    assert [token.name for token in here.all()] == ["ann", "bob"]
    assert there.find(ann).name == "ann"
    here.revoke("ann")
    assert there.find(ann) is None
    assert there.find(bob).name == "bob"
    (tmp_path / "tokens.json").unlink()
    assert there.find(bob) is None


def test_a_damaged_file_lets_nobody_in(tmp_path: Path) -> None:
    tokens = NamedTokens(tmp_path / "tokens.json")
    token = tokens.add("ann")
    for damaged in ("", "{", '{"version": 2}', '{"tokens": [{"name": "ann"}]}'):
        (tmp_path / "tokens.json").write_text(damaged)
        with pytest.raises(TokenError, match="cannot be read"):
            tokens.find(token)
        with pytest.raises(TokenError, match="cannot be read"):
            tokens.add("bob")
        assert (tmp_path / "tokens.json").read_text() == damaged


def test_a_name_has_one_token(tmp_path: Path) -> None:
    tokens = NamedTokens(tmp_path / "tokens.json")
    first = tokens.add("ann")
    with pytest.raises(TokenError, match="Revoke it first"):
        tokens.add("ann")
    with pytest.raises(TokenError, match="no token"):
        tokens.revoke("bob")
    tokens.revoke("ann")
    second = tokens.add("ann")
    assert tokens.find(first) is None
    assert tokens.find(second) is not None


def test_a_token_that_could_be_guessed_is_refused_and_not_quoted() -> None:
    with pytest.raises(TokenError, match="at least 32") as refused:
        NamedTokens({"short and secret": Reviewer(id="ann")})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "role:legal", "rule:limit", "x" * 201])
def test_what_is_no_name_gets_no_token(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Reviewer"):
        NamedTokens(tmp_path / "tokens.json").add(name)


# --------------------------------------------------------------------------- sessions


async def test_who_types_a_token_gets_a_session_and_never_sees_the_token_again(
    clock: ManualClock,
) -> None:
    async with client(app_on(clock)) as browser:
        assert await who(browser) is None
        answer = await sign_in(browser, next="/somewhere")
        assert (answer.status_code, answer.headers["location"]) == (303, "/somewhere")
        cookie = answer.headers["set-cookie"]
        assert ANN_TOKEN not in cookie
        assert cookie.startswith("hitl-session=")
        assert cookie.split("; ")[1:] == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=lax"]
        assert await who(browser) == "ann"


async def test_the_cookie_is_for_encrypted_connections_and_this_host_where_it_can_be(
    clock: ManualClock,
) -> None:
    async with client(app_on(clock), "https://reviews.test") as browser:
        answer = await sign_in(browser)
        assert answer.headers["set-cookie"].startswith("__Host-hitl-session=")
        assert "Secure" in answer.headers["set-cookie"]
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert await who(browser) == "ann"
        plain = answer.headers["set-cookie"].replace("__Host-", "").split(";")[0]
        browser.cookies.clear()
        assert (await browser.get("/api/me", headers={"Cookie": plain})).status_code == 401


async def test_under_a_path_the_cookie_goes_there_only(clock: ManualClock) -> None:
    host = Starlette(routes=[Mount("/a/reviews", app_on(clock)), Mount("/b", app_on(clock))])
    async with client(host, "https://reviews.test") as browser:
        answer = await sign_in(browser, base="/a/reviews", next="/a/reviews/runs")
        assert answer.headers["location"] == "/a/reviews/runs"
        assert answer.headers["set-cookie"].startswith("__Secure-hitl-session=")
        assert "Path=/a/reviews;" in answer.headers["set-cookie"]
        assert (await browser.get("/a/reviews/api/me")).json()["id"] == "ann"
        assert (await browser.get("/b/api/me")).status_code == 401
        # Two applications, one above the other, each find their own.
        cookie = answer.headers["set-cookie"].split(";")[0]
        for header in (f"__Secure-hitl-session=x; {cookie}", f"{cookie}; __Secure-hitl-session=x"):
            browser.cookies.clear()
            found = await browser.get("/a/reviews/api/me", headers={"Cookie": header})
            assert found.json()["id"] == "ann"


async def test_a_session_ends_when_its_time_is_over(clock: ManualClock) -> None:
    async with client(app_on(clock)) as browser:
        await sign_in(browser)
        clock.advance(hours=11, minutes=59, seconds=59)
        assert await who(browser) == "ann"
        clock.advance(seconds=1)
        assert await who(browser) is None


async def test_whoever_has_a_copy_of_the_cookie_is_signed_out_too(
    clock: ManualClock, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.json"
    token = NamedTokens(file, clock=clock).add("ann")
    here, there = (
        with_probes(app_on(clock, authenticate=NamedTokens(file), secrets=[OLD])) for _ in range(2)
    )
    async with client(here) as browser, client(there) as thief, client(here) as phone:
        await sign_in(browser, token)
        await sign_in(phone, token)
        thief.cookies = browser.cookies
        copy = dict(browser.cookies)
        assert await who(thief) == "ann"

        form = {"csrf_token": await token_of_forms(browser)}
        out = await browser.post("/sign-out", data=form)
        assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert await who(browser) is None
        thief.cookies.update(copy)
        assert await who(thief) is None  # in another process
        assert await who(phone) == "ann"  # another session of the same person

        # What is remembered of it goes when the cookie would be over by itself.
        clock.advance(hours=13)
        await sign_in(phone, token)
        await phone.post("/sign-out", data={"csrf_token": await token_of_forms(phone)})
        assert len(list((tmp_path / "tokens.json.signed-out").iterdir())) == 1


async def test_nobody_signs_somebody_out_without_a_form_of_ours(clock: ManualClock) -> None:
    async with client(app_on(clock)) as browser:
        await sign_in(browser)
        assert (await browser.post("/sign-out")).status_code == 403
        assert (await browser.get("/sign-out")).status_code == 405
        assert await who(browser) == "ann"


async def test_revoking_a_token_ends_its_sessions_and_a_new_one_does_not_bring_them_back(
    clock: ManualClock,
) -> None:
    tokens = named_tokens(clock)
    async with client(app_on(clock, authenticate=tokens)) as browser:
        await sign_in(browser)
        tokens.revoke("ann")
        assert await who(browser) is None
        tokens.add("ann", ["legal"])
        assert await who(browser) is None


async def test_roles_are_those_of_the_moment(clock: ManualClock, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    token = NamedTokens(file).add("ann", ["intern"])
    async with client(app_on(clock, authenticate=NamedTokens(file))) as browser:
        await sign_in(browser, token)
        kept = json.loads(file.read_text())
        kept["tokens"][0]["roles"] = ["chief"]
        file.write_text(json.dumps(kept, indent=4))
        assert (await browser.get("/api/me")).json()["roles"] == ["chief"]


async def test_each_sign_in_is_a_new_session_and_the_one_before_is_over(
    clock: ManualClock,
) -> None:
    app = app_on(clock)
    async with client(app) as browser, client(app) as attacker:
        await sign_in(attacker, BOB_TOKEN)
        planted = attacker.cookies["hitl-session"]
        browser.cookies = attacker.cookies
        # Whoever is signed in is sent on; so the form is sent as it would be from an old page.
        page = await browser.get("/sign-in", params={"next": "//evil.test"})
        assert (page.status_code, page.headers["location"]) == (303, "/")
        site = app.state.site.sign_in.sessions
        request = Request({"type": "http", "headers": _cookies(browser), "scheme": "http"})
        form = {"token": ANN_TOKEN, "csrf_token": site.form_token(site.of(request))}
        assert (await browser.post("/sign-in", data=form)).status_code == 303
        assert await who(browser) == "ann"
        assert browser.cookies["hitl-session"] != planted
        attacker.cookies.clear()
        header = {"Cookie": f"hitl-session={planted}"}
        assert (await attacker.get("/api/me", headers=header)).status_code == 401


def _cookies(browser: httpx.AsyncClient) -> list[tuple[bytes, bytes]]:
    found = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    return [(b"cookie", found.encode())]


async def test_a_cookie_that_was_not_signed_here_is_none(clock: ManualClock) -> None:
    app, other = app_on(clock, secrets=[NEW]), app_on(clock, secrets=[OTHER])
    async with client(app) as browser, client(other) as elsewhere:
        await sign_in(browser)
        await sign_in(elsewhere)
        good = browser.cookies["hitl-session"]
        payload, signature = good.rsplit(".", 1)
        forged = [
            elsewhere.cookies["hitl-session"],
            good[:-1],
            payload,
            payload + ".",
            "." + signature,
            f"{payload}x.{signature}",
            good + "." + signature,
            "x" * 20_000,
            "",
            # Signed with the same secret, for another purpose.
            app.state.site.sign_in.sessions._forms.sign({"id": "x", "at": 9e9, "person": "ann"}),
        ]
        browser.cookies.clear()
        for cookie in forged:
            answer = await browser.get("/api/me", headers={"Cookie": f"hitl-session={cookie}"})
            assert answer.status_code == 401
        answer = await browser.get("/api/me", headers={"Cookie": f"hitl-session={good}"})
        assert answer.json()["id"] == "ann"


async def test_secrets_are_rotated_with_an_overlap(clock: ManualClock) -> None:
    tokens = named_tokens(clock)
    old, both, new = (
        app_on(clock, authenticate=tokens, secrets=known) for known in ([OLD], [NEW, OLD], [NEW])
    )
    async with client(old) as browser, client(both) as later, client(new) as last:
        await sign_in(browser)
        later.cookies.update(browser.cookies)
        last.cookies.update(browser.cookies)
        assert await who(later) == "ann"
        assert await who(last) is None
        later.cookies.clear()
        await sign_in(later)  # the first one signs
        last.cookies.clear()
        last.cookies.update(later.cookies)
        assert await who(last) == "ann"


@pytest.mark.parametrize("secrets", [[], [""], ["short"], [NEW, "x" * 31], "short"])
def test_a_secret_that_could_be_guessed_is_refused_and_not_quoted(secrets: Any) -> None:
    with pytest.raises(WeakSecret, match="at least 32") as refused:
        app_on(secrets=secrets)
    assert "short" not in str(refused.value).replace("too short", "")


# --------------------------------------------------------------------------- forms


async def test_what_changes_something_comes_from_a_page_of_the_same_session(
    clock: ManualClock,
) -> None:
    app = with_probes(app_on(clock))
    async with client(app) as browser, client(app) as other:
        await sign_in(browser)
        await sign_in(other, BOB_TOKEN)
        own, foreign = await token_of_forms(browser), await token_of_forms(other)
        assert own != foreign

        for wrong in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": foreign}, {"X-CSRF-Token": "ä"}):
            headers = {name: value.encode() for name, value in wrong.items()}
            refused = await browser.post(CHANGES, json={}, headers=headers)
            assert refused.status_code == 403
            assert refused.json()["error"]["type"] == "csrf"
        answer = await browser.post(CHANGES, json={}, headers={"X-CSRF-Token": own})
        assert answer.json() == "ann"

        for form in ({"said": "x"}, {"said": "x", "csrf_token": foreign}):
            assert (await browser.post("/form", data=form)).status_code == 403
            files = {"said": (None, "x")}
            assert (await browser.post("/form", data=form, files=files)).status_code == 403
        form = {"said": "yes", "csrf_token": own}
        assert (await browser.post("/form", data=form)).text == "ann yes"
        answer = await browser.post("/form", data={"csrf_token": own}, files={"said": (None, "y")})
        assert answer.text == "ann y"


async def test_a_token_of_forms_is_for_its_session_and_not_for_the_next(
    clock: ManualClock,
) -> None:
    async with client(with_probes(app_on(clock))) as browser:
        await sign_in(browser)
        before = await token_of_forms(browser)
        await browser.post("/sign-out", data={"csrf_token": before})
        await sign_in(browser)
        refused = await browser.post(CHANGES, json={}, headers={"X-CSRF-Token": before})
        assert refused.status_code == 403


async def test_a_program_with_a_token_needs_no_form(clock: ManualClock) -> None:
    async with client(with_probes(app_on(clock))) as program:
        assert await token_of_forms(program) == ""
        assert (await program.post(CHANGES, json={}, headers=bearer(BOB_TOKEN))).json() == "bob"


async def test_a_bad_token_is_not_made_good_by_a_session(clock: ManualClock) -> None:
    # Else a page that makes a browser send some header would do without the form's token.
    async with client(with_probes(app_on(clock))) as browser:
        await sign_in(browser)
        refused = await browser.post(CHANGES, json={}, headers=bearer("hitl_nonsense"))
        assert refused.status_code == 401
        basic = {"Authorization": "Basic abc"}  # what a proxy has asked for: no token of ours
        assert (await browser.post(CHANGES, json={}, headers=basic)).status_code == 403
        assert (await browser.get("/api/me", headers=basic)).json()["id"] == "ann"


# --------------------------------------------------------------------------- where to go on

HOSTILE = [
    "//evil.test",
    "///evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "/a//evil.test",
    "https://evil.test",
    "https:evil.test",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.test",
    "/%2f/evil.test",
    "/%5cevil.test",
    "/\t/evil.test",
    "/a\r\nSet-Cookie: x=y",
    "/a%0d%0ab",
    " /a",
    "/a/../../b",
    "/a/%2e%2e/b",
    "/./a",
    "http://[",
    "",
]


async def test_nobody_is_sent_elsewhere_after_signing_in(clock: ManualClock) -> None:
    async with client(app_on(clock)) as browser:
        for wanted in HOSTILE:
            browser.cookies.clear()
            answer = await sign_in(browser, next=wanted)
            assert (wanted, answer.headers["location"]) == (wanted, "/")


@pytest.mark.parametrize("wanted", [*HOSTILE, "/", "/other", "/reviewsx", "/reviews"])
def test_nobody_is_sent_out_of_the_application(wanted: str) -> None:
    request = Request({"type": "http", "root_path": "/reviews", "headers": []})
    assert own_path(request, wanted) == "/reviews/"


def test_pages_of_the_application_can_be_gone_on_to() -> None:
    request = Request({"type": "http", "root_path": "/reviews", "headers": []})
    for wanted in ("/reviews/", "/reviews/runs/a%20b?to=https://x.test&q=a+b#x", "/reviews/a/b"):
        assert own_path(request, wanted) == wanted


def test_the_way_to_the_sign_in_leads_back(clock: ManualClock) -> None:
    app = app_on(clock)
    scope = {
        "type": "http",
        "app": app,
        "root_path": "/reviews",
        "path": "/reviews/runs",
        "query_string": b"a=1&b=2",
        "headers": [],
    }
    assert sign_in_path(Request(scope)) == "/reviews/sign-in?next=/reviews/runs%3Fa%3D1%26b%3D2"
    assert sign_in_path(Request({**scope, "app": app_on(authenticate=lambda _: None)})) is None


# --------------------------------------------------------------------------- guessing


async def test_who_guesses_too_often_has_to_wait(clock: ManualClock) -> None:
    app = app_on(clock, limits=Limits(failed_sign_ins=3))
    async with client(app) as browser:
        for number in range(3):
            clock.advance(minutes=1)
            failed = await sign_in(browser, f"hitl_{number}")
            assert failed.status_code == 401
            assert "Nobody has this token" in failed.text
            assert f"hitl_{number}" not in failed.text
        refused = await sign_in(browser)  # even with the right one
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "180")
        assert "set-cookie" not in refused.headers
        clock.advance(seconds=179)
        assert (await sign_in(browser)).status_code == 429
        clock.advance(seconds=1)
        assert (await sign_in(browser)).status_code == 303


async def test_a_program_that_guesses_shuts_out_nobody_but_itself(clock: ManualClock) -> None:
    app = app_on(clock, limits=Limits(failed_sign_ins=2))
    async with client(app) as program:
        for _ in range(2):
            assert (await program.get("/api/me", headers=bearer("no"))).status_code == 401
        refused = await program.get("/api/me", headers=bearer("no"))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "300")
        assert refused.json()["error"]["type"] == "too_many"
        assert (await program.get("/api/me", headers=bearer(ANN_TOKEN))).json()["id"] == "ann"
    async with client(app) as browser:  # of somebody at the same address
        assert (await sign_in(browser)).status_code == 303


def test_the_same_wrong_token_from_everywhere_is_refused_too(clock: ManualClock) -> None:
    app = app_on(clock, limits=Limits(failed_sign_ins=2))
    for number in range(3):
        http = TestClient(app, client=(f"10.0.0.{number}", 5000))
        status = http.get("/api/me", headers=bearer("revoked")).status_code
        assert status == (401 if number < 2 else 429)


def test_what_is_remembered_of_failures_is_bounded(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_index_hitl.web.limits._REMEMBERED", 3)
    attempts = Attempts(Limits(failed_sign_ins=1), clock)
    for number in range(5):
        attempts.failed(str(number))
    assert len(attempts._failed) == 3
    attempts.check("1")
    with pytest.raises(TooMany):
        attempts.check("4")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        (None, "testclient", False),
    ],
)
def test_whoever_has_a_network_has_one_address(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


def test_one_person_may_have_so_many_streams_open() -> None:
    streams = Streams(Limits(streams=2))
    ann, bob = Reviewer(id="ann"), Reviewer(id="bob")
    with streams.opened(ann), streams.opened(bob):
        with streams.opened(ann), pytest.raises(TooMany, match="2 streams") as refused:
            streams.opened(ann).__enter__()
        assert refused.value.retry_after
        with pytest.raises(ConnectionError), streams.opened(ann):
            raise ConnectionError
        with streams.opened(ann):
            pass
    assert not streams._open  # nothing is kept of who is gone


@pytest.mark.parametrize("limit", ["body", "depth", "failed_sign_ins", "streams"])
def test_a_limit_that_lets_nothing_through_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        Limits(**{limit: 0})
