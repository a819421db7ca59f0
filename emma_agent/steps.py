"""The parts of a lesson and their order. Pure.

A guided lesson: greeting, warm-up with the words that are due, presentation by slides, practice,
feedback, farewell. Free conversation is a kind of its own: greeting, conversation, feedback,
farewell. A part without anything to do in it is left out.
"""

from __future__ import annotations

from typing import Final

from emma_agent.context import Lesson
from emma_agent.records import Step

__all__ = ["FIRST_STEP", "LAST_STEPS", "step_after", "steps_of"]

FIRST_STEP: Final[Step] = "greeting"
LAST_STEPS: Final[frozenset[Step]] = frozenset({"feedback", "farewell"})
"""The parts in which a lesson can be finished."""

_GUIDED: Final[tuple[Step, ...]] = (
    "greeting",
    "warm_up",
    "presentation",
    "practice",
    "feedback",
    "farewell",
)
_CONVERSATION: Final[tuple[Step, ...]] = ("greeting", "conversation", "feedback", "farewell")


def steps_of(lesson: Lesson | None, *, words_due: int) -> tuple[Step, ...]:
    """The parts that this lesson has now; without a lesson, those of free conversation."""
    if lesson is None or lesson.kind == "conversation":
        return _CONVERSATION
    empty = set[Step]()
    if not words_due:
        empty.add("warm_up")
    if not lesson.slides:
        empty.add("presentation")
    return tuple(step for step in _GUIDED if step not in empty)


def step_after(step: Step, lesson: Lesson | None, *, words_due: int) -> Step | None:
    """The part that follows `step`; None after the last.

    A part that this kind of lesson does not have, because a teacher changed the kind meanwhile or
    the lesson became known late, is followed by the first after the greeting.
    """
    order = _CONVERSATION if lesson is None or lesson.kind == "conversation" else _GUIDED
    here = order.index(step) if step in order else 0
    steps = steps_of(lesson, words_due=words_due)
    return next((later for later in order[here + 1 :] if later in steps), None)
