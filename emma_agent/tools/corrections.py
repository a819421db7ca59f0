"""Tools that keep the student's mistakes, and what became of them."""

from __future__ import annotations

from typing import Final

from livekit.agents import RunContext, ToolError, function_tool

from emma_agent.lesson import LessonState
from emma_agent.records import ErrorType, Severity
from emma_agent.teaching import MAX_CORRECTIONS, same_words
from emma_agent.tools.answers import as_json, checked

__all__ = ["TOOLS", "mark_repaired", "note_correction"]

_SHOWN: Final = 5


@function_tool
async def note_correction(
    context: RunContext[LessonState],
    said: str,
    target: str,
    error_type: ErrorType,
    severity: Severity,
    explanation: str | None = None,
) -> str:
    """Keep a mistake that the student just made, so that it can be worked on later.

    Args:
        said: The few words with the mistake, as you heard them.
        target: The same words said right.
        error_type: What kind of mistake it is.
        severity: minor hurts the ear, moderate the sense, major understanding.
        explanation: Why, in one short sentence that the student understands.
    """
    lesson = context.userdata
    said, target = checked("said", said), checked("target", target)
    if same_words(said) == same_words(target) and error_type not in ("pronunciation", "other"):
        raise ToolError(
            "said and target are the same words. Speech recognition may have repaired the mistake: "
            "give what you heard as said, or note nothing."
        )
    if len(lesson.corrections) >= MAX_CORRECTIONS:
        raise ToolError("Enough mistakes are noted for one lesson; go on without noting more.")
    noted = lesson.note_correction(
        said=said,
        target=target,
        error_type=error_type,
        severity=severity,
        explanation=checked("explanation", explanation) if explanation else None,
        item_id=last_heard(context),
    )
    known = {error.error_type: error.count for error in lesson.recurring_errors}
    return as_json(
        correction_id=noted.correction_id,
        noted_today=len(lesson.corrections),
        times_of_this_type=known.get(error_type, 1),
        correct_it="at the end" if _later(lesson) else "now, briefly",
    )


@function_tool
async def mark_repaired(context: RunContext[LessonState], correction_id: str) -> str:
    """Keep that the student has now said right, themselves, what was corrected before.

    Args:
        correction_id: As note_correction answered.
    """
    lesson = context.userdata
    if correction_id not in lesson.corrections:
        open_ones = [
            f"{noted.correction_id} ({noted.target})"
            for noted in lesson.corrections.values()
            if not noted.repaired
        ][-_SHOWN:]
        raise ToolError(
            "There is no such correction in this lesson; "
            + (f"use one of: {', '.join(open_ones)}." if open_ones else "none is open.")
        )
    repaired = lesson.mark_repaired(correction_id)
    left = sum(not noted.repaired for noted in lesson.corrections.values())
    return as_json(repaired=repaired.target, not_yet_repaired=left)


TOOLS: Final = (note_correction, mark_repaired)


def last_heard(context: RunContext[LessonState]) -> str | None:
    """LiveKit's id of what the student said last."""
    for message in reversed(context.session.history.messages()):
        if message.role == "user":
            return message.id
    return None


def _later(lesson: LessonState) -> bool:
    return lesson.plan.preferences.correction_style == "at_the_end" and lesson.step not in (
        "feedback",
        "farewell",
    )
