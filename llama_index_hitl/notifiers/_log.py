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
        >>> import logging
        >>> import sys
        >>> from llama_index_hitl.stores import Notice
        >>> logger = logging.Logger("notices")
        >>> logger.addHandler(logging.StreamHandler(sys.stdout))
        >>> at = utc_now().replace(2026, 1, 5, 9, 0, 0, 0)
        >>> notice = Notice(notice_id="n-1", kind="opened", run_id="run-1", at=at, due=at)
        >>> asyncio.run(LogNotifier(logger).notify(notice))
        hitl.opened notice_id="n-1" run_id="run-1" request_id=null
        at="2026-01-05T09:00:00+00:00"
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
        """Write the line.

        Args:
            notice: What happened.
        """
        self._logger.log(
            self._level,
            "hitl.%s notice_id=%s run_id=%s request_id=%s at=%s",
            notice.kind,
            json.dumps(notice.notice_id),
            json.dumps(notice.run_id),
            json.dumps(notice.request_id),
            json.dumps(notice.at.isoformat()),
        )
