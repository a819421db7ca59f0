"""Tools that read: who the student is, and what is taught today."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from livekit.agents import RunContext, ToolError, function_tool

from emma_agent.lesson import LessonState

__all__ = ["TOOLS", "get_lesson_plan", "get_student_profile"]


@function_tool
async def get_student_profile(context: RunContext[LessonState]) -> str:
    """Look up the student: name, level, languages, goals, interests and progress.

    Use it when the student asks what you know about them, or when you need their goals.
    """
    lesson = context.userdata
    known = lesson.context
    if known is None:
        raise ToolError(
            "The student's profile is not available right now; go on without it."
            if lesson.degraded
            else "This student is a guest and has no profile; ask them about themselves."
        )
    student = asdict(known.student)
    # The model has no use for it, and what it never sees it cannot say.
    del student["student_id"]
    return _json(
        student=student,
        preferences=asdict(lesson.plan.preferences),
        lessons_completed=known.progress.lessons_completed if known.progress else 0,
        last_lesson=known.last_session.lesson_title if known.last_session else None,
    )


@function_tool
async def get_lesson_plan(context: RunContext[LessonState]) -> str:
    """Look up today's lesson: title, objectives, words to learn, slides and exercises."""
    lesson = context.userdata.plan.lesson
    if lesson is None:
        raise ToolError("No lesson is planned for today; talk freely.")
    plan = asdict(lesson, dict_factory=_known)
    del plan["lesson_id"]
    return _json(lesson=plan)


TOOLS: Final = (get_student_profile, get_lesson_plan)


def _known(fields: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value for name, value in fields if value is not None}


def _json(**values: object) -> str:
    # LiveKit would hand a dict to the model as Python's str() of it.
    return json.dumps(values, ensure_ascii=False)
