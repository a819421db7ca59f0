"""OpenAI Realtime, or a server that speaks its protocol: one model hears, thinks and speaks.

The server tells where speech begins and ends, which dates what the student said, and writes it
down. When to answer and what is an interruption is decided here, as in a pipeline: by level, with
the bundled detectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from livekit.agents import NOT_GIVEN, NotGiven
from livekit.plugins import openai
from openai.types.realtime import AudioTranscription
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad

from emma_agent.listening import Tuning, pause_for, primary_subtag
from emma_agent.settings import Settings, TurnDetection
from emma_agent.speech.models import base_url, text_model

__all__ = ["RealtimeSpeech"]

# What OpenAI Realtime takes.
_SLOWEST: Final = 0.25
_FASTEST: Final = 1.5

# The server closes what it heard this much before Emma answers it, so that it answers all of it.
_BEFORE_ANSWER_S: Final = 0.3


@dataclass(slots=True)
class RealtimeSpeech:
    """One model."""

    stt: ClassVar[NotGiven] = NOT_GIVEN
    tts: ClassVar[NotGiven] = NOT_GIVEN
    llm: openai.realtime.RealtimeModel
    writer: openai.LLM | None
    turn_detection: TurnDetection
    transcribed_by: str

    @classmethod
    def build(cls, settings: Settings) -> Self:
        """The model of the settings; one that writes, if there is an address or a key for it."""
        endpoint, text = settings.endpoint("realtime"), settings.endpoint("llm")
        return cls(
            llm=openai.realtime.RealtimeModel(
                model=settings.realtime_model,
                voice=settings.realtime_voice,
                api_key=endpoint.key,
                base_url=base_url(endpoint),
                # Without a transcript there is no row of what the student said.
                input_audio_transcription=AudioTranscription(model=settings.stt_model),
                turn_detection=_segments(Tuning()),
            ),
            writer=text_model(settings, text) if text.usable else None,
            turn_detection=settings.turn_detection,
            transcribed_by=settings.stt_model,
        )

    def tune(self, tuning: Tuning) -> None:
        """Language, pace, and how long a silence parts what was said."""
        heard_as = AudioTranscription(model=self.transcribed_by)
        if tuning.one_language and (code := primary_subtag(tuning.language)) is not None:
            heard_as.language = code
        self.llm.update_options(
            speed=min(_FASTEST, max(_SLOWEST, tuning.rate)),
            input_audio_transcription=heard_as,
            turn_detection=_segments(tuning),
        )


def _segments(tuning: Tuning) -> ServerVad:
    silence_s = pause_for(tuning.level, speech_rate=tuning.rate) - _BEFORE_ANSWER_S
    return ServerVad(
        type="server_vad",
        silence_duration_ms=round(1000 * max(_BEFORE_ANSWER_S, silence_s)),
        create_response=False,
        interrupt_response=False,
    )
