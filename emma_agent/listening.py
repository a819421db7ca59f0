"""How Emma listens: when a turn has ended, and what is no interruption. Pure.

Every number is in the table of docs/turn-taking.md, with its reasons. The detectors run in
this process: no audio goes to anybody for the question whether somebody has finished.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from livekit.agents import TurnHandlingOptions, inference
from livekit.agents.voice.turn import EndpointingOptions, InterruptionOptions

from emma_agent.context import Plan, TutoringContext
from emma_agent.settings import TurnDetection

__all__ = [
    "HELP_AFTER_S",
    "Tuning",
    "endpointing_for",
    "is_hesitation",
    "patience_for",
    "pause_for",
    "primary_subtag",
    "tuning_of",
    "turn_handling",
]

# By CEFR level, in seconds: pause, patience, least length of an interruption.
_TABLE: Final = {
    "A1": (1.2, 6.0, 1.0),
    "A2": (1.0, 5.0, 0.9),
    "B1": (0.8, 4.0, 0.8),
    "B2": (0.6, 3.5, 0.6),
    "C1": (0.5, 3.0, 0.5),
    "C2": (0.5, 3.0, 0.5),
}
# Of whom nothing is known: too long a pause is a slow tutor, too short a one takes the floor.
_UNKNOWN: Final = "B1"

# Preferences say how fast Emma speaks; who wants her slow gets as much more time, to a limit.
_SLOWEST: Final = 0.7
_FASTEST: Final = 1.2

HELP_AFTER_S: Final = 15.0
"""Seconds of silence after Emma's last word in which a student may think; then she helps."""

# Seconds after an interruption in which nothing was understood; then Emma goes on.
_RESUME_S: Final = 1.5

# Sounds between words, as transcripts write them. Those that are words elsewhere ("um" is one in
# Portuguese, "er" is he in German) count where they are none; "mhm", "eh" and "ah" say something.
_HESITATION: Final = re.compile(
    r"u+h+m*|h+m+|e+hm+|e+u+h+|[äö]+h*m+|[äö]+h+|え[えっーと]*と|あの[うー]+"
)
_ENGLISH_HESITATION: Final = re.compile(r"u+m+|e+r+m*")


@dataclass(frozen=True, slots=True)
class Tuning:
    """How Emma listens and sounds in one lesson."""

    level: str | None = None
    """CEFR; None where nothing is known of the student."""
    language: str | None = None
    """BCP 47, of the lesson, in a free conversation of the avatar; None where neither has one."""
    one_language: bool = False
    """Whether all that is heard is in it; else it is detected, utterance by utterance."""
    rate: float = 1.0
    """Speaking rate, 1 is the voice's own."""
    voice: str | None = None
    """The avatar's, as the speech model names it; None is the configured one."""


def tuning_of(context: TutoringContext | None, plan: Plan) -> Tuning:
    """Fit listening and voice to who is taught what.

    Args:
        context: what is known of the student; None for a guest.
        plan: preferences and lesson as they are now.
    """
    lesson, avatar, preferences = plan.lesson, plan.avatar, plan.preferences
    level = context.student.level if context else lesson.level if lesson else None
    language = lesson.language if lesson else avatar.language if avatar else None
    return Tuning(
        level=level,
        language=language,
        # A student who may fall back on their own language is heard in either.
        one_language=language is not None and not preferences.native_language_help,
        rate=preferences.speech_rate,
        voice=avatar.voice if avatar else None,
    )


def pause_for(level: str | None, *, speech_rate: float = 1.0) -> float:
    """Seconds of silence that end a turn, longer for beginners.

    Source: the table in docs/turn-taking.md.

    Args:
        level: CEFR; of an unknown one, as of none, B1's holds.
        speech_rate: the student's preference, 1 is normal.
    """
    return _row(level)[0] / _pace(speech_rate)


def patience_for(level: str | None, *, speech_rate: float = 1.0) -> float:
    """Seconds of silence that end a turn which the detector takes for unfinished.

    Args:
        level: as in `pause_for`.
        speech_rate: as in `pause_for`.
    """
    return _row(level)[1] / _pace(speech_rate)


def endpointing_for(tuning: Tuning) -> EndpointingOptions:
    """LiveKit's options for the end of a turn."""
    return {
        "mode": "fixed",
        "min_delay": pause_for(tuning.level, speech_rate=tuning.rate),
        "max_delay": patience_for(tuning.level, speech_rate=tuning.rate),
    }


def interruption_for(tuning: Tuning) -> InterruptionOptions:
    """LiveKit's options for a student who speaks while Emma does.

    By length and not by words: a transcript comes only when the student pauses, and Emma would
    talk over them until then. A sound in which nothing is understood gives her the floor back.
    """
    return {
        "mode": "vad",
        "min_duration": _row(tuning.level)[2],
        "min_words": 0,
        "resume_false_interruption": True,
        "false_interruption_timeout": _RESUME_S,
    }


def turn_handling(tuning: Tuning, detection: TurnDetection) -> TurnHandlingOptions:
    """LiveKit's options for a whole lesson.

    Args:
        tuning: of this lesson.
        detection: `vad`, silence alone, or the bundled turn detector.
    """
    return {
        "turn_detection": (
            "vad" if detection == "vad" else inference.TurnDetector(version=detection)
        ),
        "endpointing": endpointing_for(tuning),
        "interruption": interruption_for(tuning),
    }


def is_hesitation(text: str, language: str | None) -> bool:
    """Whether a transcript holds nothing but sounds between words, or nothing at all.

    Args:
        text: of one utterance.
        language: BCP 47 of the lesson.
    """
    sounds = [_HESITATION]
    if primary_subtag(language) == "en":
        sounds.append(_ENGLISH_HESITATION)
    words = re.findall(r"[^\W_]+", text.lower())
    return all(any(sound.fullmatch(word) for sound in sounds) for word in words)


def primary_subtag(language: str | None) -> str | None:
    """The language alone, as ISO 639 has it: `en` of `en-GB`."""
    return language.split("-")[0].lower() if language else None


def _row(level: str | None) -> tuple[float, float, float]:
    return _TABLE.get((level or _UNKNOWN).upper(), _TABLE[_UNKNOWN])


def _pace(speech_rate: float) -> float:
    return min(_FASTEST, max(_SLOWEST, speech_rate))
