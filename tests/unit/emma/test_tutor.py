"""Emma's instructions are a pure function of what is known; she follows what changes."""

from __future__ import annotations

import pytest

from emma_agent.context import GUEST_PLAN, Plan, Preferences
from emma_agent.tutor import build_instructions, greeting
from livekit.plugins.convex.testing import FakeConvex
from tests.support.lessons import in_lesson, known_student, lesson_of
from tests.support.scripted_llm import ScriptedLLM
from tests.support.wire import LESSON


def test_a_known_student_is_described_with_their_lesson() -> None:
    context = known_student()
    text = build_instructions(context, context.plan)
    for fact in ("name: Ana", "native language: es", "last lesson: Family"):
        assert fact in text
    for fact in ("title: At the market", "target words: cheap, receipt", "guided lesson"):
        assert fact in text


def test_a_guest_is_not_guessed_at() -> None:
    text = build_instructions(None, GUEST_PLAN)
    assert "You do not know this student yet" in text
    assert "free conversation" in text
    assert "The student:" not in text
    assert "The lesson:" not in text


def test_what_is_unknown_is_left_out() -> None:
    context = known_student(lesson=None, lastSession=None)
    text = build_instructions(context, context.plan)
    assert "last lesson: none yet" in text
    assert "objectives" not in text
    assert ": \n" not in text


def test_the_plan_of_now_counts_and_not_that_of_the_start() -> None:
    assert "The lesson:" not in build_instructions(known_student(), Plan())


def test_the_fixed_part_comes_first() -> None:
    """A provider caches a prompt from its beginning."""
    guest, student = (
        build_instructions(None, GUEST_PLAN),
        build_instructions(known_student(lesson=None), GUEST_PLAN),
    )
    common = next(n for n, (a, b) in enumerate(zip(guest, student, strict=False)) if a != b)
    assert common > 1000


@pytest.mark.parametrize(
    ("preferences", "says"),
    [
        (Preferences(correction_style="gentle"), "being understood"),
        (Preferences(correction_style="every_error"), "every mistake"),
        (Preferences(correction_style="at_the_end"), "at the end of the lesson"),
        (Preferences(native_language_help=True), "in the student's own language"),
        (Preferences(native_language_help=False), "Speak only the language"),
    ],
)
def test_preferences_change_how_she_corrects(preferences: Preferences, says: str) -> None:
    assert says in build_instructions(None, Plan(preferences=preferences))


async def test_she_greets_when_the_lesson_begins() -> None:
    model = ScriptedLLM("Hello Ana! How was your day?")
    async with in_lesson(lesson_of(known_student()), model) as session:
        [greeted] = session.history.messages()
    assert (greeted.role, greeted.text_content) == ("assistant", "Hello Ana! How was your day?")
    asked = [message.text_content for message in model.asked[0].messages()]
    assert greeting() in asked


async def test_a_changed_plan_is_in_her_next_answer(convex: FakeConvex) -> None:
    """A teacher changes the lesson while it is taught."""
    model = ScriptedLLM("Hello!", "Yes.")
    lesson = lesson_of(known_student())
    async with in_lesson(lesson, model) as session:
        changed = known_student(lesson={**LESSON, "title": "At the station"})
        lesson.change_plan(changed.plan)
        await session.run(user_input="What do we do today?")
    assert "title: At the station" in model.instructions()
