"""The notebook's reviewer where there is no notebook, or not all that it needs."""

from __future__ import annotations

import io
import sys

import pytest
from notebook_flows import Publishing

from llama_index_hitl.errors import MissingExtra, Unanswered
from llama_index_hitl.notebook import Inbox, review_in_notebook
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore


async def test_without_a_notebook_it_asks_in_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("approve\n"))
    found = await review_in_notebook(Publishing(timeout=None).run(), reviewer="erin")
    assert found == "published: Mice at sea, 2 pages"
    assert "Publish Mice at sea?" in capsys.readouterr().out


async def test_who_leaves_leaves_the_run_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Publishing(timeout=None).run()
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(Unanswered):
        await review_in_notebook(handler, reviewer="erin")
    monkeypatch.setattr(sys, "stdin", io.StringIO("reject\n"))
    assert await review_in_notebook(handler, reviewer="ada") == "not published"


@pytest.mark.parametrize("module", ["ipywidgets", "nh3"])
async def test_what_is_missing_is_named_with_the_line_that_installs_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'llama-index-hitl\[notebook\]'"):
        Inbox(Runner(MemoryStore()), reviewer="erin")
    handler = Publishing(timeout=None).run()
    with pytest.raises(MissingExtra, match="reviewing in a notebook"):
        await review_in_notebook(handler, reviewer="erin")
    await handler.cancel_run()
