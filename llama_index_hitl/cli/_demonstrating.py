"""`hitl demo`: take a run from draft to decision, in one process or in several."""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_hitl.cli._failures import INTERRUPTED, Misused, ends_in_one_line, fail
from llama_index_hitl.cli._options import StoreOption
from llama_index_hitl.cli._parked_demo import go_on, park
from llama_index_hitl.cli._report import report
from llama_index_hitl.errors import HitlError, Unanswered

if TYPE_CHECKING:
    from llama_index_hitl._demo import Rewrite
    from llama_index_hitl.prebuilt import ReviewResult


class Scenario(StrEnum):
    """What the demo can show."""

    DOCUMENT = "document"
    CODE = "code"
    CLAIM = "claim"
    REPORT = "report"
    BANKING = "banking"


class RevisedBy(StrEnum):
    """Who makes the next draft."""

    MODEL = "model"
    HAND = "hand"


@ends_in_one_line
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
    model: Annotated[
        str | None, typer.Option(help="Name of the OpenAI model.", show_default=False)
    ] = None,
    revise: Annotated[
        RevisedBy | None,
        typer.Option(help="Who revises. By default the model; without a key, you, for a --file."),
    ] = None,
    reviewer: Annotated[
        str | None, typer.Option(help="Your name, for the record.", show_default="you")
    ] = None,
    pause: Annotated[
        bool, typer.Option("--pause", help="Leave the run in the store, and end; see what is said.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Go on with a run that was left there.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Take a run from draft to decision, with you as the reviewer.

    With OPENAI_API_KEY in the environment the texts come from OpenAI (OPENAI_API_BASE is
    respected); without it, from a scripted model.
    """
    first_draft = _read(scenario, file)
    if out is not None and not out.absolute().parent.is_dir():
        fail(f"{out} cannot be written: there is no folder {out.absolute().parent}.")
    if pause and (resume is not None or out is not None):
        raise Misused("--pause begins a run; --resume and --out go with a later command.")
    if resume is not None and (topic is not None or file is not None):
        raise Misused("--resume goes on with the run as it is; leave out --topic and --file.")
    in_several = pause or resume is not None
    if in_several and (revise is RevisedBy.HAND or reviewer is not None):
        raise Misused(
            "A run in the store is answered by anybody and revised by the model; leave out "
            "--reviewer and --revise, and say who you are with `hitl answer --by`."
        )
    by_hand = not in_several and _is_revised_by_hand(revise, file)
    typer.echo(_which_model(model, by_hand=by_hand))
    topic = topic or (file.name if file is not None else None)
    if pause:
        park(scenario, topic, first_draft, model, store)
    elif resume is not None:
        go_on(resume, model, store, out)
    else:
        rewrite = _rewrite_by_hand if by_hand else None
        result = _run(scenario, topic, first_draft, model, rewrite, reviewer or "you")
        report(result, out)


def _is_revised_by_hand(revise: RevisedBy | None, file: Path | None) -> bool:
    if revise is None:
        return file is not None and not os.environ.get("OPENAI_API_KEY")
    return revise is RevisedBy.HAND


def _read(scenario: Scenario, file: Path | None) -> str | None:
    if file is None:
        return None
    if scenario not in (Scenario.DOCUMENT, Scenario.CODE):
        fail(f"--file goes with the demos document and code, not with {scenario}.")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read as text: {error}")
    if not text.strip():
        fail(f"{file} is empty; there is nothing to review.")
    return text


def _which_model(name: str | None, *, by_hand: bool) -> str:
    from llama_index_hitl.prebuilt._base import DEFAULT_MODEL

    if os.environ.get("OPENAI_API_KEY"):
        base = os.environ.get("OPENAI_API_BASE")
        said = f"Model: OpenAI {name or DEFAULT_MODEL}" + (f" at {base}" if base else "")
    else:
        said = "Model: scripted (set OPENAI_API_KEY to use OpenAI)"
    return f"{said}. Revisions: by hand, in your editor." if by_hand else f"{said}."


def _run(
    scenario: Scenario,
    topic: str | None,
    first_draft: str | None,
    model: str | None,
    rewrite: Rewrite | None,
    reviewer: str,
) -> ReviewResult:
    from llama_index_hitl._demo import start_demo
    from llama_index_hitl.console import review_in_console

    async def go() -> Any:
        handler = start_demo(
            scenario,
            topic=topic,
            first_draft=first_draft,
            model=model,
            rewrite=rewrite,
            reviewer=reviewer,
        )
        return await review_in_console(handler, reviewer=reviewer)

    try:
        result: ReviewResult = asyncio.run(go())
    except KeyboardInterrupt:
        fail("Interrupted; nothing was decided.", code=INTERRUPTED)
    except Unanswered as error:
        # The reviewer has been told on the screen; this is for scripts.
        fail("Nothing was decided.", code=INTERRUPTED if "interrupted" in error.reason else 1)
    except HitlError as error:
        fail(str(error))
    except Exception as error:  # noqa: BLE001 - the edge of the program: say it, exit non-zero
        fail(_explained(error))
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


async def _rewrite_by_hand(text: str, feedback: str, suffix: str) -> str:
    """Let the user make the next draft in an editor; leaving it as it is keeps the old one."""
    from llama_index_hitl._text import visible
    from llama_index_hitl.console import EditorFailed, edit_text

    typer.echo(f"Revise by hand: {visible(feedback)}")
    try:
        edited = await asyncio.to_thread(edit_text, text, suffix)
    except EditorFailed as error:
        typer.echo(f"{error} The text stays as it was.")
        return text
    return text if edited is None else edited
