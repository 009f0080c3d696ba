"""The commands that say who may sign in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llama_index_hitl.cli import app
from llama_index_hitl.models import Reviewer
from llama_index_hitl.web import NamedTokens


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HITL_TOKENS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def hitl(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tokens", *arguments])


def test_a_token_is_printed_once_listed_and_revoked() -> None:
    added = hitl("add", "ann", "--role", "legal", "--role", "chief")
    assert added.exit_code == 0
    token = added.stdout.strip()  # nothing else, so that a program can take it from there
    assert "not shown again" in added.stderr
    found = NamedTokens("hitl-tokens.json").find(token)
    assert found is not None
    assert found.reviewer == Reviewer(id="ann", roles=("legal", "chief"))

    listed = hitl("list").output
    assert all(words in listed for words in ("ann", "legal, chief", f"…{token[-4:]}"))
    assert token not in listed

    assert "counts for nothing" in hitl("revoke", "ann").output
    assert NamedTokens("hitl-tokens.json").find(token) is None
    assert "There is no token" in hitl("list").output


def test_programs_get_documents() -> None:
    added = json.loads(hitl("add", "ann", "--json", "--tokens", "mine.json").stdout)
    (listed,) = json.loads(hitl("list", "--json", "--tokens", "mine.json").stdout)["tokens"]
    assert NamedTokens("mine.json").find(added.pop("token")) is not None
    assert added == listed
    assert set(listed) == {"name", "roles", "created", "last4"}
    gone = json.loads(hitl("revoke", "ann", "--json", "--tokens", "mine.json").stdout)
    assert gone == {"revoked": listed}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "ann"), 1, "Revoke it first"),
        (("add", "role:legal"), 2, "without 'role:'"),
        (("add", " "), 2, "cannot be"),
        (("revoke", "bob"), 1, "has no token"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    hitl("add", "ann")
    before = Path("hitl-tokens.json").read_text()
    refused = hitl(*arguments)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (code, 1)
    assert said in refused.stderr
    assert Path("hitl-tokens.json").read_text() == before


def test_a_damaged_file_is_left_as_it_is() -> None:
    Path("hitl-tokens.json").write_text("{}}")
    for arguments in (("add", "ann"), ("list",), ("revoke", "ann")):
        refused = hitl(*arguments)
        assert refused.exit_code == 1
        assert "cannot be read" in refused.stderr
    assert Path("hitl-tokens.json").read_text() == "{}}"
