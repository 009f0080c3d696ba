"""How a command ends when it cannot do what it was asked: one line, and an exit code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, NoReturn, ParamSpec

import typer

from llama_index_hitl.errors import AnswerRefused, HitlError

P = ParamSpec("P")

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


class Misused(Exception):
    """A command was given something that cannot work; the message says what would."""


def fail(message: str, *, code: int = FAILED) -> NoReturn:
    """Say in one line on the standard error what went wrong, and end the program."""
    from llama_index_hitl.console._words import one_line

    with suppress(OSError):  # the output may be what has failed
        sys.stdout.flush()
    typer.echo(f"Error: {one_line(message)}", err=True)
    raise typer.Exit(code)


def ends_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """Let the errors of a command end in one line and an exit code.

    With `--json` the error is printed as a document as well.
    """

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            fail("Interrupted.", code=INTERRUPTED)
        except (Misused, HitlError) as error:
            if options.get("as_json"):
                print_json({"error": error_document(error)})
            fail(str(error), code=MISUSED if isinstance(error, Misused) else FAILED)
        except BrokenPipeError:
            raise  # whoever read the output has enough of it
        except OSError as error:
            fail(str(error))

    return run


def error_document(error: Exception) -> dict[str, Any]:
    """Return an error as JSON: its stable code, its message, and what is wrong field by field."""
    problems = error.problems if isinstance(error, AnswerRefused) else ()
    return {
        "code": error.code if isinstance(error, AnswerRefused) else _code_of(error),
        "message": str(error),
        "problems": [{"field": p.field, "message": p.message} for p in problems],
    }


def _code_of(error: Exception) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()


def print_json(document: Any) -> None:
    """Print one JSON document, in ASCII: nothing in it can act on a terminal."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
