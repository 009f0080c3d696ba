"""How a run of the demo ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llama_index_hitl.cli._failures import fail

if TYPE_CHECKING:
    from llama_index_hitl.prebuilt import ReviewResult


def report(result: ReviewResult, out: Path | None) -> None:
    """Say how a run of the demo ended, and write the accepted text.

    Args:
        result: How it ended.
        out: The file to write it to, as it is; None: it is shown.
    """
    from llama_index_hitl._text import visible
    from llama_index_hitl.console._words import one_line
    from llama_index_hitl.prebuilt import PlanResult, ResultStatus

    status = result.status.upper().replace("_", " ")
    typer.echo(f"\n{status} at version {result.version}")
    for answer in result.decisions:
        words = answer.decision.feedback if answer.decision.kind == "revise" else answer.comment
        said = f" ({words})" if words else ""
        typer.echo(f"  {one_line(f'{answer.decision.kind} by {answer.by.id}{said}')}")
    text = _text_of(result)
    # What was done is told however it ended: of a plan some may have been done.
    if result.status is not ResultStatus.APPROVED and not isinstance(result, PlanResult):
        if out is not None:
            typer.echo(f"Nothing was written to {out}: it was not approved.")
        return
    if out is None:
        typer.echo(f"\n{visible(text)}")
        return
    try:
        out.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
    except OSError as error:
        typer.echo(visible(text))
        fail(f"{out} cannot be written: {error}. The accepted text is above.")
    typer.echo(f"Written to {out}")


def _text_of(result: ReviewResult) -> str:
    from llama_index_hitl.prebuilt import DraftResult, PlanResult, ReportResult
    from llama_index_hitl.prebuilt.claim import ClaimResult
    from llama_index_hitl.prebuilt.code import CodeResult

    match result:
        case DraftResult():
            return result.subject.content
        case CodeResult():
            return result.subject.code
        case PlanResult():
            return result.text
        case ReportResult():
            return result.report or ""
        case ClaimResult():
            return result.subject.model_dump_json(indent=2)
        case _:
            return str(result)
