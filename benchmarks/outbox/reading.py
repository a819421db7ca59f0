"""Reading the student's profile in a tool: how long, and how many calls of the network."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

from emma_agent.lesson import LessonState
from emma_agent.tools.profile import get_student_profile
from livekit.plugins.convex import AgentKey
from livekit.plugins.convex.testing import FakeConvex

ROUNDS = 2_000

_CONTEXT = {
    "student": {
        "studentId": "k57",
        "name": "Carlos",
        "level": "A2",
        "nativeLanguage": "es",
        "targetLanguage": "en",
        "timeZone": "America/Mexico_City",
        "goals": ["Order food"],
        "interests": ["cooking"],
    },
    "preferences": {
        "speechRate": 0.9,
        "nativeLanguageHelp": True,
        "correctionStyle": "gentle",
    },
    "lesson": None,
    "progress": None,
    "lastSession": None,
}


class _Context:
    def __init__(self, lesson: LessonState) -> None:
        self.userdata = lesson


async def _read() -> dict[str, Any]:
    with TemporaryDirectory() as directory:
        return await _read_in(directory)


async def _read_in(directory: str) -> dict[str, Any]:
    async with FakeConvex() as convex:
        convex.on("students:tutoringContext", lambda _: _CONTEXT)
        lesson = LessonState.open(
            '{"student_id": "k57"}',
            url=convex.url,
            key=AgentKey.generate(),
            outbox_dir=directory,
        )
        await lesson.ready(10.0)
        context = cast("Any", _Context(lesson))
        calls = convex.call_count()
        plain, tool = [], []
        for _ in range(ROUNDS):
            began = time.perf_counter_ns()
            known = lesson.context
            plain.append(time.perf_counter_ns() - began)
            assert known is not None and known.student.name == "Carlos"
            began = time.perf_counter_ns()
            await get_student_profile(context)
            tool.append(time.perf_counter_ns() - began)
        calls = convex.call_count() - calls
        await lesson.aclose()
    return {"read_ns": median(plain), "tool_ns": median(tool), "calls": calls}


def read_profile() -> dict[str, Any]:
    """Nanoseconds of a read from memory and of the whole tool, and calls made meanwhile."""
    return asyncio.run(_read())
