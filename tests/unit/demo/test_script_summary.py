"""The scripted model writes the summary of a lesson when it is asked for one."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from emma_agent.demo.script import Say, reply_to
from emma_agent.summary_writer import request, write
from tests.support.scripted_llm import ScriptedLLM
from tests.support.summaries import held_lesson

INSTRUCTIONS = (
    resources.files("emma_agent.prompts").joinpath("summary.txt").read_text("utf-8").strip()
)


def answer_to(content: str) -> str:
    messages: list[dict[str, object]] = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": content},
    ]
    reply = reply_to(messages, tools=[])
    assert isinstance(reply, Say)
    return reply.text


async def test_its_summary_is_taken_as_one() -> None:
    """Asked as Emma asks, by the instructions and the data of a real request."""
    lesson = held_lesson()
    summary = await write(ScriptedLLM(answer_to(request(lesson))), lesson, timeout_s=5.0)
    assert summary.source == "model"
    assert summary.for_student == (
        "Has trabajado en «At the market». Palabras nuevas: bargain. "
        "Recuerda: «I went» (no «I goed»), «I bought» (no «I buyed»). "
        "La próxima vez seguiremos desde aquí."
    )
    assert summary.for_teacher == (
        "Written by the script. The lesson came to the practice. New words: bargain. "
        "Mistakes: I goed for I went; I buyed for I bought."
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"new_words": 3, "mistakes": [1]}'])
def test_whatever_it_is_asked_it_answers_both_texts(content: str) -> None:
    assert set(json.loads(answer_to(content))) == {"student", "teacher"}
