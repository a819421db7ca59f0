"""What the student's page sees of a lesson and may do in it; for web developers: docs/page.md.

Emma's attributes as a participant say which lesson, part and slide are on. Whoever is in the room, and is
no agent, may turn the slide, since being there takes a token of the school. Slides count from 1 here, as
people count.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Never

from livekit import rtc

from emma_agent.lesson import LessonState
from emma_agent.logs import get_logger

__all__ = ["TURN_SLIDE", "Page", "attributes_of"]

log = get_logger(__name__)

TURN_SLIDE: Final = "emma.turn_slide"
"""The method that the page calls."""

# `{"to": "previous"}` takes 18 characters.
_LONGEST: Final = 200
# Faster than anybody reads; each turn is a record.
_MOST_TURNS: Final = 10
_WITHIN_S: Final = 5.0
_SET_TIMEOUT_S: Final = 5.0
# A reply may have 15 KiB.
_LONGEST_TITLE: Final = 1_000

# LiveKit keeps 1001 to 1999 for itself; these are named as HTTP names them.
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_TOO_LARGE: Final = 413
_TOO_MANY: Final = 429


def attributes_of(lesson: LessonState) -> dict[str, str]:
    """What the attributes say now; "" takes one away."""
    known = lesson.lesson
    slide = None if lesson.slide is None else lesson.slide + 1
    return {
        "emma.lesson_id": known.lesson_id if known else "",
        "emma.step": lesson.step,
        "emma.slide": str(slide or ""),
        "emma.slides": str(len(lesson.slides) or ""),
    }


class Page:
    """One lesson as its page has it."""

    def __init__(
        self, lesson: LessonState, room: rtc.Room, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._lesson = lesson
        self._room = room
        self._now = now
        self._turns: deque[float] = deque(maxlen=_MOST_TURNS)
        self._shown: dict[str, str] = {}
        self._failed = False

    async def follow(self) -> None:
        """Show what changes, and take calls, until cancelled. Nothing of it waits for the lesson."""
        if not self._room.isconnected():
            return  # A job without a room, as in a test.
        emma = self._room.local_participant
        emma.register_rpc_method(TURN_SLIDE, self.turn_slide)
        try:
            while True:
                version = self._lesson.version
                await self._show(emma)
                await self._lesson.changed_since(version)
        finally:
            if self._room.isconnected():
                emma.unregister_rpc_method(TURN_SLIDE)

    def turn_slide(self, call: rtc.RpcInvocationData) -> str:
        """Turn to another slide, as the page asks; the record of it is the lesson's.

        Raises:
            rtc.RpcError: the call cannot be answered; it says what to do.
        """
        caller = self._room.remote_participants.get(call.caller_identity)
        if caller is None or caller.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT:
            _refuse(_FORBIDDEN, "Only people in the room turn slides; call it from the page.")
        if len(call.payload) > _LONGEST:
            _refuse(_TOO_LARGE, f"The payload is too long; send {_LONGEST} characters at most.")
        slides = self._lesson.slides
        to = self._place(_wanted(call.payload), len(slides))
        now = self._now()
        if len(self._turns) == _MOST_TURNS and now - self._turns[0] < _WITHIN_S:
            _refuse(
                _TOO_MANY,
                f"Slides are turned {_MOST_TURNS} times in {_WITHIN_S:g} s at most; try again then.",
            )
        self._turns.append(now)
        slide = self._lesson.show_slide(to)
        return json.dumps(
            {"slide": to + 1, "slides": len(slides), "title": slide.title[:_LONGEST_TITLE]}
        )

    def _place(self, to: int | str, slides: int) -> int:
        """Which slide is wanted, from 0."""
        if not slides:
            _refuse(_NOT_FOUND, "There are no slides in this lesson; show none.")
        on = self._lesson.slide
        match to:
            case "next":
                to = 0 if on is None else on + 1
            case "previous":
                to = -1 if on is None else on - 1
            case int(number):
                to = number - 1
        assert isinstance(to, int)
        if not 0 <= to < slides:
            _refuse(_NOT_FOUND, f"There is no such slide; this lesson has slides 1 to {slides}.")
        return to

    async def _show(self, emma: rtc.LocalParticipant) -> None:
        attributes = attributes_of(self._lesson)
        if attributes == self._shown:
            return
        try:
            async with asyncio.timeout(_SET_TIMEOUT_S):
                await emma.set_attributes(attributes)
        except Exception as error:  # noqa: BLE001  the lesson is held without
            if not self._failed:
                log.warning(
                    "page.not_shown",
                    error=type(error).__name__,
                    remedy="the page does not see the slide that is on; it is tried again with "
                    "the next change",
                )
            self._failed = True
        else:
            self._shown, self._failed = attributes, False


def _wanted(payload: str) -> int | str:
    try:
        asked = json.loads(payload)
    except (ValueError, RecursionError):
        asked = None
    to = asked.get("to") if isinstance(asked, dict) else None
    if to in ("next", "previous") or (isinstance(to, int) and not isinstance(to, bool)):
        return to
    return _refuse(
        _BAD_REQUEST, 'Send JSON such as {"to": "next"}: "next", "previous" or a number from 1.'
    )


def _refuse(code: int, message: str) -> Never:
    raise rtc.RpcError(code, message)
