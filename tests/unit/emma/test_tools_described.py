"""What a model is told of the tools: the same as LiveKit tells it, and not worked out anew."""

from __future__ import annotations

from typing import Any

import pytest
from livekit.agents import llm

from emma_agent.tools import TOOLS
from emma_agent.tools.described import described
from emma_agent.tutor import Tutor
from tests.support.lessons import in_lesson, known_student, lesson_of
from tests.support.scripted_llm import ScriptedLLM
from tests.support.talking import outputs_of, use


def told(tools: list[llm.Tool]) -> list[dict[str, Any]]:
    """What LiveKit's OpenAI plugin sends."""
    return llm.ToolContext(tools).parse_function_tools("openai", strict=True)


async def test_the_model_is_told_the_same_as_by_livekit() -> None:
    tools: list[llm.Tool] = [*TOOLS, Tutor(lesson_of(known_student())).next_step]
    assert told(described(tools)) == told(tools)


async def test_it_is_worked_out_once_also_for_a_tool_of_the_next_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lesson = lesson_of(known_student())
    first = described([*TOOLS, Tutor(lesson).next_step])

    def again(*_: object, **__: object) -> None:
        raise AssertionError("a schema is worked out again")

    monkeypatch.setattr(llm.utils, "build_strict_openai_schema", again)
    second = described([*TOOLS, Tutor(lesson).next_step])
    assert told(second) == told(first)


async def test_what_is_asked_of_a_model_brings_its_schemas_along() -> None:
    model = _Told("Hello!", "Hello.")
    async with in_lesson(lesson_of(known_student()), model) as session:
        await session.run(user_input="Hello.")
    assert {tool.id for tool in model.told[-1]} >= {tool.id for tool in TOOLS}
    for tools in model.told:
        assert not any(isinstance(tool, llm.FunctionTool) for tool in tools)


async def test_what_a_model_calls_wrongly_is_still_explained_to_it() -> None:
    [output] = await outputs_of(lesson_of(known_student()), use("go_to_slide", number="many"))
    assert output.is_error
    assert "number" in output.output


class _Told(ScriptedLLM):
    """Keeps the tools of each request."""

    def __init__(self, *answers: str) -> None:
        super().__init__(*answers)
        self.told: list[list[llm.Tool]] = []

    def chat(self, *, tools: list[llm.Tool] | None = None, **options: Any) -> llm.LLMStream:
        self.told.append(tools or [])
        return super().chat(tools=tools, **options)
