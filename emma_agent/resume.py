"""Resume: a lesson that was interrupted goes on where it was. Pure.

What is known of it comes from Convex (`sessions:resumable`) or, where Convex does not answer, from
the journals that earlier runs left on this host; both become one `LessonSoFar`.
Who dispatches the job that goes on: docs/resuming.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from livekit.agents import llm
from pydantic import PlainValidator, TypeAdapter, with_config

from emma_agent.context import WordDue
from emma_agent.records import (
    CorrectionRecord,
    ErrorType,
    ExerciseRecord,
    LessonFinishedRecord,
    Severity,
    SlideShownRecord,
    Step,
    StepEnteredRecord,
    WordIntroducedRecord,
)
from emma_agent.tokens import tokens_in
from emma_agent.wire import WIRE, Instant, parse
from livekit.plugins.convex import (
    MessageRecord,
    Record,
    RunEndedRecord,
    SessionEndedRecord,
    SessionResumedRecord,
    SessionStartedRecord,
    TranscriptRecord,
)

if TYPE_CHECKING:
    from livekit.plugins.convex import JournaledRun

__all__ = [
    "READ_BACK",
    "RESUME_GRACE_S",
    "LessonSoFar",
    "Turn",
    "conversation",
    "from_journals",
    "goes_on",
    "parse_resumable",
]

_R = TypeVar("_R", bound=Record)

RESUME_GRACE_S: Final = 900.0
"""So long after the last that was heard of it, a session goes on; `SCHOOL.resumeGraceMs`."""

# Verbatim: what a talk hangs together by. What lies before is in the instructions, as state.
_MOST_TURNS: Final = 16
_MOST_TOKENS: Final = 1_500

READ_BACK: Final[tuple[type[Record], ...]] = (
    SessionStartedRecord,
    SessionResumedRecord,
    MessageRecord,
    TranscriptRecord,
    SessionEndedRecord,
    RunEndedRecord,
    StepEnteredRecord,
    SlideShownRecord,
    CorrectionRecord,
    WordIntroducedRecord,
    ExerciseRecord,
    LessonFinishedRecord,
)
"""The kinds of records that tell where a lesson is."""


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class Turn:
    """One thing that was said, as far as it was played; `created_at` in Unix seconds."""

    item_id: str
    role: Literal["user", "assistant"]
    text: str
    created_at: Instant
    interrupted: bool = False


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class _Correction:
    correction_id: str
    said: str
    target: str
    error_type: ErrorType
    severity: Severity
    repaired: bool
    created_at: Instant
    item_id: str | None = None
    explanation: str | None = None


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class _Answer:
    exercise_id: str
    score: float
    answer: str
    created_at: Instant


def _to_correction(value: object) -> CorrectionRecord:
    return CorrectionRecord(**asdict(_CORRECTION.validate_python(value)))


def _to_word(value: object) -> WordIntroducedRecord:
    # When it was met is the row's business; it is not recorded again.
    return WordIntroducedRecord(created_at=0.0, **asdict(_WORD.validate_python(value)))


def _to_answer(value: object) -> ExerciseRecord:
    return ExerciseRecord(**asdict(_ANSWER.validate_python(value)))


_CORRECTION: Final = TypeAdapter(_Correction)
_WORD: Final = TypeAdapter(WordDue)
_ANSWER: Final = TypeAdapter(_Answer)


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class LessonSoFar:
    """A session as its earlier runs left it.

    Attributes:
        session_key: the key that the session has now.
        last_seen_at: the last that was heard of it, in Unix seconds.
        over: its end was intended.
        step, slide: what was on; None: the greeting, no slide yet.
        messages: the last things said, in order.
        summary: of the session so far, for teachers; None if none was written.
        corrections, new_words, answers: noted so far, in order; the last answer to an exercise counts.
        finished: the objectives were reached.
    """

    session_key: str
    last_seen_at: Instant
    over: bool
    step: Step | None = None
    slide: int | None = None
    messages: tuple[Turn, ...] = ()
    summary: str | None = None
    corrections: tuple[Annotated[CorrectionRecord, PlainValidator(_to_correction)], ...] = ()
    new_words: tuple[Annotated[WordIntroducedRecord, PlainValidator(_to_word)], ...] = ()
    answers: tuple[Annotated[ExerciseRecord, PlainValidator(_to_answer)], ...] = ()
    finished: bool = False


_RESUMABLE: Final[TypeAdapter[LessonSoFar | None]] = TypeAdapter(LessonSoFar | None)


def parse_resumable(value: object) -> LessonSoFar | None:
    """Parse the answer of `sessions:resumable`; None if there is nothing to go on with.

    Raises:
        ContextError: another shape; functions and worker are of different versions.
    """
    return parse(_RESUMABLE, value)


def goes_on(found: LessonSoFar | None, *, fresh: bool, now: float) -> bool:
    """Whether the next job goes on with it, and does not begin anew.

    Args:
        fresh: who dispatched the job wants a fresh start.
        now: Unix seconds.
    """
    if found is None or fresh or found.over or not found.messages:
        return False
    return now - found.last_seen_at <= RESUME_GRACE_S


def conversation(found: LessonSoFar) -> llm.ChatContext:
    """The last turns, word for word, as the model's own memory; they are not recorded again."""
    kept: list[Turn] = []
    tokens = 0
    for turn in reversed(found.messages[-_MOST_TURNS:]):
        tokens += tokens_in(turn.text)
        if kept and tokens > _MOST_TOKENS:
            break
        kept.append(turn)
    chat_ctx = llm.ChatContext.empty()
    for turn in reversed(kept):
        chat_ctx.add_message(
            role=turn.role,
            content=turn.text,
            id=turn.item_id,
            created_at=turn.created_at,
            interrupted=turn.interrupted,
        )
    return chat_ctx


