"""Summaries: what remains of a lesson in words, one text for the student, one for the teacher. Pure.

Here they are composed of what the lesson noted; `summary_writer.py` lets a model write them where
there is one. The teacher's text is what Emma is told of the lesson before (`prompt.py`). Nothing
else follows from either: what was learnt, the records say.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from livekit.agents import llm

from emma_agent.records import ExerciseRecord, Rating, WordReviewedRecord
from emma_agent.recurring import weightiest
from emma_agent.summary_phrases import PHRASES, Phrases
from emma_agent.teaching import Snapshot, Teaching
from emma_agent.tokens import on_one_line

__all__ = [
    "MAX_SUMMARY_BYTES",
    "RATINGS",
    "Held",
    "Said",
    "Summary",
    "bounded",
    "composed",
    "fact",
    "held",
]

MAX_SUMMARY_BYTES: Final = 2_048
"""Of one text, as UTF-8; `SCHOOL.maxSummaryBytes`."""

RATINGS: Final[dict[Rating, str]] = {1: "again", 2: "hard", 3: "good", 4: "easy"}

# Of what was noted, what one can take in.
_SHOWN: Final = 8
_FACT: Final = 80
_EARLIER: Final = 400
# A pause longer than this was none of the lesson.
_LONGEST_PAUSE_S: Final = 180.0
_ENDS: Final = (". ", "! ", "? ", "\u3002", "\uff01", "\uff1f")


@dataclass(frozen=True, slots=True)
class Summary:
    """Both texts, each one line of at most `MAX_SUMMARY_BYTES`; `source` as in the record."""

    for_student: str
    for_teacher: str
    source: Literal["model", "records"]


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of the talk; `at` in Unix seconds."""

    role: Literal["user", "assistant"]
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Held:
    """A lesson that was held, as it lies in memory at its end.

    Attributes:
        finished: its objectives were reached.
        talk: what was said, in order.
    """

    known: Snapshot
    finished: bool = False
    reviews: tuple[WordReviewedRecord, ...] = ()
    answers: tuple[ExerciseRecord, ...] = ()
    talk: tuple[Said, ...] = ()

    @property
    def minutes(self) -> int:
        """How long the talk was, at least; at most three minutes of one pause."""
        times = [said.at for said in self.talk]
        spoken_s = sum(
            min(_LONGEST_PAUSE_S, max(0.0, later - earlier))
            for earlier, later in itertools.pairwise(times)
        )
        return math.ceil(spoken_s / 60)


def held(
    lesson: Teaching, history: llm.ChatContext, *, earlier: Iterable[Said] = ()
) -> Held | None:
    """The lesson as it was held; None if the student said nothing.

    Args:
        earlier: what was said in earlier runs of this session, as far as it is known.
    """
    talk = [*earlier]
    for message in history.messages():
        text = message.text_content
        if text and message.role in ("user", "assistant"):
            role: Literal["user", "assistant"] = "user" if message.role == "user" else "assistant"
            talk.append(Said(role, text, message.created_at))
    if not any(said.role == "user" for said in talk):
        return None
    return Held(
        known=lesson.snapshot(),
        finished=lesson.finished,
        reviews=lesson.reviews,
        answers=lesson.answers,
        talk=tuple(talk),
    )


def composed(written_of: Held) -> Summary:
    """Both texts, of what the lesson noted. Pure."""
    return Summary(
        for_student=bounded(_for_student(written_of)),
        for_teacher=bounded(_for_teacher(written_of)),
        source="records",
    )


