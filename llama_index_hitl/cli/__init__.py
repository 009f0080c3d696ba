"""The command line `hitl`: see what waits, decide, keep runs going, and read the record.

What waits is in a store (`--store`), the workflows are in code (`--app`): listing and deciding need
the store only, and going on with a run needs both. Commands leave with 0 when it is done, with 1
when it was refused or has failed, and with 2 when they were used wrongly.
"""

import typer

from llama_index_hitl.cli._audit import export, verify
from llama_index_hitl.cli._claiming import claim
from llama_index_hitl.cli._deciding import answer, cancel, retry, withdraw
from llama_index_hitl.cli._demonstrating import demo
from llama_index_hitl.cli._grants import list_grants, revoke, show_grant
from llama_index_hitl.cli._listing import pending, runs
from llama_index_hitl.cli._policy import replay, shadow
from llama_index_hitl.cli._serving import serve
from llama_index_hitl.cli._showing import show
from llama_index_hitl.cli._spot_checks import judge, picked, report
from llama_index_hitl.cli._tokens import add, list_tokens, revoke_token
from llama_index_hitl.cli._upkeep import check, effects, recover, settle, sweep

__all__ = ["app"]

app = typer.Typer(
    name="hitl",
    help="Human-in-the-loop for LlamaIndex Workflows.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_SEEING = (runs, pending, show)
_DECIDING = (claim, answer, withdraw, cancel, retry)
_KEEPING = (sweep, recover, check, effects, settle)

for panel, commands in (("See", _SEEING), ("Decide", _DECIDING), ("Keep going", _KEEPING)):
    for command in commands:
        app.command(rich_help_panel=panel)(command)

_audit = typer.Typer(help="What happened, row by row, and whether the rows are untouched.")
_audit.command()(verify)
_audit.command()(export)
app.add_typer(_audit, name="audit", no_args_is_help=True, rich_help_panel="See")

_checks = typer.Typer(help="What rules approved and picked to be looked at by people later.")
_checks.command(name="list")(picked)
_checks.command()(judge)
_checks.command()(report)
_policy = typer.Typer(help="Rules that decide without a person: what they would do, and did.")
_policy.command()(replay)
_policy.command()(shadow)
_policy.add_typer(_checks, name="checks", no_args_is_help=True)
app.add_typer(_policy, name="policy", no_args_is_help=True, rich_help_panel="See")
_grants = typer.Typer(help="Standing approvals: what happens without asking, and who said so.")
_grants.command("list")(list_grants)
_grants.command("show")(show_grant)
_grants.command()(revoke)
app.add_typer(_grants, name="grants", no_args_is_help=True, rich_help_panel="Keep going")
_tokens = typer.Typer(help="Who may sign in to the web inbox, and with what roles.")
_tokens.command()(add)
_tokens.command("list")(list_tokens)
_tokens.command("revoke")(revoke_token)
app.add_typer(_tokens, name="tokens", no_args_is_help=True, rich_help_panel="Keep going")
app.command(rich_help_panel="Serve")(serve)
app.command(rich_help_panel="Try")(demo)
