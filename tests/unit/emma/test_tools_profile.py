"""The tools that read, as the model uses them."""

from __future__ import annotations

import json

import pytest
from livekit.agents import RunResult

from emma_agent.lesson import LessonState
from tests.support.lessons import in_lesson, known_student, lesson_of
from tests.support.scripted_llm import ScriptedLLM, call
from tests.support.wire import LESSON


async def answer_of(tool: str, lesson: LessonState) -> tuple[str, bool]:
    """What the model gets when it calls `tool`, and whether that is an error."""
    model = ScriptedLLM("Hello!", call(tool), "I see.")
    async with in_lesson(lesson, model) as session:
        result: RunResult[None] = await session.run(user_input="What do you know about me?")
    result.expect.next_event().is_function_call(name=tool)
    output = result.expect.next_event().is_function_call_output().event().item
    result.expect.next_event().is_message(role="assistant")
    result.expect.no_more_events()
    return output.output, output.is_error


async def test_the_profile_is_read_from_memory() -> None:
    answer, is_error = await answer_of("get_student_profile", lesson_of(known_student()))
    assert not is_error
    assert json.loads(answer) == {
        "student": {
            "name": "Ana",
            "level": "A2",
            "native_language": "es",
            "target_language": "en",
            "time_zone": "Europe/Madrid",
            "goals": ["pass B2", "speak at work"],
            "interests": ["cooking"],
        },
        "preferences": {
            "speech_rate": 0.9,
            "native_language_help": False,
            "correction_style": "every_error",
        },
        "lessons_completed": 3,
        "last_lesson": "Family",
    }


async def test_the_plan_is_read_from_memory() -> None:
    answer, is_error = await answer_of("get_lesson_plan", lesson_of(known_student()))
    assert not is_error
    assert json.loads(answer) == {
        "lesson": {
            "title": "At the market",
            "level": "A2",
            "language": "en-GB",
            "kind": "guided",
            "objectives": ["ask for a price"],
            "target_words": ["cheap", "receipt"],
            "slides": [{"title": "Prices", "text": "How much is it?"}],
            "exercises": [],
        }
    }


async def test_the_plan_counts_slides_as_people_do_and_leaves_their_notes_to_them() -> None:
    exercise = {"exerciseId": "eggs", "kind": "fill_in", "prompt": "… eggs?", "answers": ["any"]}
    plan = {
        **LESSON,
        "slides": [{"title": "Prices", "text": "How much is it?", "notes": "Slowly."}],
        "exercises": [{**exercise, "slide": 0}],
    }
    answer, _ = await answer_of("get_lesson_plan", lesson_of(known_student(lesson=plan)))
    told = json.loads(answer)["lesson"]
    assert told["exercises"] == [
        {
            "exercise_id": "eggs",
            "kind": "fill_in",
            "prompt": "… eggs?",
            "answers": ["any"],
            "slide": 1,
        }
    ]
    assert "Slowly." not in answer


async def test_however_long_a_lesson_is_its_plan_is_not() -> None:
    """What a tool answers stays in the conversation, which every further answer is made of."""
    long = "wörd " * 2_000
    exercise = {"exerciseId": "e", "kind": "say", "prompt": long, "answers": [long] * 50}
    plan = {
        **LESSON,
        "title": long,
        "objectives": [long] * 100,
        "targetWords": [f"word {n}" for n in range(5_000)],
        "slides": [{"title": "t", "text": long, "notes": long}] * 100,
        "exercises": [exercise] * 100,
    }
    answer, is_error = await answer_of("get_lesson_plan", lesson_of(known_student(lesson=plan)))
    assert not is_error
    told = json.loads(answer)["lesson"]
    assert (len(told["target_words"]), len(told["slides"])) == (64, 32)
    assert all(len(slide["text"]) <= 160 for slide in told["slides"])
    assert len(answer) < 64_000


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        ("get_student_profile", "This student is a guest and has no profile"),
        ("get_lesson_plan", "No lesson is planned for today"),
    ],
)
async def test_for_a_guest_the_model_is_told_in_one_sentence(tool: str, says: str) -> None:
    answer, is_error = await answer_of(tool, lesson_of(None))
    assert is_error
    assert answer.startswith(says)


async def test_while_convex_is_silent_the_model_is_told_so() -> None:
    """An empty profile and an unreachable database must look different."""
    lesson = lesson_of(None)
    lesson.degraded = True
    answer, is_error = await answer_of("get_student_profile", lesson)
    assert is_error
    assert answer == "The student's profile is not available right now; go on without it."
