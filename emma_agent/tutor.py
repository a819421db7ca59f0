"""Tutor: Emma as a LiveKit agent, and the instructions she works by.

`build_instructions` is a pure function of what is known, the fixed part first, so that
a provider's prompt cache holds from lesson to lesson.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import resources
from typing import assert_never

from livekit.agents import Agent

from emma_agent.context import Plan, Preferences, TutoringContext
from emma_agent.lesson import LessonState, report_failure
from emma_agent.speech import until_written
from emma_agent.tools import profile

__all__ = ["Tutor", "build_instructions", "greeting"]


@cache
def _prompt(name: str) -> str:
    return resources.files("emma_agent.prompts").joinpath(f"{name}.txt").read_text("utf-8").strip()


def build_instructions(context: TutoringContext | None, plan: Plan) -> str:
    """What Emma is told: who she is, what is taught, whom she teaches.

    Args:
        context: what is known of the student; None for a guest.
        plan: preferences and lesson as they are now; newer than those in `context`.
    """
    lesson = plan.lesson
    parts = [_prompt("emma"), _prompt(lesson.kind if lesson else "conversation")]
    if lesson is not None:
        parts.append(
            _block(
                "The lesson",
                title=lesson.title,
                level=lesson.level,
                language=lesson.language,
                objectives="; ".join(lesson.objectives),
                target_words=", ".join(lesson.target_words),
            )
        )
    if context is None:
        parts.append(_prompt("guest"))
    else:
        student, last = context.student, context.last_session
        parts.append(
            _block(
                "The student",
                name=student.name,
                level=student.level,
                native_language=student.native_language,
                learns=student.target_language,
                goals="; ".join(student.goals),
                interests="; ".join(student.interests),
                last_lesson=(last.lesson_title or "free conversation") if last else "none yet",
            )
        )
    parts.append(_how_to_correct(plan.preferences))
    return "\n\n".join(parts)


def greeting() -> str:
    """What Emma is told when a lesson begins."""
    return _prompt("greet")


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


def _block(title: str, /, **lines: str) -> str:
    known = [f"- {name.replace('_', ' ')}: {text}" for name, text in lines.items() if text]
    return "\n".join([f"{title}:", *known])


class Tutor(Agent):
    """Emma. She greets when she enters, and follows what changes while the lesson runs."""

    def __init__(self, lesson: LessonState) -> None:
        super().__init__(
            instructions=build_instructions(lesson.context, lesson.plan), tools=[*profile.TOOLS]
        )
        self._lesson = lesson
        self._seen = lesson.version
        self._following: asyncio.Task[None] | None = None

    async def on_enter(self) -> None:
        """Greet the student."""
        self._following = asyncio.create_task(self._follow_lesson(), name="tutor.follow_lesson")
        self._following.add_done_callback(report_failure)
        self.session.generate_reply(instructions=greeting())

    async def on_exit(self) -> None:
        """Stop following the lesson."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self.session.current_agent is self:
            # The end, and no hand-over: what comes later is lost.
            await until_written(self.session)

    async def _follow_lesson(self) -> None:
        """Tell the model what has become known, from its next answer on."""
        while True:
            self._seen = await self._lesson.changed_since(self._seen)
            await self.update_instructions(
                build_instructions(self._lesson.context, self._lesson.plan)
            )
