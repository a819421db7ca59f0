"""Lessons for tests that need no room: a state, and a session in text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from livekit.agents import AgentSession

from emma_agent.context import TutoringContext, parse_context
from emma_agent.lesson import LessonState, identify
from emma_agent.tutor import Tutor
from livekit.plugins.convex import AsyncConvexClient
from tests.support.scripted_llm import ScriptedLLM
from tests.support.wire import tutoring_context

STUDENT_METADATA = '{"student_id": "student_1", "lesson_id": "lesson_1", "session_key": "s1"}'
# Nobody listens there, and nothing here calls.
NOWHERE = "http://127.0.0.1:9"


def known_student(**changes: object) -> TutoringContext:
    """The context of `tests.support.wire`, parsed."""
    return parse_context(tutoring_context(**changes))


def lesson_of(context: TutoringContext | None) -> LessonState:
    """A lesson whose context has arrived, or a guest's."""
    metadata = "" if context is None else STUDENT_METADATA
    lesson = LessonState(identify(metadata), AsyncConvexClient(NOWHERE))
    lesson.context = context
    if context is not None:
        lesson.plan = context.plan
    return lesson


def text_session(lesson: LessonState, model: ScriptedLLM) -> AgentSession[LessonState]:
    """A session without ears and voice."""
    return AgentSession(
        userdata=lesson, llm=model, vad=None, turn_handling={"turn_detection": "manual"}
    )


@asynccontextmanager
async def in_lesson(
    lesson: LessonState, model: ScriptedLLM
) -> AsyncIterator[AgentSession[LessonState]]:
    """Emma in a text session; the model's first answer is her greeting."""
    async with text_session(lesson, model) as session:
        tutor = Tutor(lesson, chat_ctx=lesson.conversation, resumed=lesson.resumed is not None)
        await session.start(tutor, capture_run=True)
        yield session
    await lesson.aclose()
