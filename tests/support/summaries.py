"""A lesson of which a summary is made."""

from __future__ import annotations

from typing import Any

from emma_agent.summaries import Held, Said
from emma_agent.teaching import Teaching
from tests.support.lessons import known_student


def held_lesson(**changes: Any) -> Held:
    """Ana's lesson up to its practice: two mistakes, two words, two answers.

    Args:
        changes: of `tests.support.wire.tutoring_context`.
    """
    lesson = Teaching(now=lambda: 1_700_000_000.0)
    lesson.learn(known_student(**changes))
    lesson.enter_step("presentation")
    lesson.introduce_word("bargain", meaning="ganga")
    lesson.rate_word("receipt", 2)
    lesson.enter_step("practice")
    lesson.note_correction(said="I goed", target="I went", error_type="tense", severity="major")
    other = lesson.note_correction(
        said="I buyed", target="I bought", error_type="tense", severity="minor"
    )
    lesson.mark_repaired(other.correction_id)
    lesson.record_answer("ask", answer="How much is it?", score=1.0)
    lesson.record_answer("tell", answer="It cost much.", score=0.0)
    return Held(
        known=lesson.snapshot(),
        reviews=lesson.reviews,
        answers=lesson.answers,
        talk=(
            Said("assistant", "Hello Ana! What did you buy?", 0.0),
            Said("user", "I goed to the market and buyed bread.", 20.0),
            Said("assistant", "You went to the market?", 30.0),
            Said("user", "Yes, I bought bread.", 95.0),
        ),
    )
