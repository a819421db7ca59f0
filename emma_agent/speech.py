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

__all__ = ["Speech", "build_speech"]


@dataclass(frozen=True, slots=True)
class Speech:
    """What one lesson hears, thinks and speaks with."""

    stt: openai.STT
    llm: openai.LLM
    tts: openai.TTS
    turn_handling: TurnHandlingOptions

    def tune(self, *, language: str | None, rate: float) -> None:
        """Fit the models to a lesson.

        Args:
            language: the lesson's, as BCP 47; None lets the model detect what is spoken.
            rate: speaking rate, 1 is normal; OpenAI takes 0.25 to 4.
        """
        if language is not None:
            # OpenAI takes ISO 639-1: the primary subtag.
            code = language.split("-")[0].lower()
            self.stt.update_options(language=code, detect_language=False)
        self.tts.update_options(speed=min(4.0, max(0.25, rate)))


def build_speech(settings: Settings) -> Speech:
    """The models, not tuned to a lesson yet.

    Takes some hundred milliseconds (each model loads its own TLS certificates): a job
    process does it before it has a job.
    """
    # A compatible server on one's own machine seldom asks for a key; the client
    # refuses to start without one.
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else "unused"
    base_url = settings.openai_base_url or NOT_GIVEN
    return Speech(
        stt=openai.STT(
            model=settings.stt_model, detect_language=True, api_key=key, base_url=base_url
        ),
        llm=openai.LLM(model=settings.llm_model, api_key=key, base_url=base_url),
        tts=openai.TTS(
            model=settings.tts_model,
            voice=settings.tts_voice,
            # Audio that comes as events is decoded as this format whatever the server
            # sends; "mp3", the default, fails on servers that send samples.
            response_format="pcm",
            api_key=key,
            base_url=base_url,
        ),
        turn_handling={
            "turn_detection": (
                "vad"
                if settings.turn_detection == "vad"
                else inference.TurnDetector(version=settings.turn_detection)
            ),
            "interruption": {"mode": "vad"},
        },
    )
