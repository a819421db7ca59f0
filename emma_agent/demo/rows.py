"""The lesson as Convex shows it: two live queries, parsed once, with the time of each arrival."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Final, Literal, Self

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from emma_agent.wire import WIRE, Instant

if TYPE_CHECKING:
    # Importing it takes seconds; whoever has a client has done so.
    from livekit.plugins.convex import AsyncConvexClient

__all__ = ["LiveLesson", "MessageRow", "SessionRow", "SummaryRow", "summary_of"]

# A demo's lesson has five messages; a page that could not hold them would hide a repeat.
_PAGE: Final = 100


@dataclass(frozen=True, slots=True, config=WIRE)
class MessageRow:
    """One row of `messages:list`; instants in Unix seconds, by the clock of Convex."""

    item_id: str
    role: Literal["user", "assistant"]
    text: str
    interrupted: bool
    provisional: bool
    created_at: Instant
    stored_at: Instant
    language: str | None = None
    transcript_confidence: float | None = None
    metrics: dict[str, float] | None = field(default=None, hash=False)
    """Latencies of the turn in milliseconds, by their names in Convex (docs/latency.md)."""


@dataclass(frozen=True, slots=True, config=WIRE)
class SessionRow:
    """The answer of `sessions:get`."""

    status: Literal["active", "ended", "superseded"]
    provisional_end: bool
    message_count: int
    runs: int
    end_reason: str | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class SummaryRow:
    """The answer of `sessions:summary`; `for_teacher` is not for everybody."""

    for_student: str
    source: Literal["model", "records"]
    for_teacher: str | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class _Page:
    page: list[MessageRow] = field(default_factory=list)


_PAGES: Final = TypeAdapter(_Page)
_SESSIONS: Final = TypeAdapter(SessionRow | None)
_SUMMARIES: Final = TypeAdapter(SummaryRow | None)


class LiveLesson:
    """One session as its rows appear; use `follow`."""

    def __init__(self, *, on_message: Callable[[MessageRow, float], None]) -> None:
        """Use `LiveLesson.follow`."""
        self.rows: list[MessageRow] = []
        """In the order of `messages:list`, the provisional ones included."""
        self.session: SessionRow | None = None
        self.seen_at: dict[str, float] = {}
        """Unix seconds, by this machine's clock, at which a committed message first came."""
        self._on_message = on_message
        self._changed = asyncio.Event()
        self._error: BaseException | None = None

    @classmethod
    @asynccontextmanager
    async def follow(
        cls,
        client: AsyncConvexClient,
        session_key: str,
        *,
        on_message: Callable[[MessageRow, float], None] = lambda _row, _at: None,
    ) -> AsyncIterator[Self]:
        """Subscribe to `messages:list` and `sessions:get` until the end of the block.

        Args:
            client: as someone who may see the session.
            session_key: of a lesson that may not have begun.
            on_message: called once for each committed message, with the time it came.
        """
        lesson = cls(on_message=on_message)
        tasks = [
            asyncio.create_task(lesson._follow_messages(client, session_key)),
            asyncio.create_task(lesson._follow_session(client, session_key)),
        ]
        for task in tasks:
            task.add_done_callback(lesson._on_done)
        try:
            yield lesson
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def messages(self) -> list[MessageRow]:
        """The committed messages."""
        return [row for row in self.rows if not row.provisional]

    async def until(self, reached: Callable[[Self], bool], *, timeout_s: float) -> bool:
        """Wait until `reached(self)`; False if it was not within `timeout_s`.

        Raises:
            ConvexClientError: the subscription was refused.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    if self._error is not None:
                        raise self._error
                    if reached(self):
                        return True
                    self._changed.clear()
                    await self._changed.wait()
        return False

    async def _follow_messages(self, client: AsyncConvexClient, session_key: str) -> None:
        page = {"numItems": _PAGE, "cursor": None}
        args = {"sessionKey": session_key, "paginationOpts": page}
        async with client.subscribe("messages:list", args) as subscription:
            async for value in subscription:
                at = time.time()
                self.rows = _PAGES.validate_python(value).page
                for row in self.messages:
                    if row.item_id not in self.seen_at:
                        self.seen_at[row.item_id] = at
                        self._on_message(row, at)
                self._changed.set()

    async def _follow_session(self, client: AsyncConvexClient, session_key: str) -> None:
        async with client.subscribe("sessions:get", {"sessionKey": session_key}) as subscription:
            async for value in subscription:
                self.session = _SESSIONS.validate_python(value)
                self._changed.set()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._changed.set()


async def summary_of(
    client: AsyncConvexClient, session_key: str, *, timeout_s: float
) -> SummaryRow | None:
    """What remains of the session in words; None if it is not there within `timeout_s`."""
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(timeout_s),
            client.subscribe("sessions:summary", {"sessionKey": session_key}) as subscription,
        ):
            async for value in subscription:
                if (summary := _SUMMARIES.validate_python(value)) is not None:
                    return summary
    return None
