"""What stands in Emma's instructions, read back: all that the scripted model knows of a lesson.

A language model reads them as text; a script needs them in fields. The headings are those of
`emma_agent/prompt.py`; what is not there is None or empty. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Board", "Noted", "Slide", "Task", "WordDue", "read_board"]

_STEP: Final = re.compile(r"^The part that is on: (?:the )?([a-z-]+)\.", re.MULTILINE)
_SLIDE: Final = re.compile(r"^The slide that is on, (\d+) of (\d+):")
_WORD: Final = re.compile(r"^(?P<word>[^(]+?)(?: \((?P<more>.*)\))?$")
_NOTED: Final = re.compile(r"^heard: (.*); right: (.*?)( \(then said right\))?$")
_SENTENCE: Final = re.compile(r"[^.!?…]+[.!?…]+|[^.!?…]+$")


@dataclass(frozen=True, slots=True)
class Slide:
    """The slide that is on; counted from 1."""

    number: int
    of: int
    title: str
    sentences: Sequence[str]


@dataclass(frozen=True, slots=True)
class Task:
    """An exercise."""

    exercise_id: str
    prompt: str


@dataclass(frozen=True, slots=True)
class WordDue:
    """A word that is due; `more` is its meaning, its example, or both."""

    word: str
    more: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Noted:
    """A correction of today."""

    heard: str
    right: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class Board:
    """The facts of the lesson, as Emma is told them."""

    step: str | None = None
    """As in the instructions: `warm-up`."""
    student: str | None = None
    last_lesson: str | None = None
    last_summary: str | None = None
    next_lesson: str | None = None
    target_words: Sequence[str] = ()
    slide: Slide | None = None
    exercises: Sequence[Task] = ()
    words_due: Sequence[WordDue] = ()
    corrections: Sequence[Noted] = ()
    new_words: Sequence[str] = ()


def read_board(instructions: str) -> Board:
    """The facts in Emma's instructions; whatever text it is, never raises."""
    parts = dict(_part(text) for text in instructions.split("\n\n"))
    student, lesson = (_facts(parts.get(name, ())) for name in ("The student:", "The lesson:"))
    step = _STEP.search(instructions)
    last = student.get("last lesson")
    return Board(
        step=step[1] if step else None,
        student=student.get("name"),
        last_lesson=None if last in (None, "none yet") else last,
        last_summary=student.get("what happened in it"),
        next_lesson=_facts(parts.get("What comes after this lesson:", ())).get("next lesson"),
        target_words=[word for word in lesson.get("target words", "").split(", ") if word],
        slide=_slide(parts),
        exercises=[
            Task(name, prompt)
            for line in parts.get("The exercises:", ())
            for name, _, prompt in [line.partition(": ")]
        ],
        words_due=[_word(line) for line in parts.get("Words that are due:", ())],
        corrections=[
            Noted(found[1], found[2], repaired=found[3] is not None)
            for line in parts.get("Corrections noted today:", ())
            if (found := _NOTED.match(line))
        ],
        new_words=parts.get("New words today:", ()),
    )


def sentences_of(text: str) -> list[str]:
    """The sentences of a slide."""
    return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]


def _part(text: str) -> tuple[str, Sequence[str]]:
    heading, *lines = text.splitlines() or [""]
    return heading, [line.removeprefix("- ") for line in lines if line.startswith("- ")]


def _facts(lines: Sequence[str]) -> dict[str, str]:
    facts = (line.partition(": ") for line in lines)
    return {name: fact for name, _, fact in facts if fact}


def _slide(parts: dict[str, Sequence[str]]) -> Slide | None:
    for heading, lines in parts.items():
        if found := _SLIDE.match(heading):
            facts = _facts(lines)
            number, of = int(found[1]), int(found[2])
            return Slide(number, of, facts.get("title", ""), sentences_of(facts.get("text", "")))
    return None


def _word(line: str) -> WordDue:
    found = _WORD.match(line)
    if found is None:
        return WordDue(line)
    return WordDue(found["word"], (found["more"] or "").split("; ") if found["more"] else ())