def _for_student(written_of: Held) -> str:
    known, lesson = written_of.known, written_of.known.plan.lesson
    phrases = _phrases(written_of)
    open_ones = [each for each in weightiest(known.corrections) if not each.repaired]
    repaired = [each.target for each in known.corrections if each.repaired]
    right = sum(each.score == 1.0 for each in written_of.answers)
    told = [phrases.lesson.format(title=fact(lesson.title)) if lesson else phrases.talk]
    if written_of.minutes:
        told.append(phrases.minutes.format(minutes=written_of.minutes))
    if known.new_words:
        told.append(phrases.new_words.format(words=_joined(phrases, known.new_words)))
    if written_of.reviews:
        words = _joined(phrases, [each.word for each in written_of.reviews])
        told.append(phrases.reviewed.format(words=words))
    if repaired:
        told.append(phrases.repaired.format(words=_joined(phrases, repaired)))
    if open_ones:
        named = [
            phrases.correction.format(said=fact(each.said), target=fact(each.target))
            for each in open_ones[:_SHOWN]
        ]
        told.append(phrases.remember.format(corrections=phrases.comma.join(named)))
    if written_of.answers:
        told.append(phrases.exercises.format(right=right, all=len(written_of.answers)))
    told.append(phrases.finished if written_of.finished else phrases.unfinished)
    return phrases.joint.join(told)


def _for_teacher(written_of: Held) -> str:
    known, lesson = written_of.known, written_of.known.plan.lesson
    part = known.step.replace("_", "-")
    told = [f"Lesson “{fact(lesson.title)}” ({lesson.level})." if lesson else "Free conversation."]
    came_to = f"Came to the {part}"
    if lesson and known.slide is not None:
        came_to += f", slide {known.slide + 1} of {len(lesson.slides)}"
    told.append(f"{came_to}; aims {'reached' if written_of.finished else 'not reached yet'}.")
    if written_of.minutes:
        told.append(f"Minutes of talk: {written_of.minutes}.")
    if known.corrections:
        noted = "; ".join(
            f"“{fact(each.said)}” for “{fact(each.target)}” ({each.error_type.replace('_', ' ')}"
            f"{', then said right' if each.repaired else ''})"
            for each in weightiest(known.corrections)[:_SHOWN]
        )
        told.append(f"Mistakes noted: {len(known.corrections)}: {noted}.")
    if known.new_words:
        told.append(f"New words: {_joined(PHRASES['en'], known.new_words)}.")
    if written_of.reviews:
        reviewed = [f"{fact(each.word)} ({RATINGS[each.rating]})" for each in written_of.reviews]
        told.append(f"Words brought back: {', '.join(reviewed[:_SHOWN])}.")
    if written_of.answers:
        right = sum(each.score == 1.0 for each in written_of.answers)
        told.append(f"Exercises: {right} of {len(written_of.answers)} right.")
    if not known.corrections:
        told.append("No mistakes were noted.")
    if known.earlier:
        told.append(f"It was interrupted; before that: {fact(known.earlier, _EARLIER)}")
    if not written_of.finished and known.step != "farewell":
        told.append(f"Next: go on with the {part}.")
    elif known.plan.next_lesson is not None:
        told.append(f"Next: “{fact(known.plan.next_lesson.title)}”.")
    return " ".join(told)


def _phrases(written_of: Held) -> Phrases:
    context = written_of.known.context
    native = context.student.native_language if context else ""
    return PHRASES.get(native.strip().lower().partition("-")[0], PHRASES["en"])


def _joined(phrases: Phrases, words: Iterable[str]) -> str:
    words = [fact(word) for word in words]
    more = "…" if len(words) > 2 * _SHOWN else ""
    return phrases.comma.join(words[: 2 * _SHOWN]) + more


def fact(text: str, most: int = _FACT) -> str:
    """Something noted, on one line of at most `most` characters."""
    return on_one_line(text, most)


def _one_line(text: str) -> str:
    """Without controls, what turns the direction of writing, and halves of characters."""
    kept = (
        " " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char
        for char in text
        if unicodedata.category(char) not in ("Cf", "Cs", "Co", "Cn") or char in "\u200c\u200d"
    )
    return " ".join("".join(kept).split())


def bounded(text: str) -> str:
    """One line of at most `MAX_SUMMARY_BYTES`, cut after a sentence if there is one to cut after."""
    text = _one_line(text)
    encoded = text.encode()
    if len(encoded) <= MAX_SUMMARY_BYTES:
        return text
    cut = encoded[: MAX_SUMMARY_BYTES - len("…".encode())].decode(errors="ignore")
    end = max(cut.rfind(mark) for mark in _ENDS)
    return cut[: end + 1] if end > len(cut) // 2 else f"{cut.rstrip()}…"
