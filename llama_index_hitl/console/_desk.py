"""A person at a terminal: screen, keyboard, editor and name. Private to `console`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from io import StringIO
from typing import TextIO, TypeAlias

from pydantic import ValidationError

from llama_index_hitl._extras import require
from llama_index_hitl._text import visible
from llama_index_hitl.clock import Clock
from llama_index_hitl.console._editor import edit_text, editor_command
from llama_index_hitl.console._keyboard import Keyboard, UnreadableLine
from llama_index_hitl.models import Reviewer

EditorFunction: TypeAlias = Callable[[str, str], str | None]
"""Takes a text and the suffix of a file name; returns the new text, or None: it is as it was."""


class Desk:
    """Where one person sits.

    Attributes:
        view: What they see.
        keyboard: What they type.
        clock: Where the time comes from.
        person: Who they are; None: not asked yet.
        draft: The last text that an editor left, with the id of the request that it belongs to.
        instructed: The instructions that were given, so that each is given once.

    Raises:
        MissingExtra: Rich is not installed.
    """

    def __init__(
        self,
        reviewer: Reviewer | str | None,
        stdin: TextIO | None,
        stdout: TextIO | None,
        clock: Clock,
        editor: EditorFunction | None,
    ) -> None:
        require("rich", extra="cli", purpose="reviewing in the terminal")
        from llama_index_hitl.console._view import View

        self._stdin: TextIO = stdin or sys.stdin or StringIO()
        self._stdout: TextIO = stdout or sys.stdout
        self._editor = editor
        self.view = View(self._stdout)
        self.keyboard = Keyboard(self._stdin)
        self.clock = clock
        self.person = Reviewer(id=reviewer) if isinstance(reviewer, str) else reviewer
        self.draft: tuple[str, str] | None = None
        self.instructed: set[str] = set()

    async def ask(self, prompt: str) -> str:
        """Return one line that the person types.

        Raises:
            Left: They left, or there is no more input.
            Closed: What is being asked has been settled elsewhere.
        """
        while True:
            self.view.prompt(prompt)
            try:
                line = await self.keyboard.line()
            except UnreadableLine:
                self.view.answered("")
                self.view.problem("That line is not text in the encoding of this terminal.")
                continue
            seen = self.keyboard.is_terminal and self.view.is_terminal
            self.view.answered(None if seen else line)
            return line

    async def ask_text(self, prompt: str) -> str:
        """Return a text of one or more lines; a backslash at the end of one goes on in the next."""
        return await self.continued(await self.ask(prompt))

    async def continued(self, line: str) -> str:
        """Return a text whose first line has been typed; two backslashes at its end are text."""
        lines = [line]
        while lines[-1].endswith("\\") and not lines[-1].endswith("\\\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(await self.ask("… "))
        return "\n".join(lines)

    def instruct(self, text: str) -> None:
        """Give an instruction the first time that it is needed."""
        if text not in self.instructed:
            self.instructed.add(text)
            self.view.note(text)

    async def identify(self) -> Reviewer:
        """Return who the person is; asks for the name the first time, and never guesses it."""
        while self.person is None:
            name = (await self.ask("Your name, for the record: ")).strip()
            if not name or visible(name) != name:
                self.view.problem("Every decision is on record with a name: type yours.")
                continue
            try:
                self.person = Reviewer(id=name)
            except ValidationError:
                self.view.problem("That is too long for a name.")
        return self.person

    @property
    def can_edit(self) -> bool:
        """Whether there is an editor to use; a real one needs a terminal."""
        if self._editor is not None:
            return True
        at_terminal = self.keyboard.is_terminal and self.view.is_terminal
        return at_terminal and editor_command() is not None

    async def edit(self, text: str, suffix: str) -> str | None:
        """Let the person change a text in an editor; None: they left it as it was.

        Raises:
            EditorFailed: The editor could not be used.
        """
        editor = self._editor or partial(edit_text, stdin=self._stdin, stdout=self._stdout)
        with self.keyboard.lent():
            return await asyncio.to_thread(editor, text, suffix)
