"""Tools that turn the slides of the lesson. People count slides from 1."""

from __future__ import annotations

from typing import Final

from livekit.agents import RunContext, ToolError, function_tool

from emma_agent.lesson import LessonState
from emma_agent.tools.answers import as_json

__all__ = ["TOOLS", "go_to_slide", "next_slide", "previous_slide"]


@function_tool
async def next_slide(context: RunContext[LessonState]) -> str:
    """Turn to the next slide, once the one that is on has been taught."""
    lesson = context.userdata
    slide = -1 if lesson.slide is None else lesson.slide
    if lesson.slides and slide + 1 >= len(lesson.slides):
        raise ToolError("This is the last slide; when it has been taught, call next_step.")
    return _turn_to(context, slide + 1)


@function_tool
async def previous_slide(context: RunContext[LessonState]) -> str:
    """Turn back one slide, when something on it was not understood."""
    lesson = context.userdata
    if lesson.slides and not lesson.slide:
        raise ToolError("There is no slide before this one.")
    return _turn_to(context, (lesson.slide or 0) - 1)


@function_tool
async def go_to_slide(context: RunContext[LessonState], number: int) -> str:
    """Turn to a given slide, when the student asks for it or an exercise needs it.

    Args:
        number: Counted from 1.
    """
    slides = context.userdata.slides
    if slides and not 1 <= number <= len(slides):
        raise ToolError(f"There is no slide {number}; this lesson has slides 1 to {len(slides)}.")
    return _turn_to(context, number - 1)


TOOLS: Final = (next_slide, previous_slide, go_to_slide)


def _turn_to(context: RunContext[LessonState], number: int) -> str:
    lesson = context.userdata
    if not lesson.slides:
        raise ToolError("This lesson has no slides; teach without them.")
    if lesson.turned_during == context.speech_handle.id:
        raise ToolError("You have turned a slide in this answer already; speak about it first.")
    lesson.turned_during = context.speech_handle.id
    slide = lesson.show_slide(number)
    exercises = [
        exercise.exercise_id
        for exercise in (lesson.lesson.exercises if lesson.lesson else ())
        if exercise.slide == number
    ]
    return as_json(
        slide=number + 1,
        of=len(lesson.slides),
        title=slide.title,
        text=slide.text,
        notes_for_you=slide.notes,
        exercises=exercises or None,
    )
