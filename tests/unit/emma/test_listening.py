"""Turn-taking: beginners get more time, hesitations take no turn, and the page says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from livekit.agents import inference

from emma_agent.context import GUEST_PLAN, parse_context
from emma_agent.listening import (
    HELP_AFTER_S,
    Tuning,
    endpointing_for,
    is_hesitation,
    patience_for,
    pause_for,
    tuning_of,
    turn_handling,
)
from tests.support.wire import PREFERENCES, tutoring_context

LEVELS = ("A1", "A2", "B1", "B2", "C1", "C2")
PAGE = Path(__file__).parents[3] / "docs" / "turn-taking.md"


@pytest.mark.parametrize("level", LEVELS)
def test_the_page_has_the_numbers(level: str) -> None:
    row = re.search(rf"^\| {level} \| (\S+) s \| (\S+) s \| (\S+) s \|$", PAGE.read_text(), re.M)
    assert row is not None
    interruption = turn_handling(Tuning(level=level), "vad")["interruption"]
    assert tuple(map(float, row.groups())) == (
        pause_for(level),
        patience_for(level),
        interruption["min_duration"],
    )


def test_the_page_says_when_a_silent_student_is_helped() -> None:
    assert f"nothing for {HELP_AFTER_S:.0f} s after Emma's last word" in PAGE.read_text()


def test_the_page_has_the_example() -> None:
    assert "At A1 and a rate of 0.8 the pause is 1.5 s." in PAGE.read_text()
    assert pause_for("A1", speech_rate=0.8) == pytest.approx(1.5)


@pytest.mark.parametrize("seconds", [pause_for, patience_for])
def test_nobody_waits_longer_for_a_better_speaker(seconds) -> None:  # type: ignore[no-untyped-def]
    times = [seconds(level) for level in LEVELS]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]


@pytest.mark.parametrize("level", [None, "", "D7"])
def test_of_an_unknown_level_the_middle_holds(level: str | None) -> None:
    assert pause_for(level) == pause_for("B1")


@pytest.mark.parametrize(("rate", "like"), [(0.01, 0.7), (0.0, 0.7), (50.0, 1.2)])
def test_a_preference_out_of_range_is_no_endless_pause(rate: float, like: float) -> None:
    assert pause_for("A1", speech_rate=rate) == pause_for("A1", speech_rate=like)


def test_turns_are_detected_and_interruptions_heard_on_this_machine() -> None:
    handling = turn_handling(Tuning(level="A1"), "v1-mini")
    detector = handling["turn_detection"]
    assert isinstance(detector, inference.TurnDetector)
    assert detector.model == "turn-detector-v1-mini"
    assert handling["interruption"]["mode"] == "vad"
    assert turn_handling(Tuning(), "vad")["turn_detection"] == "vad"


def test_endpointing_is_the_levels_at_the_students_pace() -> None:
    assert endpointing_for(Tuning(level="A2", rate=0.8)) == {
        "mode": "fixed",
        "min_delay": pytest.approx(1.25),
        "max_delay": pytest.approx(6.25),
    }


def test_a_lesson_is_tuned_to_student_and_preferences() -> None:
    context = parse_context(tutoring_context())
    assert tuning_of(context, context.plan) == Tuning(
        level="A2", language="en-GB", one_language=True, rate=0.9
    )


def test_with_native_language_help_either_language_is_heard() -> None:
    helped = {**PREFERENCES, "nativeLanguageHelp": True}
    context = parse_context(tutoring_context(preferences=helped))
    tuning = tuning_of(context, context.plan)
    assert (tuning.language, tuning.one_language) == ("en-GB", False)


def test_of_a_guest_in_a_free_conversation_nothing_is_assumed() -> None:
    assert tuning_of(None, GUEST_PLAN) == Tuning()


def test_an_avatar_brings_its_voice_and_in_a_free_conversation_its_language() -> None:
    avatar = {"name": "Kim", "voice": "sage", "language": "fr-FR"}
    context = parse_context(tutoring_context(avatar=avatar))
    tuning = tuning_of(context, context.plan)
    assert (tuning.voice, tuning.language) == ("sage", "en-GB")
    free = parse_context(tutoring_context(avatar=avatar, lesson=None))
    assert tuning_of(free, free.plan).language == "fr-FR"


@pytest.mark.parametrize(
    ("text", "language", "hesitation"),
    [
        ("Um.", "en-GB", True),
        ("Uh… um… hmm.", "en", True),
        ("Ähm…", "de", True),
        ("えっと…", "ja", True),
        ("...", None, True),
        ("", "en", True),
        ("Um, I go home.", "en", False),
        ("Um.", "pt", False),  # one
        ("Er.", "de", False),  # he
        ("Er…", "en", True),
        ("Mhm.", "en", False),  # yes
        ("Wait!", "en", False),
        ("42", "en", False),
        ("はい", "ja", False),
    ],
)
def test_only_what_says_nothing_is_a_hesitation(
    text: str, language: str | None, hesitation: bool
) -> None:
    assert is_hesitation(text, language) is hesitation
