"""Teaching: what happens in a lesson is in memory at once and on the record, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emma_agent.context import Plan, parse_context
from emma_agent.records import (
    CorrectionRecord,
    ExerciseRecord,
    LessonFinishedRecord,
    SlideShownRecord,
    StepEnteredRecord,
    WordIntroducedRecord,
    WordReviewedRecord,
)
from emma_agent.resume import LessonSoFar
from emma_agent.teaching import REVIEW_EVERY_S, Teaching, same_words
from tests.support.talking import Pen
from tests.support.wire import LESSON, PREFERENCES, STUDENT, tutoring_context

SLIDES = [{"title": title, "text": f"About {title}."} for title in ("one", "two", "three")]


class Clock:
    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def pen() -> Pen:
    return Pen()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def teaching(pen: Pen, clock: Clock) -> Teaching:
    teaching = Teaching(now=clock)
    teaching.recorder = pen  # type: ignore[assignment]
    teaching.learn(parse_context(tutoring_context(lesson={**LESSON, "slides": SLIDES})))
    return teaching


def so_far(**known: Any) -> LessonSoFar:
    return LessonSoFar(session_key="s1", last_seen_at=1.0, over=False, **known)


def plan_of(teaching: Teaching, **lesson: Any) -> Plan:
    """The plan of `teaching` with another lesson."""
    return parse_context(tutoring_context(lesson={**LESSON, **lesson})).plan


def test_a_correction_is_kept_and_then_said_right(
    teaching: Teaching, pen: Pen, clock: Clock
) -> None:
    noted = teaching.note_correction(
        said="I goed", target="I went", error_type="tense", severity="moderate", item_id="item_1"
    )
    clock.at += 5
    repaired = teaching.mark_repaired(noted.correction_id)

    assert (noted.repaired, repaired.repaired) == (False, True)
    assert list(teaching.corrections.values()) == [repaired]
    assert pen.written == [noted, repaired]
    # The record of the repair is of its own time, and a snapshot of the whole.
    assert repaired.created_at == noted.created_at + 5
    assert (repaired.said, repaired.item_id) == ("I goed", "item_1")


def test_the_same_error_of_the_same_message_is_one(teaching: Teaching, pen: Pen) -> None:
    first, again, later = (
        teaching.note_correction(
            said=said, target="I went", error_type="tense", severity="minor", item_id=item_id
        )
        for said, item_id in (("I goed", "item_1"), ("i goed!", "item_1"), ("I goed", "item_2"))
    )
    assert again is first
    assert later.correction_id != first.correction_id
    assert len(pen.written) == 2


def test_corrections_count_among_what_keeps_coming_back(teaching: Teaching) -> None:
    [before] = [error for error in teaching.recurring_errors if error.error_type == "tense"]
    for item_id in ("item_1", "item_2"):
        noted = teaching.note_correction(
            said="I goed",
            target="I went",
            error_type="tense",
            severity="minor",
            item_id=item_id,
        )
    teaching.mark_repaired(noted.correction_id)
    for said in ("two breads", "three breads"):
        teaching.note_correction(
            said=said, target="loaves", error_type="plural", severity="minor", item_id="item_3"
        )
    teaching.note_correction(said="in foot", target="on", error_type="other", severity="minor")

    after = {error.error_type: error for error in teaching.recurring_errors}
    assert after["tense"].count == before.count + 2
    assert after["tense"].sessions == before.sessions + 1
    assert after["tense"].repaired == before.repaired + 1
    assert after["tense"].examples[0].said == "I goed"
    assert (after["plural"].count, after["plural"].sessions) == (2, 1)
    # Once is no habit.
    assert "other" not in after


def test_a_rated_word_is_due_no_more_and_not_rated_twice(
    teaching: Teaching, pen: Pen, clock: Clock
) -> None:
    assert [word.word for word in teaching.words_due] == ["receipt", "loaf"]
    teaching.rate_word("Receipt!", 3)
    assert [word.word for word in teaching.words_due] == ["loaf"]
    assert teaching.rateable_in_s("receipt") == REVIEW_EVERY_S
    clock.at += REVIEW_EVERY_S
    assert teaching.rateable_in_s("receipt") == 0
    # As Convex wrote it, in the language that it is of.
    assert pen.written == [
        WordReviewedRecord(created_at=1_800_000_000.0, word="receipt", language="en", rating=3)
    ]


def test_a_word_of_nobody_cannot_be_rated(teaching: Teaching, pen: Pen) -> None:
    assert not teaching.knows_word("zeitgeist")
    with pytest.raises(KeyError):
        teaching.rate_word("zeitgeist", 4)
    assert pen.written == []


def test_a_new_word_is_introduced_once_and_can_then_be_rated(teaching: Teaching, pen: Pen) -> None:
    met = teaching.introduce_word("change", meaning="cambio", example="Here is your change.")
    assert teaching.introduce_word("Change") is met
    teaching.rate_word("change", 2)
    assert met.language == "en-GB"
    assert [type(record) for record in pen.written] == [WordIntroducedRecord, WordReviewedRecord]


def test_a_guests_words_are_of_a_language_nobody_has_named() -> None:
    assert Teaching().introduce_word("change").language == "und"
    unnamed = Teaching()
    nothing = {**STUDENT, "targetLanguage": ""}
    unnamed.learn(parse_context(tutoring_context(lesson=None, student=nothing)))
    assert unnamed.introduce_word("change").language == "und"


def test_an_answer_said_twice_is_one(teaching: Teaching, pen: Pen) -> None:
    for score in (0.0, 0.0, 1.0):
        teaching.record_answer("e1", answer="any eggs", score=score)
    assert [record.score for record in pen.written if isinstance(record, ExerciseRecord)] == [0, 1]
    [answer] = teaching.answers
    assert answer.score == 1


def test_the_presentation_begins_with_the_first_slide(teaching: Teaching, pen: Pen) -> None:
    teaching.enter_step("presentation")
    teaching.show_slide(2)
    teaching.show_slide(2)
    teaching.enter_step("presentation")
    steps_and_slides = [
        record.step if isinstance(record, StepEnteredRecord) else record.slide
        for record in pen.written
        if isinstance(record, StepEnteredRecord | SlideShownRecord)
    ]
    assert steps_and_slides == ["presentation", 0, 2, "presentation"]
    assert (teaching.step, teaching.slide) == ("presentation", 2)


@pytest.mark.parametrize("slide", [-1, 3])
def test_a_slide_that_is_not_there_changes_nothing(
    teaching: Teaching, pen: Pen, slide: int
) -> None:
    with pytest.raises(IndexError):
        teaching.show_slide(slide)
    assert (teaching.slide, pen.written) == (None, [])


@pytest.mark.parametrize(
    ("shown", "slides", "then"),
    [
        pytest.param(1, [SLIDES[1], SLIDES[0]], 0, id="moved"),
        pytest.param(2, SLIDES[:1], 0, id="taken away"),
        pytest.param(1, [SLIDES[0], {**SLIDES[1], "text": "New."}], 1, id="written anew"),
        pytest.param(1, [], None, id="none left"),
        pytest.param(None, SLIDES[:1], None, id="none on yet"),
    ],
)
def test_a_changed_slide_set_keeps_the_slide_in_range(
    teaching: Teaching,
    pen: Pen,
    shown: int | None,
    slides: list[dict[str, str]],
    then: int | None,
) -> None:
    if shown is not None:
        teaching.show_slide(shown)
    pen.written.clear()
    assert teaching.change_plan(plan_of(teaching, slides=slides))
    assert teaching.slide == then
    # The page follows the record.
    expected = [then] if then not in (shown, None) else []
    assert [record.slide for record in pen.written if isinstance(record, SlideShownRecord)] == (
        expected
    )


def test_what_was_chosen_in_the_lesson_stays_when_a_teacher_changes_the_plan(
    teaching: Teaching,
) -> None:
    teaching.set_preference(speech_rate=0.7)
    teaching.rate_word("receipt", 3)
    changed = tutoring_context(preferences={**PREFERENCES, "correctionStyle": "at_the_end"})
    teaching.learn(parse_context(changed))
    assert teaching.plan.preferences.speech_rate == 0.7
    assert teaching.plan.preferences.correction_style == "at_the_end"
    assert [word.word for word in teaching.words_due] == ["loaf"]


@pytest.mark.parametrize(
    "happens",
    [
        lambda teaching: teaching.set_preference(native_language_help=True),
        lambda teaching: teaching.show_slide(1),
        lambda teaching: teaching.enter_step("practice"),
        lambda teaching: teaching.change_plan(Plan()),
        lambda teaching: teaching.resume_at(so_far(step="practice", slide=9)),
    ],
)
def test_what_changes_emmas_instructions_is_told(
    teaching: Teaching, happens: Callable[[Teaching], object]
) -> None:
    before = teaching.version
    happens(teaching)
    assert teaching.version > before


def test_going_on_writes_nothing_again(teaching: Teaching, pen: Pen) -> None:
    teaching.resume_at(so_far(step="practice", slide=9))
    assert (teaching.step, teaching.slide, pen.written) == ("practice", 2, [])


def test_what_an_earlier_run_noted_is_known_and_can_be_repaired(
    teaching: Teaching, pen: Pen
) -> None:
    noted = CorrectionRecord(
        created_at=1.0,
        correction_id="c_1",
        said="I goed",
        target="I went",
        error_type="tense",
        severity="minor",
        repaired=False,
    )
    met = WordIntroducedRecord(created_at=0.0, word="Stall", language="en")
    given = ExerciseRecord(created_at=1.0, exercise_id="e1", score=0.5, answer="some eggs")
    again = ExerciseRecord(created_at=2.0, exercise_id="e1", score=1.0, answer="any eggs")
    teaching.resume_at(
        so_far(
            summary="They bought fruit.",
            corrections=(noted,),
            new_words=(met,),
            answers=(given, again),
            finished=True,
        )
    )
    assert teaching.snapshot().earlier == "They bought fruit."
    assert teaching.snapshot().corrections == (noted,)
    assert teaching.knows_word("stall")
    teaching.introduce_word("stall")
    assert teaching.answers == (again,)
    teaching.record_answer("e1", answer="any eggs", score=1.0)
    teaching.finish()
    assert pen.written == []
    assert teaching.mark_repaired("c_1").repaired
    assert [type(record) for record in pen.written] == [CorrectionRecord]


def test_going_on_waits_for_a_lesson_that_comes_late(pen: Pen) -> None:
    teaching = Teaching()
    teaching.recorder = pen  # type: ignore[assignment]
    teaching.resume_at(so_far(step="presentation", slide=1))
    assert (teaching.step, teaching.slide) == ("presentation", None)
    teaching.learn(parse_context(tutoring_context(lesson={**LESSON, "slides": SLIDES})))
    assert (teaching.step, teaching.slide, pen.written) == ("presentation", 1, [])


def test_the_lesson_is_finished_once(teaching: Teaching, pen: Pen) -> None:
    teaching.finish()
    teaching.finish()
    assert [type(record) for record in pen.written] == [LessonFinishedRecord]


def test_before_the_recorder_is_there_all_is_in_memory() -> None:
    teaching = Teaching()
    noted = teaching.note_correction(said="a", target="b", error_type="other", severity="minor")
    assert isinstance(noted, CorrectionRecord)
    assert list(teaching.corrections) == [noted.correction_id]


@pytest.mark.parametrize(
    ("text", "same"), [("Receipt!", "receipt"), ("  at  the ", "at the"), ("ＡＢ", "ab"), ("…", "")]
)
def test_words_are_the_same_without_case_and_punctuation(text: str, same: str) -> None:
    assert same_words(text) == same
