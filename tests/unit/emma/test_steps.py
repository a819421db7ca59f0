"""Which parts a lesson has, and which comes next."""

from __future__ import annotations

from typing import Any

import pytest

from emma_agent.context import Lesson, parse_context
from emma_agent.records import Step
from emma_agent.steps import step_after, steps_of
from tests.support.wire import LESSON, tutoring_context


def lesson(**changes: Any) -> Lesson:
    parsed = parse_context(tutoring_context(lesson={**LESSON, **changes})).lesson
    assert parsed is not None
    return parsed


def test_a_guided_lesson_has_six_parts() -> None:
    steps = ("greeting", "warm_up", "presentation", "practice", "feedback", "farewell")
    assert steps_of(lesson(), words_due=1) == steps


def test_a_part_with_nothing_in_it_is_left_out() -> None:
    assert steps_of(lesson(slides=[]), words_due=0) == (
        "greeting",
        "practice",
        "feedback",
        "farewell",
    )


@pytest.mark.parametrize("taught", [None, lesson(kind="conversation")])
def test_free_conversation_is_a_kind_of_its_own(taught: Lesson | None) -> None:
    steps = ("greeting", "conversation", "feedback", "farewell")
    assert steps_of(taught, words_due=9) == steps


@pytest.mark.parametrize(
    ("step", "taught", "due", "then"),
    [
        ("greeting", lesson(), 2, "warm_up"),
        ("greeting", lesson(), 0, "presentation"),
        # Its last word was rated, and it is still the part that is on.
        ("warm_up", lesson(), 0, "presentation"),
        # The slides were taken away while they were shown.
        ("presentation", lesson(slides=[]), 0, "practice"),
        ("farewell", lesson(), 0, None),
        # The lesson became known late, or its kind was changed.
        ("conversation", lesson(), 0, "presentation"),
        ("practice", lesson(kind="conversation"), 0, "conversation"),
        ("greeting", None, 3, "conversation"),
    ],
)
def test_what_comes_next(step: Step, taught: Lesson | None, due: int, then: Step | None) -> None:
    assert step_after(step, taught, words_due=due) == then
