"""The tool that keeps answers to the exercises of the lesson."""

from __future__ import annotations

from typing import Final, Literal

from livekit.agents import RunContext, ToolError, function_tool

from emma_agent.lesson import LessonState
from emma_agent.teaching import same_words
from emma_agent.tools.answers import as_json, checked

__all__ = ["TOOLS", "record_answer"]

_SCORES: Final = {"right": 1.0, "partly": 0.5, "wrong": 0.0}


@function_tool
async def record_answer(
    context: RunContext[LessonState],
    exercise_id: str,
    answer: str,
    result: Literal["right", "partly", "wrong"],
) -> str:
    """Keep the student's answer to an exercise of the lesson.

    Args:
        exercise_id: As in the lesson's plan.
        answer: What the student answered, in their words.
        result: Whether it is right; one of the accepted answers is, whatever you say.
    """
    lesson = context.userdata
    exercises = {
        each.exercise_id: each for each in (lesson.lesson.exercises if lesson.lesson else ())
    }
    if not exercises:
        raise ToolError("This lesson has no exercises; practise freely, nothing has to be kept.")
    answered = {given.exercise_id for given in lesson.answers}
    left = [each for each in exercises.values() if each.exercise_id not in answered]
    exercise = exercises.get(exercise_id)
    if exercise is None:
        names = ", ".join((*(each.exercise_id for each in left), *answered))
        raise ToolError(f"There is no such exercise in this lesson; there are: {names}.")
    answer = checked("answer", answer, most=1_000)
    accepted = {same_words(each) for each in exercise.answers}
    score = 1.0 if same_words(answer) in accepted else _SCORES[result]
    lesson.record_answer(exercise_id, answer=answer, score=score)
    left = [each for each in left if each is not exercise]
    return as_json(
        kept=exercise_id,
        score=score,
        exercises_left=len(left),
        next_exercise={"exercise_id": left[0].exercise_id, "prompt": left[0].prompt}
        if left
        else None,
    )


TOOLS: Final = (record_answer,)
