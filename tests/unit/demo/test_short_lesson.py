"""What the short lesson's demo finds wrong, and what its student says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from emma_agent.demo.numbers import Word
from emma_agent.demo.pupil import GOODBYE, MISTAKE, REPAIRED, Pupil
from emma_agent.demo.short_lesson import DUE, STEPS, problems_of
from tests.support.short_lesson import AFTER, FACTS, LEFT, NOTED, SESSION


def left(**changes: Any) -> dict[str, Any]:
    return {"left": replace(LEFT, **changes)}


def test_a_lesson_as_it_should_be_has_no_problem() -> None:
    assert problems_of(FACTS) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"greeting": "Hello Ana. Ana asked for the bill."}, "does not name the last lesson"),
        ({"greeting": "Hello. Last time we did In a café."}, "does not know of the last lesson"),
        ({"steps": STEPS[1:]}, "went through presentation"),
        ({"steps": (*STEPS[:2], *STEPS[1:])}, "went through warm_up, presentation, presentation"),
        ({"slides": [0]}, "slides on were 1,"),
        ({"slides": [0, 1, 0, 1]}, "each once"),
        ({"back": "Hello Ana, how are you?"}, "greeted again"),
        (left(over=False), "not on the record as an intended one"),
        (left(corrections=[]), "noted 0 times"),
        (left(corrections=[NOTED, NOTED]), "noted 2 times"),
        (left(corrections=[replace(NOTED, said=REPAIRED)]), "noted as “How much money"),
        (left(corrections=[replace(NOTED, repaired=False)]), "not noted as repaired"),
        (left(new_words=[]), "new words are none"),
        ({"exercises": {}}, "exercises are {}"),
        ({"exercises": {"two-apples": 0.5}}, "instead of two-apples with 1"),
        ({"words": {DUE: Word(word=DUE, mastered=True, reviews=4)}}, "has 4 reviews instead of 3"),
        ({"words": {DUE: Word(word=DUE, mastered=False, reviews=3)}}, "is not mastered"),
        ({"after": replace(AFTER, words_mastered=1)}, "words mastered is 1 instead of 2"),
        ({"after": replace(AFTER, corrections=4)}, "corrections made is 4 instead of 3"),
        ({"after": replace(AFTER, lessons_held=3)}, "lessons held is 3 instead of 4"),
        ({"after": replace(AFTER, minutes=24.0)}, "minutes are what they were"),
        ({"session": None}, "holds no session"),
        ({"session": replace(SESSION, provisional_end=True)}, "was not closed"),
        ({"session": replace(SESSION, runs=2)}, "2 runs instead of 1"),
    ],
)
def test_each_thing_that_is_wrong_is_a_sentence(changes: dict[str, Any], problem: str) -> None:
    found = problems_of(replace(FACTS, **changes))
    assert any(problem in sentence for sentence in found), found


def test_the_student_makes_the_mistake_once() -> None:
    pupil = Pupil()
    assert pupil.answer("Very good. Please say: How much money do you have?") == MISTAKE
    assert pupil.answer("We say: How much money do you have. Please say it again.") == REPAIRED
    assert pupil.answer("Please say it after me. How much money do you have?") == REPAIRED


def test_the_student_answers_the_question_and_not_what_is_quoted() -> None:
    pupil = Pupil()
    heard = "You had said: How much money do you have. Please say: Can I have a ticket, please?"
    assert pupil.answer(heard) == "Can I have a ticket, please?"
    assert pupil.answer("Today you learnt money and ticket. Goodbye, Ana.") == GOODBYE
