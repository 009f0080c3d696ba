"""The command `hitl`; needs the extra `cli`."""

from __future__ import annotations

import sys

from llama_index_hitl._extras import require
from llama_index_hitl.errors import MissingExtra


def main() -> None:
    """Run the command line."""
    try:
        require("typer", extra="cli", purpose="the command line")
        require("rich", extra="cli", purpose="the command line")
    except MissingExtra as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    from llama_index_hitl.cli import app

    app()


if __name__ == "__main__":
    main()
