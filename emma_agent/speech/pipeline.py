"""Speech-to-text, a language model and a voice, each of any server that speaks OpenAI's API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from livekit.agents import NOT_GIVEN, APIConnectOptions, NotGivenOr, stt, utils
from livekit.plugins import openai

from emma_agent.listening import Tuning, is_hesitation, primary_subtag
from emma_agent.settings import Settings, TurnDetection
from emma_agent.speech.models import base_url, text_model

__all__ = ["Ears", "PipelineSpeech"]

# What OpenAI's voices take.
_SLOWEST = 0.25
_FASTEST = 4.0


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


@dataclass(slots=True)
class PipelineSpeech:
    """Three models, one after the other."""

    stt: Ears
    llm: openai.LLM
    tts: openai.TTS
    turn_detection: TurnDetection
    voice: str

    @classmethod
    def build(cls, settings: Settings) -> Self:
        """The three models of the settings."""
        hearing, voice = settings.endpoint("stt"), settings.endpoint("tts")
        return cls(
            stt=Ears(
                model=settings.stt_model,
                detect_language=True,
                api_key=hearing.key,
                base_url=base_url(hearing),
            ),
            llm=text_model(settings, settings.endpoint("llm")),
            tts=openai.TTS(
                model=settings.tts_model,
                voice=settings.tts_voice,
                # Audio that comes as events is decoded as this format whatever the server
                # sends; "mp3", the default, fails on servers that send samples.
                response_format="pcm",
                api_key=voice.key,
                base_url=base_url(voice),
            ),
            turn_detection=settings.turn_detection,
            voice=settings.tts_voice,
        )

    @property
    def writer(self) -> openai.LLM:
        """The same model writes."""
        return self.llm

    def tune(self, tuning: Tuning) -> None:
        """Language, voice and pace."""
        self.stt.lesson_language = tuning.language
        # OpenAI takes ISO 639-1: the primary subtag.
        if tuning.one_language and (code := primary_subtag(tuning.language)) is not None:
            self.stt.update_options(language=code, detect_language=False)
        else:
            self.stt.update_options(detect_language=True)
        self.tts.update_options(
            voice=tuning.voice or self.voice, speed=min(_FASTEST, max(_SLOWEST, tuning.rate))
        )
