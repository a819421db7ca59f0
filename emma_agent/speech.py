"""Which speech-to-text, language model and voice Emma uses, and how she takes turns.

No audio goes anywhere but to the configured model. LiveKit's defaults would send it to
LiveKit Cloud (`dev` and `console` choose the cloud turn detector and adaptive
interruption), so both are pinned to what runs inside this process.
"""

from __future__ import annotations

from dataclasses import dataclass

from livekit.agents import NOT_GIVEN, TurnHandlingOptions, inference
from livekit.plugins import openai

from emma_agent.settings import Settings

__all__ = ["Speech", "build_speech", "turn_handling"]


@dataclass(frozen=True, slots=True)
class Speech:
    """The three models of one lesson."""

    stt: openai.STT
    llm: openai.LLM
    tts: openai.TTS


def build_speech(settings: Settings, *, language: str | None, rate: float) -> Speech:
    """The models for one lesson.

    Args:
        language: the lesson's, as BCP 47; None lets the model detect it.
        rate: speaking rate, 1 is normal. OpenAI takes 0.25 to 4.
    """
    # A compatible server on one's own machine seldom asks for a key; the client
    # refuses to start without one.
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else "unused"
    base_url = settings.openai_base_url or NOT_GIVEN
    return Speech(
        stt=openai.STT(
            model=settings.stt_model,
            # OpenAI takes ISO 639-1: the primary subtag.
            language=language.split("-")[0].lower() if language else "en",
            detect_language=language is None,
            api_key=key,
            base_url=base_url,
        ),
        llm=openai.LLM(model=settings.llm_model, api_key=key, base_url=base_url),
        tts=openai.TTS(
            model=settings.tts_model,
            voice=settings.tts_voice,
            speed=min(4.0, max(0.25, rate)),
            # Audio that comes as events is decoded as this format whatever the server
            # sends; "mp3", the default, fails on servers that send samples.
            response_format="pcm",
            api_key=key,
            base_url=base_url,
        ),
    )


def turn_handling(settings: Settings) -> TurnHandlingOptions:
    """How the end of a turn and an interruption are noticed: both on this machine."""
    return {
        "turn_detection": (
            "vad"
            if settings.turn_detection == "vad"
            else inference.TurnDetector(version=settings.turn_detection)
        ),
        "interruption": {"mode": "vad"},
    }
