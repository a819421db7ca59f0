"""A student's page of numbers, and what one lesson left behind: public queries of Convex alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as parsed

from emma_agent.wire import WIRE, Instant

if TYPE_CHECKING:
    # Importing it takes seconds; whoever has a client has done so.
    from livekit.plugins.convex import AsyncConvexClient

__all__ = [
    "LABELS",
    "Correction",
    "Left",
    "Numbers",
    "Parts",
    "Word",
    "exercises_of",
    "numbers_of",
    "numbers_until",
    "words_of",
]

_PAGE: Final = 200
_ASK_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Numbers:
    """The page; `minutes` are those of all lessons that are settled."""

    words_mastered: int
    words_learning: int
    corrections: int
    repaired: int
    lessons_completed: int
    lessons_held: int
    minutes: float
    streak_days: int


LABELS: Final = {
    "words_mastered": "words mastered",
    "words_learning": "words being learnt",
    "corrections": "corrections made",
    "repaired": "then said right",
    "lessons_completed": "lessons completed",
    "lessons_held": "lessons held",
    "minutes": "minutes",
    "streak_days": "days in a row",
}
"""The lines of the page, by the name of the number."""


@parsed(frozen=True, slots=True, config=WIRE)
class Word:
    """A row of `vocabulary:byState`."""

    word: str
    mastered: bool
    reviews: int


@parsed(frozen=True, slots=True, config=WIRE)
class Correction:
    """A correction of one lesson."""

    said: str
    target: str
    error_type: str
    repaired: bool


@parsed(frozen=True, slots=True, config=WIRE)
class Left:
    """The answer of `sessions:resumable`: what a lesson has noted, and whether its end was meant."""

    over: bool
    last_seen_at: Instant
    step: str | None = None
    slide: int | None = None
    corrections: list[Correction] = field(default_factory=list)
    new_words: list[dict[str, Any]] = field(default_factory=list)


@parsed(frozen=True, slots=True, config=WIRE)
class _Totals:
    sessions: int
    duration_ms: float
    streak_days: int


_WORDS: Final = TypeAdapter(list[Word])
_TOTALS: Final = TypeAdapter(_Totals)
_LEFT: Final = TypeAdapter(Left | None)
_STATES: Final = ("new", "learning", "review", "relearning")


async def words_of(client: AsyncConvexClient) -> dict[str, Word]:
    """Every word of the student, by how it is written."""
    pages = [await _all(client, "vocabulary:byState", state=state) for state in _STATES]
    words = _WORDS.validate_python([row for page in pages for row in page])
    return {word.word: word for word in words}


async def exercises_of(client: AsyncConvexClient, *, since: float) -> dict[str, float]:
    """The latest score of each exercise answered since then, in Unix seconds."""
    rows = await _all(client, "progress:exerciseResults")
    ours = [row for row in reversed(rows) if row["createdAt"] / 1000 >= since]
    return {str(row["exerciseId"]): float(row["score"]) for row in ours}


async def numbers_of(client: AsyncConvexClient, *, time_zone: str) -> Numbers:
    """The page as it stands; the client is one that may see the student."""
    words = await words_of(client)
    corrections = await _all(client, "progress:corrections")
    lessons = await _all(client, "progress:list")
    profile = await client.query("students:profile", {"today": _today(time_zone)})
    totals = _TOTALS.validate_python(profile["totals"] if isinstance(profile, dict) else None)
    mastered = sum(word.mastered for word in words.values())
    return Numbers(
        words_mastered=mastered,
        words_learning=len(words) - mastered,
        corrections=len(corrections),
        repaired=sum(bool(row["repaired"]) for row in corrections),
        lessons_completed=sum(row["status"] == "completed" for row in lessons),
        lessons_held=totals.sessions,
        minutes=totals.duration_ms / 60_000,
        streak_days=totals.streak_days,
    )


async def numbers_until(
    client: AsyncConvexClient, *, time_zone: str, lessons_held: int, timeout_s: float
) -> Numbers:
    """The page once so many lessons are counted on it, else as it stands after `timeout_s`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while True:
                numbers = await numbers_of(client, time_zone=time_zone)
                if numbers.lessons_held >= lessons_held:
                    return numbers
                await asyncio.sleep(_ASK_EVERY_S)
    return await numbers_of(client, time_zone=time_zone)


class Parts:
    """The parts and slides of one lesson as they come; use `follow`.

    Attributes:
        steps: the parts that were entered, in order; the greeting is before the first.
        slides: that were on, in order, from 0.
        left: what Convex says of it now; None before its first record.
    """

    def __init__(self) -> None:
        """Use `Parts.follow`."""
        self.steps: list[str] = []
        self.slides: list[int] = []
        self.left: Left | None = None

    @classmethod
    @asynccontextmanager
    async def follow(cls, client: AsyncConvexClient, session_key: str) -> AsyncIterator[Self]:
        """Subscribe to `sessions:resumable` until the end of the block.

        Raises:
            ConvexClientError: at the end, if the subscription was refused.
        """
        parts = cls()
        task = asyncio.create_task(parts._follow(client, session_key))
        try:
            yield parts
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, client: AsyncConvexClient, session_key: str) -> None:
        async with client.subscribe("sessions:resumable", {"sessionKey": session_key}) as updates:
            async for value in updates:
                self.left = _LEFT.validate_python(value)
                step, slide = (self.left.step, self.left.slide) if self.left else (None, None)
                if step is not None and self.steps[-1:] != [step]:
                    self.steps.append(step)
                if slide is not None and self.slides[-1:] != [slide]:
                    self.slides.append(slide)


async def _all(client: AsyncConvexClient, function: str, **args: object) -> list[dict[str, Any]]:
    """The rows of every page."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page: Any = await client.query(
            function, {**args, "paginationOpts": {"numItems": _PAGE, "cursor": cursor}}
        )
        rows.extend(page["page"])
        if page["isDone"]:
            return rows
        cursor = str(page["continueCursor"])


def _today(time_zone: str) -> str:
    """The day where the student lives."""
    try:
        zone: ZoneInfo | Any = ZoneInfo(time_zone)
    except ZoneInfoNotFoundError:
        zone = UTC
    return datetime.now(zone).date().isoformat()
