"""LookBack: finds what earlier runs of a session left, on this host and in Convex.

While a job connects. What the student's former jobs left undelivered is delivered first, so that what
Convex answers is whole; before that it is read, for where Convex does not answer.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from emma_agent.logs import get_logger
from emma_agent.resume import READ_BACK, LessonSoFar, from_journals, parse_resumable
from emma_agent.wire import ContextError
from livekit.plugins.convex import (
    AsyncConvexClient,
    BusyError,
    ConvexClientError,
    SessionIdentity,
    TransportError,
    deliver_dead_journals,
    read_journals,
)

__all__ = ["LookBack"]

log = get_logger(__name__)

# A part of what a student waits for Emma (lesson.PREFETCH_TIMEOUT_S).
_DELIVERY_TIMEOUT_S: Final = 1.0
_QUERY_TIMEOUT_S: Final = 10.0


class LookBack:
    """Of one job; `find` is run once.

    Attributes:
        found: the session as earlier runs left it, as far as is known yet.
        delivered: what lay here is with Convex, or has to wait.
        ended: nothing more will be found.
    """

    def __init__(
        self,
        client: AsyncConvexClient,
        identity: SessionIdentity,
        *,
        asked_key: str | None,
        directory: Path,
    ) -> None:
        """Nothing is looked for yet.

        Args:
            asked_key: the session that the dispatcher named; None: the student's last.
            directory: where journals lie.
        """
        self.found: LessonSoFar | None = None
        self.delivered = asyncio.Event()
        self.ended = asyncio.Event()
        self._client = client
        self._identity = identity
        self._asked_key = asked_key
        self._directory = directory

    def skip(self) -> None:
        """There is nobody of whom anything could be found."""
        self.delivered.set()
        self.ended.set()

    async def find(self) -> None:
        """Look here, deliver, and ask Convex."""
        try:
            await self._look_here()
        except OSError as error:
            log.warning(
                "lesson.journals_unreadable",
                error=type(error).__name__,
                remedy="see that this user may read EMMA_OUTBOX_DIR (doctor)",
            )
        finally:
            self.delivered.set()
        try:
            await self._ask()
        except (TransportError, BusyError):
            pass  # The same outage is told of the context.
        except (ConvexClientError, ContextError) as error:
            log.warning(
                "lesson.look_back_failed",
                function="sessions:resumable",
                error=type(error).__name__,
                reason=str(error),
                remedy="an interrupted lesson goes on with what this host knows of it, else anew",
            )
        finally:
            self.ended.set()

    async def _look_here(self) -> None:
        subject = self._identity.subject
        runs = await asyncio.to_thread(
            read_journals,
            self._directory,
            subject=subject,
            deployment=self._client.url,
            types=READ_BACK,
        )
        self.found = from_journals(
            runs, session_key=self._asked_key, lesson_id=self._identity.lesson_id
        )
        if runs:
            await deliver_dead_journals(
                self._client, self._directory, subject=subject, timeout_s=_DELIVERY_TIMEOUT_S
            )

    async def _ask(self) -> None:
        asked = {"lessonId": self._identity.lesson_id, "sessionKey": self._asked_key}
        answer = parse_resumable(
            await self._client.query(
                "sessions:resumable",
                {name: value for name, value in asked.items() if value is not None},
                timeout_s=_QUERY_TIMEOUT_S,
            )
        )
        here = self.found
        if answer is not None and (here is None or answer.last_seen_at >= here.last_seen_at):
            self.found = answer
