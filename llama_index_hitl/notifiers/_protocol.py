"""What a notifier must do."""

from __future__ import annotations

from typing import Protocol

from llama_index_hitl.stores.protocol import Notice


class Notifier(Protocol):
    """Tells people outside what happened, one notice at a time.

    It is called after what happened was stored, so the notice is true, and it may be late. It is
    called at least once for each notice, and again with the same `notice_id` whenever it failed, or
    a process died before it was noted that it did not: whoever must not be told twice keeps the
    ids. Notices may come in another order than that in which things happened; `notice.at` tells.

    Example:
        >>> from llama_index_hitl.stores import Notice
        >>> class Mail:
        ...     name = "mail"
        ...
        ...     async def notify(self, notice: Notice) -> None:
        ...         print(f"mail: {notice.kind} in {notice.run_id}")
        >>> mail: Notifier = Mail()  # for `Runner(..., notifiers=[mail])`
        >>> at = utc_now()
        >>> notice = Notice(notice_id="n-1", kind="opened", run_id="run-1", at=at, due=at)
        >>> asyncio.run(mail.notify(notice))
        mail: opened in run-1
    """

    @property
    def name(self) -> str:
        """A name that no other notifier here has, the same in every process, and no secret.

        Under it is remembered who was told of a notice that another notifier could not tell.
        """
        ...

    async def notify(self, notice: Notice) -> None:
        """Tell it.

        Args:
            notice: What happened.

        Raises:
            NoticeRefused: It is not wanted, and shall not be told again.
            NotifyFailed: It could not be told now; `retry_after` says how long to wait, if known.
            Exception: Any other means the same.
        """
        ...
