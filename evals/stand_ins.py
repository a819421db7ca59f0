"""What stands in for a model and for sound: a scripted model, a voice, and who hears it.

The voice is silence, and a sentence is over as soon as it was said, so that a lesson takes no longer
than the worker takes. An answer that is going to be interrupted is heard up to a word.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from livekit import rtc
from livekit.agents import APIConnectOptions, llm, tts
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities

from evals.scenario import Answer

__all__ = ["Listener", "ScriptedModel", "SilentVoice"]

_RATE: Final = 24_000
_SENTENCE: Final = bytes(2 * _RATE // 10)


class ScriptedModel(llm.LLM[Any]):
    """Answers as the scenario says, turn by turn.

    Attributes:
        told: the instructions, as they were at each answer.
        unscripted: how often it was asked in the turn that is on without an answer left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.unscripted = 0
        self._answers: list[Answer] = []

    @property
    def model(self) -> str:
        return "scripted"

    @property
    def provider(self) -> str:
        return "evals"

    @property
    def left(self) -> int:
        """Answers of the turn that is on which nobody has asked for."""
        return len(self._answers)

    def greet(self, text: str) -> None:
        """The first answer of a lesson."""
        self.begin([Answer(says=text)])

    def begin(self, answers: Sequence[Answer]) -> None:
        """The next turn, with these answers one after the other."""
        self._answers = list(answers)
        self.unscripted = 0

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        self.told.append(
            "\n\n".join(
                message.text_content or ""
                for message in chat_ctx.messages()
                if message.role == "system"
            )
        )
        answer = self._answers.pop(0) if self._answers else None
        self.unscripted += answer is None
        return _ScriptedAnswer(
            self, answer, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options
        )


class _ScriptedAnswer(llm.LLMStream):
    def __init__(self, model: ScriptedModel, answer: Answer | None, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self._answer = answer

    async def _run(self) -> None:
        answer = self._answer or Answer(says="I have nothing to say.")
        calls = []
        if answer.calls is not None:
            arguments = {name: self._filled_in(value) for name, value in answer.arguments.items()}
            calls = [
                llm.FunctionToolCall(
                    name=answer.calls,
                    arguments=json.dumps(arguments, ensure_ascii=False),
                    call_id=f"call_{uuid.uuid4().hex[:10]}",
                )
            ]
        delta = llm.ChoiceDelta(role="assistant", content=answer.says, tool_calls=calls)
        self._event_ch.send_nowait(llm.ChatChunk(id="chunk", delta=delta))

    def _filled_in(self, value: object) -> object:
        """`<correction_id>` is the last one that a tool answered."""
        if not isinstance(value, str) or not (value.startswith("<") and value.endswith(">")):
            return value
        for item in reversed(self._chat_ctx.items):
            if isinstance(item, llm.FunctionCallOutput) and not item.is_error:
                answered = json.loads(item.output) if item.output.startswith("{") else {}
                if isinstance(answered, Mapping) and value[1:-1] in answered:
                    return answered[value[1:-1]]
        return value


class Listener(AudioOutput):
    """The student's ear.

    Attributes:
        hears: set as soon as as much has been heard as is wanted, or there is no more.
    """

    def __init__(self) -> None:
        super().__init__(
            label="student", capabilities=AudioOutputCapabilities(pause=False), sample_rate=_RATE
        )
        self.hears = asyncio.Event()
        self._stops_after: int | None = None
        self._words: list[str] = []
        self._seconds = 0.0

    def stop_after(self, words: int | None) -> None:
        """Hear the next answer up to this word, until Emma is interrupted; None hears it all."""
        self.hears.clear()
        self._stops_after = words

    def spoken(self, text: str) -> None:
        """What the voice is saying now."""
        self._words += text.split()

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._seconds:
            self.on_playback_started(created_at=time.time())
        self._seconds += frame.duration
        # Emma speaks sentence by sentence.
        if len(self._words) >= (self._stops_after or 0):
            self.hears.set()

    def flush(self) -> None:
        super().flush()
        self.hears.set()
        if self._stops_after is None:
            self._finish(interrupted=False)

    def clear_buffer(self) -> None:
        self._finish(interrupted=True)

    def _finish(self, *, interrupted: bool) -> None:
        if not self._seconds:
            return
        heard = self._words[: self._stops_after]
        played, self._seconds, self._words = self._seconds, 0.0, []
        self.on_playback_finished(
            playback_position=played / 2 if interrupted else played,
            interrupted=interrupted,
            synchronized_transcript=" ".join(heard) if interrupted else None,
        )


class SilentVoice(tts.TTS[Any]):
    """Says everything as a tenth of a second of silence."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False), sample_rate=_RATE, num_channels=1
        )
        self._listener = listener

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        self._listener.spoken(text)
        return _Silence(tts=self, input_text=text, conn_options=conn_options)


class _Silence(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=uuid.uuid4().hex,
            sample_rate=_RATE,
            num_channels=1,
            mime_type="audio/pcm",
        )
        output_emitter.push(_SENTENCE)
        output_emitter.flush()
