"""The models: what they are told, and that no audio goes to anybody else."""

from __future__ import annotations

import os
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import LanguageCode, inference, stt
from livekit.plugins import openai

from emma_agent.listening import Tuning
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
    models.tune(Tuning(language="en-GB", one_language=True, rate=0.9))
    assert [str(code) for code in told(models.stt).languages] == ["en"]
    assert told(models.tts).speed == 0.9


def test_otherwise_the_language_is_detected_also_when_that_changes() -> None:
    models = speech()
    models.tune(Tuning())
    assert told(models.stt).languages == []
    models.tune(Tuning(language="en-GB", one_language=True))
    models.tune(Tuning(language="en-GB"))
    assert told(models.stt).languages == []


@pytest.mark.parametrize(("rate", "told_rate"), [(0.0, 0.25), (9.0, 4.0)])
def test_a_rate_that_the_voice_refuses_is_brought_into_its_range(
    rate: float, told_rate: float
) -> None:
    models = speech()
    models.tune(Tuning(rate=rate))
    assert told(models.tts).speed == told_rate


@pytest.mark.parametrize(("heard", "taken"), [("Um…", []), ("Um, yes.", ["Um, yes."])])
async def test_a_hesitation_is_taken_for_silence(
    heard: str, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def recognize(*_: object, **__: object) -> stt.SpeechEvent:
        return stt.SpeechEvent(
            type=stt.SpeechEventType.FINAL_TRANSCRIPT,
            alternatives=[stt.SpeechData(language=LanguageCode("en"), text=heard)],
        )

    monkeypatch.setattr(openai.STT, "_recognize_impl", recognize)
    models = speech()
    models.tune(Tuning(language="en-GB"))
    silence = rtc.AudioFrame(bytes(4800), 24_000, 1, 2400)
    event = await models.stt.recognize(silence)
    assert [alternative.text for alternative in event.alternatives] == taken


def test_audio_that_comes_as_events_is_taken_as_samples() -> None:
    assert told(speech().tts).response_format == "pcm"


def test_every_model_is_asked_at_the_configured_address() -> None:
    models = speech()
    for model in (models.stt, models.llm, models.tts):
        assert str(model._client.base_url) == "http://127.0.0.1:9/v1/"


def test_no_audio_goes_to_livekits_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiveKit's defaults in development are its cloud's detectors."""
    monkeypatch.setenv("LIVEKIT_DEV_MODE", "1")
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "secret")
    for detection in ("v1-mini", "vad"):
        monkeypatch.setenv("EMMA_TURN_DETECTION", detection)
        handling = speech().turn_handling(Tuning())
        assert handling["interruption"]["mode"] == "vad"
        detector = handling["turn_detection"]
        if detection == "vad":
            assert detector == "vad"
        else:
            assert isinstance(detector, inference.TurnDetector)
            assert detector.model == "turn-detector-v1-mini"
