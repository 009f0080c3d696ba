"""A person's own editor. Private: `llama_index_hitl.console` is the door."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from llama_index_hitl.errors import HitlError


class EditorFailed(HitlError):
    """The editor could not be used; the message says why. Nothing was changed.

    Example:
        >>> import os
        >>> os.environ["VISUAL"] = "no-such-editor"
        >>> edit_text("Mice are small.")
        Traceback (most recent call last):
            ...
        llama_index_hitl.console._editor.EditorFailed: The editor 'no-such-editor' could not
        be started: No such file or directory.
    """


def editor_command() -> str | None:
    """Return the command of the person's editor; None: they have not said."""
    named = (os.environ.get(name, "").strip() for name in ("VISUAL", "EDITOR"))
    return next((command for command in named if command), None)


def edit_text(
    text: str,
    suffix: str = ".txt",
    *,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> str | None:
    """Let the person at this terminal change a text in their editor, and wait until they have.

    Their editor is what `VISUAL` or else `EDITOR` in the environment says, options included.

    Args:
        text: The text to start from.
        suffix: How the name of the file ends, so that the editor knows what it is.
        stdin: The terminal to read from; the program's own, if left out.
        stdout: The terminal to write to; the program's own, if left out.

    Returns:
        The text as they left it; None: they left it as it was. The file is gone.

    Raises:
        EditorFailed: There is no editor, or it could not be started, failed, or left something
            that is no text.

    Example:
        >>> import os
        >>> os.environ["VISUAL"] = "sed -i s/small/grey/"  # an editor that needs nobody
        >>> edit_text("Mice are small.")
        'Mice are grey.'
    """
    argv = _editor()
    # A folder of its own, so that backups that an editor leaves beside the file go too.
    with tempfile.TemporaryDirectory(prefix="hitl-", ignore_cleanup_errors=True) as folder:
        file = Path(folder, f"edit{suffix}")
        file.write_bytes(text.encode())
        try:
            ended = subprocess.run(  # noqa: S603 - the person's own command, and no shell
                [*argv, str(file)], stdin=_number_of(stdin), stdout=_number_of(stdout), check=False
            )
        except OSError as error:
            reason = error.strerror or error
            raise EditorFailed(f"The editor {argv[0]!r} could not be started: {reason}.") from None
        if ended.returncode != 0:
            raise EditorFailed(f"The editor ended with status {ended.returncode}.")
        edited = _text_in(file, text)
    return None if edited == text else edited


def _editor() -> list[str]:
    command = editor_command()
    if command is None:
        raise EditorFailed("There is no editor: set VISUAL or EDITOR.")
    try:
        return shlex.split(command)
    except ValueError as error:
        raise EditorFailed(f"The editor command {command!r} cannot be read: {error}.") from None


def _text_in(file: Path, before: str) -> str:
    try:
        after = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise EditorFailed(f"What the editor left cannot be read: {error}.") from None
    # Editors end a file with a line end, whether the text had one or not.
    return after if before.endswith("\n") else after.removesuffix("\n")


def _number_of(stream: TextIO | None) -> int | None:
    with suppress(OSError, ValueError):
        return None if stream is None else stream.fileno()
    return None
