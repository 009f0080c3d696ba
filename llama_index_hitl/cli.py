"""The command line: `hitl demo` takes a run from draft to decision in the terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from llama_index_hitl._demo import Rewrite, openai_model, scripted_model, start_demo
from llama_index_hitl.console import EditorFailed, edit_text, review_in_console
from llama_index_hitl.errors import HitlError, Unanswered
from llama_index_hitl.prebuilt import DraftResult, ReportResult, ResultStatus, ReviewResult
from llama_index_hitl.prebuilt._base import DEFAULT_MODEL
from llama_index_hitl.prebuilt.claim import ClaimResult
from llama_index_hitl.prebuilt.code import CodeResult

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

app = typer.Typer(
    name="hitl",
    help="Human-in-the-loop for LlamaIndex Workflows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Scenario(StrEnum):
    """What the demo can show."""

    DOCUMENT = "document"
    CODE = "code"
    CLAIM = "claim"
    REPORT = "report"


class RevisedBy(StrEnum):
    """Who makes the next draft."""

    MODEL = "model"
    HAND = "hand"


@app.callback()
def hitl() -> None:
    """Human-in-the-loop for LlamaIndex Workflows."""


@app.command()
def demo(
    scenario: Annotated[Scenario, typer.Argument(help="What to show.")] = Scenario.DOCUMENT,
    topic: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="Your own first draft."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Where to write the accepted text.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the OpenAI model.")] = DEFAULT_MODEL,
    revise: Annotated[
        RevisedBy | None,
        typer.Option(help="Who revises. By default the model; without a key, you, for a --file."),
    ] = None,
    reviewer: Annotated[str, typer.Option(help="Your name, for the record.")] = "you",
) -> None:
    """Take a run from draft to decision, with you as the reviewer.

    With OPENAI_API_KEY in the environment the texts come from OpenAI (OPENAI_API_BASE is
    respected); without it, from a scripted model.
    """
    first_draft = _read(scenario, file)
    if out is not None and not out.absolute().parent.is_dir():
        _fail(f"{out} cannot be written: there is no folder {out.absolute().parent}.")
    has_key = bool(os.environ.get("OPENAI_API_KEY"))
    by_hand = revise is RevisedBy.HAND or (revise is None and file is not None and not has_key)
    typer.echo(_which_model(model if has_key else None, by_hand=by_hand))
    llm = openai_model(model) if has_key else scripted_model()
    topic = topic or (file.name if file is not None else None)
    rewrite = _rewrite_by_hand if by_hand else None
    result = _run(scenario, topic, first_draft, llm, rewrite, reviewer)
    _report(result, out)


def _read(scenario: Scenario, file: Path | None) -> str | None:
    if file is None:
        return None
    if scenario not in (Scenario.DOCUMENT, Scenario.CODE):
        _fail(f"--file goes with the demos document and code, not with {scenario}.")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"{file} cannot be read as text: {error}")
    if not text.strip():
        _fail(f"{file} is empty; there is nothing to review.")
    return text


def _which_model(name: str | None, *, by_hand: bool) -> str:
    if name is not None:
        base = os.environ.get("OPENAI_API_BASE")
        said = f"Model: OpenAI {name}" + (f" at {base}" if base else "")
    else:
        said = "Model: scripted (set OPENAI_API_KEY to use OpenAI)"
    return f"{said}. Revisions: by hand, in your editor." if by_hand else f"{said}."


def _run(
    scenario: Scenario,
    topic: str | None,
    first_draft: str | None,
    llm: LLM,
    rewrite: Rewrite | None,
    reviewer: str,
) -> ReviewResult:
    async def go() -> Any:
        handler = start_demo(
            scenario,
            topic=topic,
            first_draft=first_draft,
            llm=llm,
            rewrite=rewrite,
            reviewer=reviewer,
        )
        return await review_in_console(handler, reviewer=reviewer)

    try:
        result: ReviewResult = asyncio.run(go())
    except KeyboardInterrupt:
        _fail("Interrupted; nothing was decided.", code=130)
    except Unanswered as error:
        # The reviewer has been told on the screen; this is for scripts.
        _fail("Nothing was decided.", code=130 if "interrupted" in error.reason else 1)
    except HitlError as error:
        _fail(str(error))
    except Exception as error:  # noqa: BLE001 - the edge of the program: say it, exit non-zero
        _fail(_explained(error))
    return result


def _explained(error: Exception) -> str:
    """Say what went wrong with the model, and what to do."""
    import openai

    base = os.environ.get("OPENAI_API_BASE") or "OpenAI"
    match error:
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return (
                f"{base} refused the key in OPENAI_API_KEY. Check it, or unset it for the script."
            )
        case openai.APITimeoutError():
            return f"{base} did not answer in time. Try again."
        case openai.APIConnectionError():
            return f"{base} cannot be reached: {error}. Check OPENAI_API_BASE and the network."
        case openai.NotFoundError():
            return f"{base} does not know this model or address: {error}. Check --model."
        case openai.RateLimitError():
            return f"{base} refuses more requests for now: {error}."
        case openai.APIStatusError():
            return f"{base} answered with an error ({error.status_code}): {error}."
        case _ if os.environ.get("OPENAI_API_KEY"):
            # What the client makes of a body that is no completion depends on its version.
            line = str(error).splitlines()[0] if str(error) else ""
            return f"What {base} answered could not be used ({type(error).__name__}: {line})."
        case _:
            return f"The run failed: {type(error).__name__}: {error}"


def _report(result: ReviewResult, out: Path | None) -> None:
    typer.echo(f"\n{result.status.upper()} at version {result.version}")
    for answer in result.decisions:
        words = answer.decision.feedback if answer.decision.kind == "revise" else answer.comment
        said = f" ({words})" if words else ""
        typer.echo(f"  {answer.decision.kind} by {answer.by.id}{said}")
    text = _text_of(result)
    if result.status is not ResultStatus.APPROVED:
        if out is not None:
            typer.echo(f"Nothing was written to {out}: it was not approved.")
        return
    if out is None:
        typer.echo(f"\n{text}")
        return
    try:
        out.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
    except OSError as error:
        typer.echo(text)
        _fail(f"{out} cannot be written: {error}. The accepted text is above.")
    typer.echo(f"Written to {out}")


def _text_of(result: ReviewResult) -> str:
    match result:
        case DraftResult():
            return result.subject.content
        case CodeResult():
            return result.subject.code
        case ReportResult():
            return result.report or ""
        case ClaimResult():
            return result.subject.model_dump_json(indent=2)
        case _:
            return str(result)


async def _rewrite_by_hand(text: str, feedback: str, suffix: str) -> str:
    """Let the user make the next draft in an editor; leaving it as it is keeps the old one."""
    typer.echo(f"Revise by hand: {feedback}")
    try:
        edited = await asyncio.to_thread(edit_text, text, suffix)
    except EditorFailed as error:
        typer.echo(f"{error} The text stays as it was.")
        return text
    return text if edited is None else edited


def _fail(message: str, *, code: int = 1) -> NoReturn:
    sys.stdout.flush()
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(code)
