"""Speech-to-text, a language model and a voice, each of any server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from livekit import rtc
from livekit.agents import (
    NOT_GIVEN,
    APIConnectionError,
    APIConnectOptions,
    APIError,
    APIStatusError,
    APITimeoutError,
    LanguageCode,
    NotGivenOr,
    stt,
    tts,
    utils,
)
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.plugins import openai

# Which hint of a language a model takes; the plugin has no public way to ask.
from livekit.plugins.openai.stt import _transcription as hints_for
from livekit.plugins.openai.tts import ChunkedStream
from openai import APIStatusError as Refusal, APITimeoutError as Silence, Timeout, omit
from openai.types.audio import Transcription, TranscriptionVerbose

from emma_agent.listening import Tuning, is_hesitation, primary_subtag
from emma_agent.logs import get_logger
from emma_agent.settings import Settings, TurnDetection
from emma_agent.speech.models import base_url, tells_logprobs, text_model

__all__ = ["Ears", "PipelineSpeech", "Voice"]

log = get_logger(__name__)

# What OpenAI's voices take.
_SLOWEST = 0.25
_FASTEST = 4.0

# What the plugin itself waits for one answer is 30 s.
_HEARD_WITHIN_S: Final = 10.0
# What a server says to a voice that it does not have, and to what it does not know.
_REFUSED: Final = frozenset({400, 404, 422})


class Ears(openai.STT):
    """Speech-to-text that takes a hesitation for silence, and what it cannot understand too.

    So a lone "um" ends no turn and takes no turn from Emma: she waits, or goes on. No transcript
    of it is recorded. An utterance that the server fails to write down is lost, with LiveKit's
    `error` event; LiveKit alone would hear nothing more for the rest of the lesson.

    It asks for what LiveKit's plugin leaves out: how sure the model is of what it wrote.
    """

    lesson_language: str | None = None

    def __init__(self, *, model: str, **options: Any) -> None:
        super().__init__(model=model, **options)
        self._tells_logprobs = tells_logprobs(model)

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
        audio = rtc.combine_audio_frames(buffer).to_wav_bytes()
        try:
            async with asyncio.timeout(_HEARD_WITHIN_S):
                answer = await self._write_down(audio, connect_within_s=conn_options.timeout)
        except (TimeoutError, Silence):
            raise APITimeoutError from None
        except Refusal as error:
            raise APIStatusError(
                error.message, status_code=error.status_code, request_id=error.request_id
            ) from None
        except Exception as error:
            raise APIConnectionError from error
        heard = stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT)
        if not is_hesitation(answer.text or "", self.lesson_language):
            asked_for = next(iter(self._opts.languages), "")
            heard.alternatives = [
                stt.SpeechData(
                    text=answer.text,
                    language=LanguageCode(_language_of(answer) or asked_for),
                    # 0 is what LiveKit has where a model does not tell.
                    confidence=_confidence_of(answer) or 0.0,
                )
            ]
        return heard

    async def _write_down(
        self, audio: bytes, *, connect_within_s: float
    ) -> Transcription | TranscriptionVerbose:
        hints = hints_for(self._opts)
        try:
            answer = await self._client.audio.transcriptions.create(
                file=("speech.wav", audio, "audio/wav"),
                model=self._opts.model,
                language=hints.language or omit,
                languages=hints.languages or omit,
                # Of the others, some know no other format.
                response_format="verbose_json" if self._opts.model == "whisper-1" else "json",
                include=["logprobs"] if self._tells_logprobs else omit,
                timeout=Timeout(_HEARD_WITHIN_S, connect=connect_within_s),
            )
        except Refusal as error:
            if error.status_code not in _REFUSED or not self._tells_logprobs:
                raise
            # Another server under the name of a model that tells.
            self._tells_logprobs = False
            return await self._write_down(audio, connect_within_s=connect_within_s)
        assert isinstance(answer, Transcription | TranscriptionVerbose)
        return answer


# Of servers of any kind: what is not as OpenAI's is left out, and what was said is heard all the same.


def _language_of(answer: Transcription | TranscriptionVerbose) -> str | None:
    """The language that the model heard, as it calls it; the main one of several."""
    languages = getattr(answer, "languages", None) or ()
    code = next((getattr(each, "code", None) for each in languages), None)
    language = code or getattr(answer, "language", None)
    return language if isinstance(language, str) else None


def _confidence_of(answer: Transcription | TranscriptionVerbose) -> float | None:
    """From 0 to 1, the geometric mean of the tokens' probabilities; None where it is not told."""
    if isinstance(answer, TranscriptionVerbose):
        # Of each segment the mean of its tokens.
        parts = [
            (getattr(each, "avg_logprob", None), len(getattr(each, "tokens", None) or ()) or 1)
            for each in answer.segments or ()
        ]
    else:
        parts = [(getattr(each, "logprob", None), 1) for each in answer.logprobs or ()]
    told = [(mean, count) for mean, count in parts if isinstance(mean, int | float)]
    tokens = sum(count for _, count in told)
    return (
        math.exp(min(0.0, sum(mean * count for mean, count in told) / tokens)) if tokens else None
    )


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
