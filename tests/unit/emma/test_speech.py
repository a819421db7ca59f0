"""The models: what they are told, and that no audio goes to anybody else."""

from __future__ import annotations

import os
from typing import Any

import pytest
from livekit.agents import inference

from emma_agent.settings import Settings
from emma_agent.speech import Speech, build_speech


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("LIVEKIT_", "OPENAI_", "EMMA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")


def speech() -> Speech:
    return build_speech(Settings.load())


def told(model: Any) -> Any:
    """What LiveKit's plugin will send; it has no public view of it."""
    return model._opts


def test_a_lesson_in_one_language_is_heard_in_it() -> None:
    models = speech()
    models.tune(language="en-GB", rate=0.9)
    assert [str(code) for code in told(models.stt).languages] == ["en"]
    assert told(models.tts).speed == 0.9


def test_without_a_lesson_the_language_is_detected() -> None:
    models = speech()
    models.tune(language=None, rate=1.0)
    assert told(models.stt).languages == []


@pytest.mark.parametrize(("rate", "told_rate"), [(0.0, 0.25), (9.0, 4.0)])
def test_a_rate_that_the_voice_refuses_is_brought_into_its_range(
    rate: float, told_rate: float
) -> None:
    models = speech()
    models.tune(language=None, rate=rate)
    assert told(models.tts).speed == told_rate


def test_audio_that_comes_as_events_is_taken_as_samples() -> None:
    assert told(speech().tts).response_format == "pcm"


def test_every_model_is_asked_at_the_configured_address() -> None:
    models = speech()
    for model in (models.stt, models.llm, models.tts):
        assert str(model._client.base_url) == "http://127.0.0.1:9/v1/"


def test_turns_are_detected_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiveKit's default in development is its cloud's detector."""
    monkeypatch.setenv("LIVEKIT_DEV_MODE", "1")
    handling = speech().turn_handling
    assert handling["interruption"] == {"mode": "vad"}
    detector = handling["turn_detection"]
    assert isinstance(detector, inference.TurnDetector)
    assert detector.model == "turn-detector-v1-mini"
    monkeypatch.setenv("EMMA_TURN_DETECTION", "vad")
    assert speech().turn_handling["turn_detection"] == "vad"
