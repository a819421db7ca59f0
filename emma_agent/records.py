"""What the tutor notes of a lesson beside the talk itself.

Records of the app's own, written through `SessionRecorder.record` as the plugin writes its own, and
folded by the functions of `convex/`: their shapes are in `learningValidators.ts`, held equal by a
test. Texts are cut at 1 KiB of UTF-8 when they are stored, those of a summary are refused over 2 KiB.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from livekit.plugins.convex import Record

__all__ = [
    "TUTOR_RECORD_TYPES",
    "CorrectionRecord",
    "ErrorType",
    "ExerciseRecord",
    "LessonFinishedRecord",
    "Rating",
    "SessionSummaryRecord",
    "Severity",
    "SlideShownRecord",
    "Step",
    "StepEnteredRecord",
    "WordIntroducedRecord",
    "WordReviewedRecord",
]

ErrorType = Literal[
    "tense",
    "verb_form",
    "agreement",
    "article",
    "preposition",
    "pronoun",
    "plural",
    "word_order",
    "word_choice",
    "false_friend",
    "missing_word",
    "register",
    "pronunciation",
    "other",
]
"""Kinds of error, closed, so that what keeps coming back can be counted."""

Severity = Literal["minor", "moderate", "major"]
"""How much an error hurts: the ear, the sense, or being understood at all."""

Rating = Literal[1, 2, 3, 4]
"""1 again, 2 hard, 3 good, 4 easy, as FSRS rates."""

Step = Literal[
    "greeting",
    "warm_up",
    "presentation",
    "practice",
    "conversation",
    "feedback",
    "farewell",
]
"""The parts of a lesson, closed; which of them a lesson has is in `steps.py`."""

# Nobody waits for these; they share the request of the next message.
_WITH_THE_NEXT_S: Final = 15.0


class CorrectionRecord(Record, tag="correction", frozen=True, kw_only=True):
    """An error that the student made.

    Attributes:
        correction_id: unique in the session. The same again is a newer snapshot of the whole, as
            when the student then says it right.
        item_id: LiveKit's id of the message that has the error.
        repaired: the student then said `target` themselves.
    """

    correction_id: str
    item_id: str | None = None
    said: str
    target: str
    error_type: ErrorType
    severity: Severity
    explanation: str | None = None
    repaired: bool


class WordIntroducedRecord(Record, tag="wordIntroduced", frozen=True, kw_only=True):
    """A word that the student meets, perhaps not for the first time. `language` is BCP 47."""

    deliver_within_s: ClassVar[float] = _WITH_THE_NEXT_S

    word: str
    language: str
    meaning: str | None = None
    example: str | None = None


class WordReviewedRecord(Record, tag="wordReviewed", frozen=True, kw_only=True):
    """How well the student knew a word at `created_at`; Convex reschedules it."""

    deliver_within_s: ClassVar[float] = _WITH_THE_NEXT_S

    word: str
    language: str
    rating: Rating


class ExerciseRecord(Record, tag="exerciseResult", frozen=True, kw_only=True):
    """One answer to an exercise of the lesson; `score` from 0 to 1."""

    deliver_within_s: ClassVar[float] = _WITH_THE_NEXT_S

    exercise_id: str
    score: float
    answer: str


class SlideShownRecord(Record, tag="slideShown", frozen=True, kw_only=True):
    """The slide that is on from now, counted from 0."""

    slide: int


class StepEnteredRecord(Record, tag="stepEntered", frozen=True, kw_only=True):
    """The part of the lesson that begins now."""

    step: Step


class LessonFinishedRecord(Record, tag="lessonFinished", frozen=True, kw_only=True):
    """The lesson's objectives were reached; the talk may go on."""


class SessionSummaryRecord(Record, tag="sessionSummary", frozen=True, kw_only=True):
    """What remains of the session in words; a later one of the same session replaces it.

    Attributes:
        for_student: at most 2 KiB of UTF-8, or Convex refuses the record for good; so is the other.
        for_teacher: what Emma is told of this lesson in the next one. The student does not see it.
        source: who put it into words: a model, or nobody: it is composed of the lesson's records.
    """

    text_fields: ClassVar[frozenset[str]] = frozenset({"for_student", "for_teacher"})

    for_student: str
    for_teacher: str
    source: Literal["model", "records"]


TUTOR_RECORD_TYPES: tuple[type[Record], ...] = (
    CorrectionRecord,
    WordIntroducedRecord,
    WordReviewedRecord,
    ExerciseRecord,
    SlideShownRecord,
    StepEnteredRecord,
    LessonFinishedRecord,
    SessionSummaryRecord,
)
