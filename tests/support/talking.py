"""Talks in text with a scripted model, and what its tools answered."""

from __future__ import annotations

import json
from typing import Any

from livekit.agents import RunResult, llm
from livekit.agents.voice.run_result import FunctionCallOutputEvent

from emma_agent.lesson import LessonState
from livekit.plugins.convex import Record
from tests.support.lessons import in_lesson
from tests.support.scripted_llm import Answer, ScriptedLLM, ToolRequest, call


class Pen:
    """Stands for a SessionRecorder: keeps what is written."""

    def __init__(self) -> None:
        self.written: list[Record] = []

    def record(self, record: Record) -> int:
        self.written.append(record)
        return len(self.written) - 1


def with_pen(lesson: LessonState) -> Pen:
    """Let what happens in `lesson` be written to a pen."""
    pen = Pen()
    lesson.recorder = pen  # type: ignore[assignment]
    return pen


def use(tool: str, **arguments: Any) -> ToolRequest:
    """The model calls a tool."""
    return call(tool, json.dumps(arguments))


async def outputs_of(
    lesson: LessonState, *answers: Answer, said: str = "Hello."
) -> list[llm.FunctionCallOutput]:
    """What the tools answered while a model gave `answers` to one sentence of the student."""
    async with in_lesson(lesson, ScriptedLLM("Hello!", *answers)) as session:
        result: RunResult[None] = await session.run(user_input=said)
    return [event.item for event in result.events if isinstance(event, FunctionCallOutputEvent)]


async def answer_to(lesson: LessonState, tool: str, **arguments: Any) -> dict[str, Any]:
    """The answer of a tool that takes the call."""
    [output] = await outputs_of(lesson, use(tool, **arguments))
    assert not output.is_error, output.output
    answer = json.loads(output.output)
    assert isinstance(answer, dict)
    return answer


async def refusal_of(lesson: LessonState, tool: str, **arguments: Any) -> str:
    """The sentence of a tool that does not take the call."""
    [output] = await outputs_of(lesson, use(tool, **arguments))
    assert output.is_error, output.output
    return output.output
