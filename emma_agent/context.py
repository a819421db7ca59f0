"""What Emma knows of a student: the answers of Convex, parsed once into typed values.

The shapes are those of `students:tutoringContext` and `sessions:plan` (`convex/`). Pure:
no I/O, so that tools, prompts and their tests need nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NewType

from pydantic import TypeAdapter, with_config

from emma_agent.wire import WIRE, Instant, parse

__all__ = [
    "GUEST_PLAN",
    "Avatar",
    "CorrectionStyle",
    "ErrorExample",
    "Exercise",
    "ExerciseKind",
    "LastSession",
    "Lesson",
    "LessonId",
    "LessonProgress",
    "NextLesson",
    "Plan",
    "Preferences",
    "Progress",
    "RecurringError",
    "Slide",
    "Student",
    "StudentId",
    "TalkingHead",
    "TutoringContext",
    "WordDue",
    "parse_context",
    "parse_plan",
]

StudentId = NewType("StudentId", str)
LessonId = NewType("LessonId", str)
CorrectionStyle = Literal["gentle", "every_error", "at_the_end"]
ExerciseKind = Literal["say", "fill_in", "choose", "answer"]


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Student:
    """The learner. `level` is CEFR; languages are BCP 47; `time_zone` is IANA."""

    student_id: StudentId
    name: str
    level: str
    native_language: str
    target_language: str
    time_zone: str
    goals: tuple[str, ...] = ()
    interests: tuple[str, ...] = ()


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Preferences:
    """How the student wants to be taught. `speech_rate` 1 is normal."""

    speech_rate: float = 1.0
    native_language_help: bool = True
    correction_style: CorrectionStyle = "gentle"


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Slide:
    """One slide of a lesson. The student never sees `notes`."""

    title: str
    text: str
    notes: str | None = None


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Exercise:
    """One task of a lesson. Without `answers`, any sensible one is right; `slide` from 0."""

    exercise_id: str
    kind: ExerciseKind
    prompt: str
    answers: tuple[str, ...] = ()
    slide: int | None = None


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Lesson:
    """What is to be taught. `language` is BCP 47."""

    lesson_id: LessonId
    title: str
    level: str
    language: str
    kind: Literal["guided", "conversation"]
    objectives: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    slides: tuple[Slide, ...] = ()
    exercises: tuple[Exercise, ...] = ()


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class NextLesson:
    """The lesson after the one of today, in the order of its course."""

    lesson_id: LessonId
    title: str


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class LessonProgress:
    """How far the student is in the lesson of today; instants in Unix seconds."""

    status: Literal["started", "completed"]
    times_studied: int
    last_studied_at: Instant


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Progress:
    """What the student has behind them."""

    lessons_completed: int
    this_lesson: LessonProgress | None = None


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class LastSession:
    """The lesson held before this one; instants in Unix seconds.

    `summary` is the tutor's own of that lesson; None until it is written. `session_key` is None
    where the functions are older than this worker.
    """

    started_at: Instant
    message_count: int
    session_key: str | None = None
    ended_at: Instant | None = None
    lesson_title: str | None = None
    summary: str | None = None


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class WordDue:
    """A word that it is time to use again. `language` is BCP 47."""

    word: str
    language: str
    meaning: str | None = None
    example: str | None = None


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class ErrorExample:
    """What the student said once, and what they meant to say."""

    said: str
    target: str


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class RecurringError:
    """A type of error that keeps coming back; instants in Unix seconds.

    `error_type` is one of `records.ErrorType`, or of newer functions' own. `repaired` of its
    `count` corrections the student then said right. `examples` are the newest.
    """

    error_type: str
    count: int
    sessions: int
    repaired: int
    last_seen_at: Instant
    examples: tuple[ErrorExample, ...] = ()


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class TalkingHead:
    """A face that speaks with Emma's voice; `face` is the provider's own name for it."""

    provider: str
    face: str


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Avatar:
    """Who Emma is in a lesson. `persona` is in the second person, at most 8 KiB as stored.

    `voice` is as the speech model names it, `language` BCP 47.
    """

    name: str
    persona: str = ""
    voice: str | None = None
    language: str | None = None
    teaching_style: str | None = None
    talking_head: TalkingHead | None = None


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Plan:
    """What others may change while a lesson runs. `avatar` None is the plain Emma."""

    preferences: Preferences = field(default_factory=Preferences)
    lesson: Lesson | None = None
    next_lesson: NextLesson | None = None
    avatar: Avatar | None = None


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class TutoringContext:
    """All that is known of the student when a lesson starts.

    `words_due` are those that the lesson teaches, then the longest due; `recurring_errors` those
    first that it helps most to work on; both are empty where the functions are older than this worker.
    """

    student: Student
    preferences: Preferences = field(default_factory=Preferences)
    lesson: Lesson | None = None
    progress: Progress | None = None
    last_session: LastSession | None = None
    words_due: tuple[WordDue, ...] = ()
    recurring_errors: tuple[RecurringError, ...] = ()
    next_lesson: NextLesson | None = None
    avatar: Avatar | None = None

    @property
    def plan(self) -> Plan:
        """The part that `sessions:plan` keeps live."""
        return Plan(
            preferences=self.preferences,
            lesson=self.lesson,
            next_lesson=self.next_lesson,
            avatar=self.avatar,
        )


GUEST_PLAN: Final = Plan()
"""What Emma works with while she knows nobody: free conversation, gentle corrections."""

_CONTEXT: Final = TypeAdapter(TutoringContext)
_PLAN: Final = TypeAdapter(Plan)


def parse_context(value: object) -> TutoringContext:
    """Parse the answer of `students:tutoringContext`.

    Raises:
        ContextError: another shape; functions and worker are of different versions.
    """
    return parse(_CONTEXT, value)


def parse_plan(value: object) -> Plan:
    """Parse the answer of `sessions:plan`.

    Raises:
        ContextError: another shape; functions and worker are of different versions.
    """
    return parse(_PLAN, value)
