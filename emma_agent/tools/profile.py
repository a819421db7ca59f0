"""Tools that read: who the student is, what is taught today, and how far they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from livekit.agents import RunContext, ToolError, function_tool

from emma_agent.lesson import LessonState
from emma_agent.prompt import by_use
from emma_agent.tokens import clipped
from emma_agent.tools.answers import as_json

__all__ = ["TOOLS", "get_lesson_plan", "get_progress", "get_student_profile"]

_SHOWN: Final = 20
# Of a lesson, as much as a school may put into one; of its texts, their beginnings: a whole one comes
# with its slide, and what a tool answers stays in the conversation.
_WORDS: Final = 64
_PAGES: Final = 32
_ANSWERS: Final = 8
_TEXT: Final = 160


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
    return as_json(
        student=student,
        preferences=asdict(lesson.plan.preferences),
        lessons_completed=known.progress.lessons_completed if known.progress else 0,
        last_lesson=known.last_session.lesson_title if known.last_session else None,
    )


@function_tool
async def get_lesson_plan(context: RunContext[LessonState]) -> str:
    """Look up today's lesson: title, objectives, words to learn, slides and exercises.

    A slide's whole text and its notes come when you turn to it.
    """
    lesson = context.userdata.plan.lesson
    if lesson is None:
        raise ToolError("No lesson is planned for today; talk freely.")
    return as_json(
        lesson={
            "title": _short(lesson.title),
            "level": lesson.level,
            "language": lesson.language,
            "kind": lesson.kind,
            "objectives": [_short(each) for each in lesson.objectives[:_SHOWN]],
            "target_words": [_short(each) for each in lesson.target_words[:_WORDS]],
            "slides": [
                {"title": _short(slide.title), "text": _short(slide.text)}
                for slide in lesson.slides[:_PAGES]
            ],
            "exercises": [
                {
                    "exercise_id": each.exercise_id,
                    "kind": each.kind,
                    "prompt": _short(each.prompt),
                    "answers": [_short(answer) for answer in each.answers[:_ANSWERS]],
                    "slide": None if each.slide is None else each.slide + 1,
                }
                for each in lesson.exercises[:_PAGES]
            ],
        }
    )


@function_tool
async def get_progress(context: RunContext[LessonState]) -> str:
    """Look up how far the lesson is: part, slide, words, mistakes and exercises up to now."""
    lesson = context.userdata
    noted = lesson.corrections.values()
    return as_json(
        part=lesson.step,
        next_part=lesson.next_step,
        slide=None if lesson.slide is None else lesson.slide + 1,
        slides=len(lesson.slides),
        words_due=[word.word for word in by_use(lesson.words_due, lesson.lesson)[:_SHOWN]],
        new_words=[word.word for word in lesson.new_words.values()],
        corrections=[
            {
                "correction_id": each.correction_id,
                "said": each.said,
                "target": each.target,
                "repaired": each.repaired,
            }
            for each in [*noted][-_SHOWN:]
        ],
        recurring_errors=[
            {"error_type": error.error_type, "count": error.count, "repaired": error.repaired}
            for error in lesson.recurring_errors
        ],
        exercises={answer.exercise_id: answer.score for answer in lesson.answers},
        finished=lesson.finished,
    )


TOOLS: Final = (get_student_profile, get_lesson_plan, get_progress)


def _short(text: str) -> str:
    return clipped(text, _TEXT)
