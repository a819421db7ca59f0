"""The tool that changes how the student is taught, for this lesson and at once.

What a student likes in general is school data, which the student alone changes
(`students:setPreferences`, with their own token); the tutor may not. Of a change for one lesson the
record of the tool's call is the trace.
"""

from __future__ import annotations

from typing import Final, Literal

from livekit.agents import RunContext, ToolError, function_tool

from emma_agent.context import CorrectionStyle
from emma_agent.lesson import LessonState
from emma_agent.tools.answers import as_json

__all__ = ["TOOLS", "set_preference"]

_STEP: Final = 0.15
# As the school's own limits, `SCHOOL.minSpeechRate` and `maxSpeechRate` in convex/limits.ts.
_SLOWEST: Final = 0.5
_FASTEST: Final = 2.0


@function_tool
async def set_preference(
    context: RunContext[LessonState],
    speed: Literal["slower", "normal", "faster"] | None = None,
    native_language_help: bool | None = None,
    correction_style: CorrectionStyle | None = None,
) -> str:
    """Change how you teach for the rest of this lesson, when the student asks for it.

    Args:
        speed: How fast you speak.
        native_language_help: Whether you may help in the student's own language.
        correction_style: gentle, every_error, or at_the_end.
    """
    lesson = context.userdata
    if speed is None and native_language_help is None and correction_style is None:
        raise ToolError("Say what to change: speed, native_language_help or correction_style.")
    rate = _rate(lesson.plan.preferences.speech_rate, speed) if speed else None
    now = lesson.set_preference(
        speech_rate=rate,
        native_language_help=native_language_help,
        correction_style=correction_style,
    )
    return as_json(
        speech_rate=now.speech_rate,
        native_language_help=now.native_language_help,
        correction_style=now.correction_style,
        holds="until this lesson ends; for good, the student changes it on their own page",
    )


TOOLS: Final = (set_preference,)


def _rate(rate: float, speed: Literal["slower", "normal", "faster"]) -> float:
    if speed == "normal":
        return 1.0
    changed = rate - _STEP if speed == "slower" else rate + _STEP
    return round(min(_FASTEST, max(_SLOWEST, changed)), 2)