def from_journals(
    runs: Sequence[JournaledRun[Record]], *, session_key: str | None, lesson_id: str | None
) -> LessonSoFar | None:
    """What journals tell of a session: of that key, else the student's last of that lesson.

    Args:
        runs: the student's, oldest first, with the records of `READ_BACK`.
    """
    if session_key is None:
        if not runs or _lesson_of(runs[-1].records) != lesson_id:
            return None
        session_key = runs[-1].session_key
    records = [record for run in runs if run.session_key == session_key for record in run.records]
    # The end of a dead run may have been written by whoever found it, much later.
    living = [record.created_at for record in records if not isinstance(record, RunEndedRecord)]
    if not living:
        return None
    step = _last(records, StepEnteredRecord)
    slide = _last(records, SlideShownRecord)
    corrections = {r.correction_id: r for r in records if isinstance(r, CorrectionRecord)}
    return LessonSoFar(
        session_key=session_key,
        last_seen_at=max(living),
        over=_was_ended(records),
        step=None if step is None else step.step,
        slide=None if slide is None else slide.slide,
        messages=tuple(_turns(records)),
        corrections=tuple(corrections.values()),
        new_words=tuple(r for r in records if isinstance(r, WordIntroducedRecord)),
        answers=tuple(r for r in records if isinstance(r, ExerciseRecord)),
        finished=_last(records, LessonFinishedRecord) is not None,
    )


def _was_ended(records: Sequence[Record]) -> bool:
    """Whether the end was intended: said by the latest run, of a lesson that was done."""
    step = _last(records, StepEnteredRecord)
    done = step is not None and step.step == "farewell"
    done = done or _last(records, LessonFinishedRecord) is not None
    ends = (SessionStartedRecord, SessionResumedRecord, SessionEndedRecord)
    latest = next((r for r in reversed(records) if isinstance(r, ends)), None)
    return done and isinstance(latest, SessionEndedRecord)


def _turns(records: Iterable[Record]) -> list[Turn]:
    """What was said; of the student's last words also those that became no message yet."""
    turns: dict[str, Turn] = {}
    heard: list[TranscriptRecord] = []
    for record in records:
        if isinstance(record, TranscriptRecord):
            heard.append(record)
        elif isinstance(record, MessageRecord):
            if record.role == "user":
                heard.clear()
            turns[record.item_id] = Turn(
                item_id=record.item_id,
                role=record.role,
                text=record.text,
                created_at=record.created_at,
                interrupted=record.interrupted,
            )
    said = sorted(turns.values(), key=lambda turn: turn.created_at)
    unanswered = [
        Turn(item_id=f"heard_{number}", role="user", text=each.text, created_at=each.created_at)
        for number, each in enumerate(heard)
    ]
    return said + unanswered


def _lesson_of(records: Iterable[Record]) -> str | None:
    starts = (SessionStartedRecord, SessionResumedRecord)
    named = (r.lesson_id for r in records if isinstance(r, starts))
    return next((lesson_id for lesson_id in named if lesson_id is not None), None)


def _last(records: Sequence[Record], kind: type[_R]) -> _R | None:
    return next((record for record in reversed(records) if isinstance(record, kind)), None)
