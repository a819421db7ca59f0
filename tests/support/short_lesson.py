"""A short lesson of the demo that left everything it should."""

from __future__ import annotations

from emma_agent.demo.numbers import Correction, Left, Numbers, Word
from emma_agent.demo.pupil import MISTAKE, REPAIRED
from emma_agent.demo.rows import SessionRow
from emma_agent.demo.short_lesson import DUE, STEPS, Facts

BEFORE = Numbers(
    words_mastered=1,
    words_learning=1,
    corrections=2,
    repaired=1,
    lessons_completed=1,
    lessons_held=3,
    minutes=24.0,
    streak_days=0,
)
AFTER = Numbers(
    words_mastered=2,
    words_learning=2,
    corrections=3,
    repaired=2,
    lessons_completed=2,
    lessons_held=4,
    minutes=25.5,
    streak_days=1,
)
NOTED = Correction(said=MISTAKE, target=REPAIRED, error_type="word_choice", repaired=True)
LEFT = Left(
    over=True,
    last_seen_at=1_700_000_000.0,
    step="farewell",
    slide=1,
    corrections=[NOTED],
    new_words=[{"word": "money"}, {"word": "ticket"}],
)
SESSION = SessionRow(status="ended", provisional_end=False, message_count=17, runs=1)
FACTS = Facts(
    last_title="In a café",
    last_summary="Ana asked for the bill. Mixes much and many.",
    greeting="Hello Ana. Last time we did In a café. My notes say: Ana asked for the bill.",
    before=BEFORE,
    after=AFTER,
    steps=list(STEPS),
    slides=[0, 1],
    left=LEFT,
    due_before=Word(word=DUE, mastered=False, reviews=2),
    words={DUE: Word(word=DUE, mastered=True, reviews=3)},
    exercises={"two-apples": 1.0},
    session=SESSION,
)
