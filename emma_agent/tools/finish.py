"""The tools that say that the lesson has reached its objectives, and that it is over."""

from __future__ import annotations

from typing import Final

from livekit.agents import RunContext, ToolError, function_tool, llm
from livekit.agents.llm import ToolResult

from emma_agent.lesson import LessonState
from emma_agent.steps import LAST_STEPS
from emma_agent.tools.answers import as_json

__all__ = ["TOOLS", "end_lesson", "finish_lesson"]


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


@function_tool(flags=llm.ToolFlag.IGNORE_ON_ENTER)
async def end_lesson(context: RunContext[LessonState]) -> str | ToolResult:
    """End the lesson, when the student has answered your farewell and wants nothing more."""
    lesson = context.userdata
    if lesson.step != "farewell":
        raise ToolError(
            f"The lesson ends after its farewell and is in its {lesson.step.replace('_', '-')}; "
            "go through its parts with next_step."
        )
    lesson.end_wanted = True
    # Words that came with the call are her goodbye; another one would be one too many.
    await context.wait_for_playout()
    said = any(
        isinstance(item, llm.ChatMessage) and item.role == "assistant"
        for item in context.speech_handle.chat_items
    )
    if said:
        return ToolResult(as_json(ends="now"), reply_required=False)
    return as_json(ends="after your next sentence", next="say goodbye in one short sentence")


TOOLS: Final = (finish_lesson, end_lesson)
