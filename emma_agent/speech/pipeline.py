"""Speech-to-text, a language model and a voice, each of any server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from livekit.agents import (
    NOT_GIVEN,
    APIConnectOptions,
    APIError,
    APIStatusError,
    APITimeoutError,
    NotGivenOr,
    stt,
    tts,
    utils,
)
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.plugins import openai
from livekit.plugins.openai.tts import ChunkedStream

from emma_agent.listening import Tuning, is_hesitation, primary_subtag
from emma_agent.logs import get_logger
from emma_agent.settings import Settings, TurnDetection
from emma_agent.speech.models import base_url, text_model

__all__ = ["Ears", "PipelineSpeech", "Voice"]

log = get_logger(__name__)

# What OpenAI's voices take.
_SLOWEST = 0.25
_FASTEST = 4.0

# What the plugin itself waits for one answer is 30 s.
_HEARD_WITHIN_S: Final = 10.0
# What a server says to a voice that it does not have.
_REFUSED: Final = frozenset({400, 404, 422})


class Ears(openai.STT):
    """Speech-to-text that takes a hesitation for silence, and what it cannot understand too.

    So a lone "um" ends no turn and takes no turn from Emma: she waits, or goes on. No transcript
    of it is recorded. An utterance that the server fails to write down is lost, with LiveKit's
    `error` event; LiveKit alone would hear nothing more for the rest of the lesson.
    """

    lesson_language: str | None = None

    async def recognize(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.SpeechEvent:
        """What was said; nothing where that cannot be had."""
        try:
            return await super().recognize(buffer, language=language, conn_options=conn_options)
        except APIError:
            return stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT)

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str | list[str]] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        try:
            async with asyncio.timeout(_HEARD_WITHIN_S):
                event = await super()._recognize_impl(
                    buffer, language=language, conn_options=conn_options
                )
        except TimeoutError:
            raise APITimeoutError from None
        if event.alternatives and is_hesitation(event.alternatives[0].text, self.lesson_language):
            event.alternatives = []
        return event


class Voice(openai.TTS):
    """A voice that speaks as the configured one where the server refuses the avatar's."""

    def __init__(self, *, voice: str, **options: Any) -> None:
        super().__init__(voice=voice, **options)
        self.configured = voice
        self._refused: set[str] = set()

    def speak_as(self, voice: str | None) -> None:
        """From the next sentence on; None is the configured voice."""
        known = voice is not None and voice not in self._refused
        self.update_options(voice=voice if voice is not None and known else self.configured)

    def refused(self, voice: str, *, status: int) -> None:
        """The server does not have it: never ask again."""
        if voice not in self._refused:
            log.warning(
                "speech.voice_refused",
                voice=voice,
                status=status,
                remedy=f"she speaks as {self.configured!r}; give the avatar a voice that the "
                "speech model has",
            )
        self._refused.add(voice)
        self.speak_as(None)

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Sentence(tts=self, input_text=text, conn_options=conn_options)


class _Sentence(ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        try:
            await super()._run(output_emitter)
        except APIStatusError as error:
            # It refuses before the first sound.
            voice, speaker = self._opts.voice, self._tts
            assert isinstance(speaker, Voice)
            if error.status_code not in _REFUSED or voice == speaker.configured:
                raise
            self._opts = replace(self._opts, voice=speaker.configured)
            await super()._run(output_emitter)
            speaker.refused(voice, status=error.status_code)


@dataclass(slots=True)
class PipelineSpeech:
    """Three models, one after the other."""

    stt: Ears
    llm: openai.LLM
    tts: Voice
    turn_detection: TurnDetection

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
            tts=Voice(
                model=settings.tts_model,
                voice=settings.tts_voice,
                # Audio that comes as events is decoded as this format whatever the server
                # sends; "mp3", the default, fails on servers that send samples.
                response_format="pcm",
                api_key=voice.key,
                base_url=base_url(voice),
            ),
            turn_detection=settings.turn_detection,
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
        self.tts.speak_as(tuning.voice)
        self.tts.update_options(speed=min(_FASTEST, max(_SLOWEST, tuning.rate)))
