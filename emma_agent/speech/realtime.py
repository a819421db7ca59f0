"""OpenAI Realtime, or a server that speaks its protocol: one model hears, thinks and speaks.

The server tells where speech begins and ends, which dates what the student said, and writes it
down. When to answer and what is an interruption is decided here, as in a pipeline: by level, with
the bundled detectors.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Self

from livekit.agents import NOT_GIVEN, AgentSession, NotGiven
from livekit.plugins import openai
from openai.types.realtime import AudioTranscription
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad

from emma_agent.listening import Tuning, pause_for, primary_subtag
from emma_agent.logs import get_logger
from emma_agent.settings import Settings, TurnDetection
from emma_agent.speech.models import base_url, tells_logprobs, text_model

__all__ = ["RealtimeSpeech", "WritingModel", "until_written"]

log = get_logger(__name__)

# What OpenAI Realtime takes.
_SLOWEST: Final = 0.25
_FASTEST: Final = 1.5

# The server closes what it heard this much before Emma answers it, so that it answers all of it.
_BEFORE_ANSWER_S: Final = 0.3


# How long the end of a lesson waits for the student's last words to be written down.
_WRITTEN_TIMEOUT_S: Final = 8.0


class WritingModel(openai.realtime.RealtimeModel):
    """Knows which utterances are not written down yet: a transcript may come after the answer."""

    def __init__(self, *, transcribed_by: str, **options: Any) -> None:
        super().__init__(
            # Without a transcript there is no row of what the student said.
            input_audio_transcription=AudioTranscription(model=transcribed_by),
            turn_detection=_segments(Tuning()),
            **options,
        )
        self._tells_logprobs = tells_logprobs(transcribed_by)
        self._unwritten: set[str] = set()
        self._all_written = asyncio.Event()
        self._all_written.set()

    def session(self, *, turn_detection_disabled: bool = False) -> openai.realtime.RealtimeSession:
        session = super().session(turn_detection_disabled=turn_detection_disabled)
        session.on("openai_server_event_received", self._follow)
        if self._tells_logprobs:
            session.on("openai_server_event_received", partial(_ask_how_sure, session))
        return session

    async def written_down(self, *, timeout_s: float) -> bool:
        """Wait for the transcript of everything that was said; False if one did not come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._all_written.wait()
        return not self._unwritten

    def _follow(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "input_audio_buffer.committed":
                self._unwritten.add(str(event.get("item_id")))
            case (
                "conversation.item.input_audio_transcription.completed"
                | "conversation.item.input_audio_transcription.failed"
                | "conversation.item.deleted"
            ):
                self._unwritten.discard(str(event.get("item_id")))
        if self._unwritten:
            self._all_written.clear()
        else:
            # After LiveKit has made a message of it: that happens before the loop goes on.
            self._all_written.set()


def _ask_how_sure(session: openai.realtime.RealtimeSession, event: dict[str, Any]) -> None:
    """Of each new connection; LiveKit has no setting for it, and takes what is not told for sure."""
    if event.get("type") == "session.created":
        wanted = {"type": "realtime", "include": ["item.input_audio_transcription.logprobs"]}
        session.send_event({"type": "session.update", "session": wanted})


async def until_written(agent_session: AgentSession[Any]) -> None:
    """Before a session closes: wait for what was said and is not written down yet, for a while.

    What comes after its end would be lost. In a pipeline LiveKit itself waits for it.
    """
    model = agent_session.llm
    if isinstance(model, WritingModel) and not await model.written_down(
        timeout_s=_WRITTEN_TIMEOUT_S
    ):
        log.warning(
            "speech.transcript_missing",
            wait_s=_WRITTEN_TIMEOUT_S,
            remedy="the student's last words are not on the record: the realtime server did not "
            "write them down in time",
        )


@dataclass(slots=True)
class RealtimeSpeech:
    """One model."""

    stt: ClassVar[NotGiven] = NOT_GIVEN
    tts: ClassVar[NotGiven] = NOT_GIVEN
    llm: WritingModel
    writer: openai.LLM | None
    turn_detection: TurnDetection
    transcribed_by: str
    tuned: bool = False

    @classmethod
    def build(cls, settings: Settings) -> Self:
        """The model of the settings; one that writes, if there is an address or a key for it."""
        endpoint, text = settings.endpoint("realtime"), settings.endpoint("llm")
        return cls(
            llm=WritingModel(
                transcribed_by=settings.stt_model,
                model=settings.realtime_model,
                voice=settings.realtime_voice,
                api_key=endpoint.key,
                base_url=base_url(endpoint),
            ),
            writer=text_model(settings, text) if text.usable else None,
            turn_detection=settings.turn_detection,
            transcribed_by=settings.stt_model,
        )

    def tune(self, tuning: Tuning) -> None:
        """Language, voice, pace, and how long a silence parts what was said."""
        heard_as = AudioTranscription(model=self.transcribed_by)
        if tuning.one_language and (code := primary_subtag(tuning.language)) is not None:
            heard_as.language = code
        if tuning.voice is not None and not self.tuned:
            # Once it has spoken, the model refuses another voice.
            self.llm.update_options(voice=tuning.voice)
        self.tuned = True
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
