"""What Convex answers becomes typed values, once."""

from __future__ import annotations

from typing import Any

import pytest

from emma_agent.context import (
    ErrorExample,
    Exercise,
    Lesson,
    LessonId,
    LessonProgress,
    NextLesson,
    Preferences,
    RecurringError,
    Slide,
    WordDue,
    parse_context,
    parse_plan,
)
from emma_agent.wire import ContextError
from tests.support.wire import LESSON, PREFERENCES, tutoring_context


def test_a_context_becomes_typed_values() -> None:
    context = parse_context(tutoring_context())
    assert (context.student.name, context.student.native_language) == ("Ana", "es")
    assert context.student.goals == ("pass B2", "speak at work")
    assert context.preferences == Preferences(
        speech_rate=0.9, native_language_help=False, correction_style="every_error"
    )
    assert context.lesson == Lesson(
        lesson_id=LessonId("lesson_1"),
        title="At the market",
        level="A2",
        language="en-GB",
        kind="guided",
        objectives=("ask for a price",),
        target_words=("cheap", "receipt"),
        slides=(Slide(title="Prices", text="How much is it?"),),
    )
    assert context.plan.lesson == context.lesson


def test_milliseconds_become_seconds_and_floats_become_counts() -> None:
    """Convex has floats only, and counts in milliseconds."""
    context = parse_context(tutoring_context())
    assert context.progress is not None
    assert context.last_session is not None
    assert context.progress.lessons_completed == 3
    assert context.progress.this_lesson == LessonProgress(
        status="started", times_studied=1, last_studied_at=1_700_000_000.5
    )
    assert context.last_session.started_at == 1_700_000_000.0
    assert isinstance(context.last_session.message_count, int)


def test_a_lesson_has_notes_for_the_tutor_and_exercises() -> None:
    exercise = {"exerciseId": "ask", "kind": "say", "prompt": "Ask.", "answers": ["How much?"]}
    lesson = {
        **LESSON,
        "slides": [{"title": "Prices", "text": "How much?", "notes": "Slowly."}],
        "exercises": [{**exercise, "slide": 0.0}, {**exercise, "exerciseId": "free"}],
    }
    parsed = parse_plan({"preferences": PREFERENCES, "lesson": lesson}).lesson
    assert parsed is not None
    assert parsed.slides == (Slide(title="Prices", text="How much?", notes="Slowly."),)
    assert parsed.exercises == (
        Exercise("ask", "say", "Ask.", answers=("How much?",), slide=0),
        Exercise("free", "say", "Ask.", answers=("How much?",)),
    )


def test_a_student_without_lesson_or_history_is_fine() -> None:
    context = parse_context(tutoring_context(lesson=None, progress=None, lastSession=None))
    assert (context.lesson, context.progress, context.last_session) == (None, None, None)


def test_the_next_lesson_is_part_of_the_plan() -> None:
    following = {"lessonId": "lesson_2", "title": "At the café"}
    expected = NextLesson(lesson_id=LessonId("lesson_2"), title="At the café")
    context = parse_context(tutoring_context(nextLesson=following))
    assert (context.next_lesson, context.plan.next_lesson) == (expected, expected)
    plan = {"preferences": PREFERENCES, "lesson": LESSON}
    assert parse_plan({**plan, "nextLesson": following}).next_lesson == expected
    assert parse_plan({**plan, "nextLesson": None}).next_lesson is None


def test_the_last_lesson_comes_with_its_key_and_its_summary() -> None:
    last = {"startedAt": 1.0, "messageCount": 9.0}
    said = {**last, "sessionKey": "lesson-7", "summary": "Says goed for went."}
    written = parse_context(tutoring_context(lastSession=said)).last_session
    assert written is not None
    assert (written.session_key, written.summary) == ("lesson-7", "Says goed for went.")
    older = parse_context(tutoring_context(lastSession=last)).last_session
    assert older is not None
    assert (older.session_key, older.summary) == (None, None)


def test_words_due_and_recurring_errors_are_typed() -> None:
    context = parse_context(tutoring_context())
    assert context.words_due == (
        WordDue(word="receipt", language="en", meaning="recibo", example="Keep it."),
        WordDue(word="loaf", language="en"),
    )
    assert context.recurring_errors == (
        RecurringError(
            error_type="tense",
            count=4,
            sessions=2,
            repaired=1,
            last_seen_at=1_700_000_000.5,
            examples=(ErrorExample(said="I goed", target="I went"),),
        ),
    )


def test_older_functions_send_neither_words_nor_errors_nor_the_next_lesson() -> None:
    answer = tutoring_context()
    del answer["wordsDue"], answer["recurringErrors"]
    context = parse_context(answer)
    assert (context.words_due, context.recurring_errors) == ((), ())
    assert context.next_lesson is None


def test_newer_functions_may_send_more() -> None:
    plan = parse_plan({"preferences": {**PREFERENCES, "voice": "low"}, "lesson": None, "x": 1})
    assert plan.preferences.correction_style == "every_error"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (tutoring_context(student={"studentId": "s", "name": 42}), "student.name: string_type"),
        (tutoring_context(lesson={**LESSON, "kind": "exam"}), "lesson.kind: literal_error"),
        (None, "answer: dataclass_type"),
        ([], "answer: dataclass_type"),
    ],
)
def test_another_shape_is_named_by_its_field_and_never_by_its_value(answer: Any, says: str) -> None:
    with pytest.raises(ContextError) as caught:
        parse_context(answer)
    assert says in str(caught.value)
    assert "42" not in str(caught.value)
