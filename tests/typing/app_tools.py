"""A tool family as the next one will be written: typed userdata, no cast, no `Any`."""

from __future__ import annotations

from typing import assert_type

from livekit.agents import AgentSession, RunContext, ToolError, function_tool

from emma_agent.context import CorrectionStyle, Lesson, Plan, TutoringContext
from emma_agent.lesson import LessonState
from livekit.plugins.convex import AsyncConvexClient, SessionRecorder


@function_tool
async def get_target_words(context: RunContext[LessonState]) -> str:
    """Look up the words of today's lesson."""
    lesson = context.userdata
    assert_type(lesson, LessonState)
    assert_type(lesson.client, AsyncConvexClient)
    assert_type(lesson.recorder, SessionRecorder | None)
    assert_type(lesson.context, TutoringContext | None)
    assert_type(lesson.plan, Plan)
    assert_type(lesson.plan.lesson, Lesson | None)
    assert_type(lesson.plan.preferences.correction_style, CorrectionStyle)
    if lesson.plan.lesson is None:
        raise ToolError("No lesson is planned for today.")
    return ", ".join(lesson.plan.lesson.target_words)


def user_data(session: AgentSession[LessonState]) -> LessonState:
    """What a hook sees."""
    return session.userdata
