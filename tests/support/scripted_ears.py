"""Speech recognition that hears what a test says: silence goes in, and the test's words come out.

ears = ScriptedSTT()
session = AgentSession(stt=ears, ...)
session.input.audio = Silence()
await ears.hear("I goed home")
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from livekit import rtc
from livekit.agents import stt
from livekit.agents.language import LanguageCode
from livekit.agents.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
)
from livekit.agents.utils import AudioBuffer
from livekit.agents.voice.io import AudioInput

_RATE = 16_000
_FRAME_S = 0.02


class Silence(AudioInput):
    """A microphone in a quiet room."""

    def __init__(self) -> None:
        super().__init__(label="silence")

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(_FRAME_S)
        samples = int(_RATE * _FRAME_S)
        return rtc.AudioFrame(bytes(2 * samples), _RATE, 1, samples)


class ScriptedSTT(stt.STT[Any]):
    """Hears what `hear` says."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))
        self._listening = asyncio.Event()
        self._stream: _ScriptedSpeech | None = None

    async def hear(self, *parts: str, language: str = "en") -> None:
        """A turn of the user, as soon as somebody listens: one final transcript for each part."""
        await self._listening.wait()
        assert self._stream is not None
        self._stream.say(parts, language)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        self._stream = _ScriptedSpeech(stt=self, conn_options=conn_options, sample_rate=_RATE)
        self._listening.set()
        return self._stream

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        raise NotImplementedError


class _ScriptedSpeech(stt.RecognizeStream):
    async def _run(self) -> None:
        async for _ in self._input_ch:
            pass

    def say(self, parts: Sequence[str], language: str) -> None:
        self._event_ch.send_nowait(stt.SpeechEvent(type=stt.SpeechEventType.START_OF_SPEECH))
        for text in parts:
            data = stt.SpeechData(language=LanguageCode(language), text=text, confidence=0.75)
            self._event_ch.send_nowait(
                stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data])
            )
        self._event_ch.send_nowait(stt.SpeechEvent(type=stt.SpeechEventType.END_OF_SPEECH))
