"""Which speech-to-text, language model and voice Emma uses.

No audio goes anywhere but to the configured model. LiveKit's defaults would send it to
LiveKit Cloud (`dev` and `console` choose the cloud turn detector and adaptive
interruption), so both are pinned to what runs inside this process (`listening.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from livekit.agents import (
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    TurnHandlingOptions,
    stt,
    utils,
)
from livekit.plugins import openai

from emma_agent.listening import Tuning, is_hesitation, primary_subtag, turn_handling
from emma_agent.settings import Settings, TurnDetection

__all__ = ["Ears", "Speech", "build_speech"]


class Ears(openai.STT):
    """Speech-to-text that takes a hesitation for silence.

    So a lone "um" ends no turn and takes no turn from Emma: she waits, or goes on. No transcript
    of it is recorded.
    """

    lesson_language: str | None = None

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str | list[str]] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        event = await super()._recognize_impl(buffer, language=language, conn_options=conn_options)
        if event.alternatives and is_hesitation(event.alternatives[0].text, self.lesson_language):
            event.alternatives = []
        return event


@dataclass(frozen=True, slots=True)
class Speech:
    """What one lesson hears, thinks and speaks with."""

    stt: Ears
    llm: openai.LLM
    tts: openai.TTS
    turn_detection: TurnDetection

    def tune(self, tuning: Tuning) -> None:
        """Fit the models to a lesson; again whenever that changes."""
        self.stt.lesson_language = tuning.language
        # OpenAI takes ISO 639-1: the primary subtag.
        if tuning.one_language and (code := primary_subtag(tuning.language)) is not None:
            self.stt.update_options(language=code, detect_language=False)
        else:
            self.stt.update_options(detect_language=True)
        # OpenAI takes 0.25 to 4.
        self.tts.update_options(speed=min(4.0, max(0.25, tuning.rate)))

    def turn_handling(self, tuning: Tuning) -> TurnHandlingOptions:
        """How turns are taken in a lesson."""
        return turn_handling(tuning, self.turn_detection)


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
        stt=Ears(model=settings.stt_model, detect_language=True, api_key=key, base_url=base_url),
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
        turn_detection=settings.turn_detection,
    )
