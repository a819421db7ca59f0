"""The tool that says that the lesson has reached its objectives."""

from __future__ import annotations

from typing import Final

from livekit.agents import RunContext, ToolError, function_tool, llm

from emma_agent.lesson import LessonState
from emma_agent.steps import LAST_STEPS
from emma_agent.tools.answers import as_json

__all__ = ["TOOLS", "finish_lesson"]


@function_tool(flags=llm.ToolFlag.IGNORE_ON_ENTER)
async def finish_lesson(context: RunContext[LessonState]) -> str:
    """Keep that the objectives of the lesson were reached, near its end."""
    lesson = context.userdata
    if lesson.step not in LAST_STEPS:
        raise ToolError(
            f"The lesson is in its {lesson.step.replace('_', '-')} and cannot be finished yet; "
            "go through its parts with next_step."
        )
    lesson.finish()
    left = sum(not noted.repaired for noted in lesson.corrections.values())
    return as_json(
        finished=True,
        new_words=[word.word for word in lesson.new_words.values()] or None,
        corrections=len(lesson.corrections),
        not_yet_repaired=left,
        next="say goodbye" if lesson.step == "farewell" else "call next_step",
    )


TOOLS: Final = (finish_lesson,)
