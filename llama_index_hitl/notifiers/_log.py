"""A notifier that writes to a log."""

from __future__ import annotations

import json
import logging

from llama_index_hitl.stores.protocol import Notice


class LogNotifier:
    """Writes one line for each notice: what happened, where and when.

    A line has the fields `notice_id`, `run_id`, `request_id` and `at`, in this order, each as JSON:
    nothing that people or programs have put into an id can begin a new line. The payload is left
    out, as it may hold what does not belong in a log.

    Args:
        logger: Where to write; by default the logger `llama_index_hitl.notices`.
        level: At which level.
        name: Name of the notifier.

    Example:
        hitl.opened notice_id="n1" run_id="r1" request_id="gate-1" at="2026-01-01T12:00:00+00:00"
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        level: int = logging.INFO,
        name: str = "log",
    ) -> None:
        self.name = name
        self._logger = logger or logging.getLogger("llama_index_hitl.notices")
        self._level = level

    async def notify(self, notice: Notice) -> None:
        """Write the line."""
        self._logger.log(
            self._level,
            "hitl.%s notice_id=%s run_id=%s request_id=%s at=%s",
            notice.kind,
            json.dumps(notice.notice_id),
            json.dumps(notice.run_id),
            json.dumps(notice.request_id),
            json.dumps(notice.at.isoformat()),
        )
