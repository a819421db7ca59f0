"""What remains of a lesson in words, composed of what it noted."""

from __future__ import annotations

import dataclasses
import re
import string
from dataclasses import replace

import pytest
from livekit.agents import llm

from emma_agent.convex_local import ROOT
from emma_agent.records import CorrectionRecord
from emma_agent.summaries import MAX_SUMMARY_BYTES, Held, Said, bounded, composed, held
from emma_agent.summary_phrases import PHRASES, Phrases
from emma_agent.teaching import Snapshot
from tests.support.lessons import known_student, lesson_of
from tests.support.summaries import held_lesson
from tests.support.wire import LESSON, STUDENT


def correction(said: str, *, severity: str = "minor") -> CorrectionRecord:
    return CorrectionRecord(
        created_at=0.0,
        correction_id=said,
        said=said,
        target=f"right {said}",
        error_type="tense",
        severity=severity,  # type: ignore[arg-type]
        repaired=False,
    )


def test_a_lesson_is_told_to_the_student_in_their_own_language() -> None:
    assert composed(held_lesson()).for_student == (
        "Has trabajado en «At the market». Minutos: 2. Palabras nuevas: bargain. "
        "Has repasado estas palabras: receipt. Después lo has dicho bien: I bought. "
        "Recuerda: «I went» (no «I goed»). Ejercicios: 1 de 2 correctos. "
        "La próxima vez seguiremos desde aquí."
    )


def test_a_lesson_is_told_to_the_teacher_in_facts() -> None:
    summary = composed(held_lesson())
    assert summary.for_teacher == (
        "Lesson “At the market” (A2). Came to the practice, slide 1 of 1; aims not reached yet. "
        "Minutes of talk: 2. Mistakes noted: 2: “I goed” for “I went” (tense); "
        "“I buyed” for “I bought” (tense, then said right). New words: bargain. "
        "Words brought back: receipt (hard). Exercises: 1 of 2 right. Next: go on with the practice."
    )
    assert summary.source == "records"


@pytest.mark.parametrize("language", sorted(PHRASES))
def test_every_language_has_every_sentence_with_every_place(language: str) -> None:
    """A place that a translation forgets would leave out what it stands for."""

    def places(phrases: Phrases) -> dict[str, set[str | None]]:
        return {
            field.name: {
                name
                for _, name, _, _ in string.Formatter().parse(getattr(phrases, field.name))
                if name is not None
            }
            for field in dataclasses.fields(Phrases)
        }

    assert places(PHRASES[language]) == places(PHRASES["en"])
    for field in dataclasses.fields(Phrases):
        said, english = getattr(PHRASES[language], field.name), getattr(PHRASES["en"], field.name)
        assert said or field.name == "joint"
        assert language == "en" or said != english or field.name in ("joint", "comma")


@pytest.mark.parametrize(
    ("native", "begins"),
    [
        ("de-AT", "Du hast an „At the market“"),
        ("ja", "「At the market」を"),
        ("ar-EG", "موضوع الدرس: «At the market»"),
        ("pt", "You worked on “At the market”"),
        ("", "You worked on"),
    ],
)
def test_a_language_without_sentences_is_answered_in_english(native: str, begins: str) -> None:
    student = {**STUDENT, "nativeLanguage": native}
    assert composed(held_lesson(student=student)).for_student.startswith(begins)


def test_a_guests_talk_has_a_summary_too() -> None:
    summary = composed(Held(known=Snapshot(), talk=(Said("user", "Hello", 0.0),)))
    assert summary.for_student == "You talked with Emma. Next time we go on from here."
    assert summary.for_teacher == (
        "Free conversation. Came to the greeting; aims not reached yet. No mistakes were noted. "
        "Next: go on with the greeting."
    )


def test_a_lesson_that_was_finished_says_so() -> None:
    summary = composed(replace(held_lesson(), finished=True))
    assert "Has alcanzado los objetivos" in summary.for_student
    assert "aims reached." in summary.for_teacher
    assert "Next:" not in summary.for_teacher


def test_a_lesson_that_was_finished_says_what_comes_next() -> None:
    following = {"lessonId": "lesson_2", "title": "At the doctor's"}
    summary = composed(replace(held_lesson(nextLesson=following), finished=True))
    assert summary.for_teacher.endswith("Next: “At the doctor's”.")


def test_a_lesson_that_went_on_after_an_interruption_is_told_as_one() -> None:
    before = held_lesson()
    known = replace(before.known, earlier="They spoke of prices.")
    told = composed(replace(before, known=known)).for_teacher
    assert "It was interrupted; before that: They spoke of prices." in told


def test_what_hurts_most_is_told_first_and_not_everything_is() -> None:
    noted = [correction(f"error {number}") for number in range(20)]
    noted.append(correction("the worst", severity="major"))
    known = replace(held_lesson().known, corrections=tuple(noted))
    told = composed(replace(held_lesson(), known=known)).for_teacher
    assert "Mistakes noted: 21: “the worst” for" in told
    assert told.count("” for “") == 8


def test_no_lesson_makes_a_summary_longer_than_can_be_stored() -> None:
    long = "長い言葉" * 1_000
    lesson = {**LESSON, "title": long}
    one = held_lesson(lesson=lesson, student={**STUDENT, "nativeLanguage": "ja"})
    noted = tuple(correction(f"{number} {long}") for number in range(50))
    known = replace(one.known, corrections=noted, new_words=tuple(f"{n}{long}" for n in range(40)))
    summary = composed(replace(one, known=known))
    for text in (summary.for_student, summary.for_teacher):
        assert len(text.encode()) <= MAX_SUMMARY_BYTES
        assert "「" in summary.for_student


def test_convex_takes_as_much() -> None:
    limits = (ROOT / "convex" / "limits.ts").read_text(encoding="utf-8")
    [taken] = re.findall(r"maxSummaryBytes: ([\d_]+),", limits)
    assert int(taken) == MAX_SUMMARY_BYTES


def test_a_text_that_is_too_long_ends_with_a_sentence() -> None:
    assert bounded("Short one. " * 500).endswith("Short one.")
    assert bounded("語" * 5_000) == "語" * ((MAX_SUMMARY_BYTES - 3) // 3) + "…"


def test_a_text_is_one_line_of_what_people_write() -> None:
    assert bounded("a\nb\t\x00c\u2028d \u202eevil\ud800") == "a b c d evil"
    assert bounded("می\u200cخواهم") == "می\u200cخواهم"


def test_silence_leaves_no_summary() -> None:
    history = llm.ChatContext.empty()
    history.add_message(role="assistant", content="Hello! Are you there?")
    lesson = lesson_of(known_student())
    assert held(lesson, history) is None
    history.add_message(role="user", content="")
    assert held(lesson, history) is None
    assert held(lesson, history, earlier=[Said("user", "Hi", 0.0)]) is not None


def test_a_pause_is_none_of_the_lesson() -> None:
    talk = tuple(Said("user", "…", at) for at in (0.0, 60.0, 10_000.0, 10_030.0))
    assert Held(known=Snapshot(), talk=talk).minutes == 5
    assert Held(known=Snapshot(), talk=talk[:1]).minutes == 0
