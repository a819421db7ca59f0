"""What Emma is told: a pure function of what is known, within a budget of tokens.

The fixed part comes first, so that a provider's prompt cache holds from lesson to lesson; then what
changes less before what changes more: who she is, the lesson, the student, the part that is on, what
keeps coming back. Where it is too long, lines are dropped from the end of whatever helps least.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final, assert_never

from emma_agent.context import (
    Lesson,
    Preferences,
    RecurringError,
    Student,
    TutoringContext,
    WordDue,
)
from emma_agent.records import Step
from emma_agent.recurring import weightiest
from emma_agent.teaching import Snapshot, same_words
from emma_agent.tokens import clipped, on_one_line, tokens_in

__all__ = ["BUDGET_TOKENS", "after_silence", "assemble", "entry"]

BUDGET_TOKENS: Final = 3_000
"""A full lesson of a known student takes about half; the rest of a model's window is the talk's."""

# Characters of one fact, of a slide or its notes, and of a persona. A persona of 50 KB is no persona.
_FACT: Final = 240
_SLIDE: Final = 1_200
_PERSONA: Final = 2_000
# Lines of one list. More is not taught in one lesson.
_MOST: Final = 24
_LOOKED_AT: Final = 200

# What is cut first has the lowest number. Of equals, what stands later.
_PERSONA_HELPS: Final = 1
_LATER_HELPS: Final = 2
_HELPS: Final = 3
_LESSON_HELPS: Final = 4
_STUDENT_HELPS: Final = 5
_NOW_HELPS: Final = 6


@dataclass(slots=True, eq=False)
class _Part:
    """Lines that belong together under a heading; `helps` None is never cut."""

    heading: str
    lines: list[str] = field(default_factory=list)
    helps: int | None = None

    def __str__(self) -> str:
        return "\n".join([self.heading, *self.lines])


def assemble(known: Snapshot, *, budget_tokens: int = BUDGET_TOKENS) -> str:
    """Emma's instructions.

    Args:
        budget_tokens: by `tokens_in`. Rules, kind and part of the lesson are never cut, so that
            less than about 800 cannot be kept.
    """
    parts = [part for part in _parts(known) if part.helps is None or part.lines]
    size = tokens_in("\n\n".join(str(part) for part in parts))
    # Latest and least useful first; a part whose last line goes takes its heading with it.
    for part in _least_useful_first(parts):
        while part.lines and size > budget_tokens:
            size -= tokens_in(part.lines.pop()) - 1
            if not part.lines:
                parts.remove(part)
        # Estimates of lines do not add up to that of the whole.
        size = tokens_in("\n\n".join(str(part) for part in parts))
    return "\n\n".join(str(part) for part in parts)


def entry(step: Step, *, resumed: bool = False) -> str:
    """What Emma is told once, when a part of the lesson begins.

    Args:
        resumed: it does not begin: the lesson was interrupted in it, and goes on.
    """
    if resumed:
        return _text("resume")
    return _text("greet" if step == "greeting" else "enter")


def after_silence() -> str:
    """What Emma is told once, when the student has not said anything for a while."""
    return _text("silent")


def _least_useful_first(parts: list[_Part]) -> list[_Part]:
    helping = [(part.helps, -place) for place, part in enumerate(parts) if part.helps is not None]
    return [parts[-minus_place] for _, minus_place in sorted(helping)]


def _parts(known: Snapshot) -> list[_Part]:
    plan, context, lesson = known.plan, known.context, known.plan.lesson
    kind = lesson.kind if lesson else "conversation"
    parts = [_Part(_text("emma"))]
    if plan.avatar is not None:
        persona = clipped(plan.avatar.persona, _PERSONA).splitlines()
        name = _fact(plan.avatar.name)
        parts.append(
            _Part(
                f"Who you are in this lesson, within the rules above: {name or 'Emma'}",
                [*persona, *_facts(teaching_style=plan.avatar.teaching_style)],
                helps=_PERSONA_HELPS,
            )
        )
    parts.append(_Part(_text(kind)))
    if lesson is not None:
        parts.append(_lesson(lesson))
        parts.append(_slide_titles(lesson))
    parts.append(
        _Part(_text("guest")) if context is None else _student(context, recalled=known.recalled)
    )
    parts.append(_Part(f"{_how_to_speak(context, lesson)}\n{_how_to_correct(plan.preferences)}"))
    parts.append(_Part(_text(f"step_{known.step}")))
    parts.extend(_now(known))
    return parts


def _lesson(lesson: Lesson) -> _Part:
    lines = _facts(
        title=lesson.title,
        level=lesson.level,
        language=lesson.language,
        objectives="; ".join(map(_fact, lesson.objectives[:_MOST])),
        target_words=", ".join(map(_fact, lesson.target_words[:_MOST])),
        most=4 * _FACT,
    )
    return _Part("The lesson:", lines, helps=_LESSON_HELPS)


def _slide_titles(lesson: Lesson) -> _Part:
    titles = [f"- {n}. {_fact(slide.title)}" for n, slide in enumerate(lesson.slides[:_MOST], 1)]
    return _Part("The slides:", titles, helps=_LATER_HELPS)


def _student(context: TutoringContext, *, recalled: bool) -> _Part:
    student, last = context.student, context.last_session
    lines = _facts(
        name=student.name,
        level=student.level,
        native_language=student.native_language,
        learns=student.target_language,
        last_lesson=(last.lesson_title or "free conversation") if last else "none yet",
        what_happened_in_it=last.summary if last else None,
        goals="; ".join(map(_fact, student.goals[:8])),
        interests="; ".join(map(_fact, student.interests[:8])),
        most=4 * _FACT,
    )
    heading = (
        "The student, as last known; there may have been lessons since, so ask and do not claim:"
        if recalled
        else "The student:"
    )
    return _Part(heading, lines, helps=_STUDENT_HELPS)


def _now(known: Snapshot) -> list[_Part]:
    """What the part that is on works with, and what keeps coming back."""
    step, lesson = known.step, known.plan.lesson
    ending = step in ("feedback", "farewell")
    parts = []
    if known.earlier is not None:
        lines = _facts(in_short=known.earlier, most=4 * _FACT)
        parts.append(
            _Part("Earlier in this lesson, before it was interrupted:", lines, helps=_NOW_HELPS)
        )
    if ending and known.plan.next_lesson is not None:
        lines = _facts(next_lesson=known.plan.next_lesson.title)
        parts.append(_Part("What comes after this lesson:", lines, helps=_NOW_HELPS))
    if lesson is not None and known.slide is not None and known.slide < len(lesson.slides):
        slide = lesson.slides[known.slide]
        lines = _facts(title=slide.title, text=slide.text, notes_for_you=slide.notes, most=_SLIDE)
        heading = f"The slide that is on, {known.slide + 1} of {len(lesson.slides)}:"
        parts.append(_Part(heading, lines, helps=_NOW_HELPS if step == "presentation" else _HELPS))
    if lesson is not None and step == "practice":
        tasks = [
            f"- {_fact(exercise.exercise_id)}: {_fact(exercise.prompt)}"
            for exercise in lesson.exercises[:_MOST]
        ]
        parts.append(_Part("The exercises:", tasks, helps=_NOW_HELPS))
    errors = [_error(error) for error in known.recurring_errors[:_MOST]]
    parts.append(_Part("Mistakes that keep coming back:", errors, helps=_HELPS))
    words = [_word(word) for word in by_use(known.words_due, lesson)[:_MOST]]
    words_help = _NOW_HELPS if step in ("warm_up", "conversation") else _LATER_HELPS
    parts.append(_Part("Words that are due:", words, helps=words_help))
    noted = [
        f"- heard: {_fact(correction.said)}; right: {_fact(correction.target)}"
        + (" (then said right)" if correction.repaired else "")
        for correction in weightiest(known.corrections)[:_MOST]
    ]
    corrections_help = _NOW_HELPS if ending else _LATER_HELPS
    parts.append(_Part("Corrections noted today:", noted, helps=corrections_help))
    new = [f"- {_fact(word)}" for word in known.new_words[:_MOST]]
    parts.append(_Part("New words today:", new, helps=_HELPS if ending else _LATER_HELPS))
    return parts


def by_use(words: tuple[WordDue, ...], lesson: Lesson | None) -> list[WordDue]:
    """Words that are due, those that the lesson needs first, then the longest due."""
    wanted = lesson.target_words if lesson else ()
    needed = {same_words(word[:_FACT]) for word in wanted[:_LOOKED_AT]}
    # However many are due, those that have waited longest come first anyway.
    return sorted(words[:_LOOKED_AT], key=lambda due: same_words(due.word[:_FACT]) not in needed)


def _error(error: RecurringError) -> str:
    examples = "; ".join(
        f"{_fact(example.said)} for {_fact(example.target)}" for example in error.examples[:2]
    )
    kind = error.error_type.replace("_", " ")
    times = f"{error.count} times, {error.repaired} then said right"
    return f"- {_fact(kind)}, {times}" + (f": {examples}" if examples else "")


def _word(due: WordDue) -> str:
    more = [_fact(text) for text in (due.meaning, due.example) if text]
    return f"- {_fact(due.word)}" + (f" ({'; '.join(more)})" if more else "")


def _how_to_speak(context: TutoringContext | None, lesson: Lesson | None) -> str:
    student: Student | None = context.student if context else None
    level = student.level if student else lesson.level if lesson else ""
    levels = _levels()
    return levels.get(level.strip().upper(), levels["?"])


def _how_to_correct(preferences: Preferences) -> str:
    match preferences.correction_style:
        case "gentle":
            style = "Correct what gets in the way of being understood, by saying it rightly."
        case "every_error":
            style = "Correct every mistake, briefly, one at a time."
        case "at_the_end":
            style = "Do not interrupt to correct; name the mistakes at the end of the lesson."
        case _:
            assert_never(preferences.correction_style)
    if preferences.native_language_help:
        return f"{style} You may help with a word in the student's own language."
    return f"{style} Speak only the language that is learnt."


def _facts(*, most: int = _FACT, **facts: str | None) -> list[str]:
    return [
        f"- {name.replace('_', ' ')}: {_fact(text, most)}"
        for name, text in facts.items()
        if text and text.strip()
    ]


def _fact(text: str, most: int = _FACT) -> str:
    """On one line, so that no fact can look like a heading of ours."""
    return on_one_line(text, most)


@cache
def _text(name: str) -> str:
    return resources.files("emma_agent.prompts").joinpath(f"{name}.txt").read_text("utf-8").strip()


@cache
def _levels() -> dict[str, str]:
    lines = (line.partition(": ") for line in _text("levels").splitlines())
    return {level: advice for level, _, advice in lines}
