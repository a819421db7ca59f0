"""A realtime model that hears and answers what a test tells it to: text alone, no network.

model = ScriptedRealtime("Hello!", call("look_up"), "It is a word.")
...
model.hear("item_1", "What is went?")   # as the provider's transcription tells
model.answer("It is a word.")           # as the provider does by itself when a turn has ended
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from livekit import rtc
from livekit.agents import llm, utils
from livekit.agents.types import NOT_GIVEN, NotGivenOr

from tests.support.scripted_llm import ToolRequest


class ScriptedRealtime(llm.RealtimeModel):
    """Gives `answers` one after the other, to each reply that the session asks for."""

    def __init__(self, *answers: str | ToolRequest) -> None:
        super().__init__(
            capabilities=llm.RealtimeCapabilities(
                message_truncation=False,
                turn_detection=True,
                user_transcription=True,
                auto_tool_reply_generation=False,
                audio_output=False,
                manual_function_calls=True,
                mutable_chat_context=True,
                mutable_instructions=True,
                mutable_tools=True,
                per_response_tool_choice=True,
            )
        )
        self._answers = list(answers)
        self._sessions: list[_ScriptedSession] = []

    def session(self, *, turn_detection_disabled: bool = False) -> llm.RealtimeSession[Any]:
        session = _ScriptedSession(self)
        self._sessions.append(session)
        return session

    async def aclose(self) -> None:
        return None

    def next_answer(self) -> str | ToolRequest:
        return self._answers.pop(0) if self._answers else "."

    def hear(self, item_id: str, text: str, *, turn_started_at: float | None = None) -> None:
        """A final transcript of what the user said, now."""
        self._sessions[-1].emit(
            "input_audio_transcription_completed",
            llm.InputTranscriptionCompleted(
                item_id=item_id, transcript=text, is_final=True, turn_started_at=turn_started_at
            ),
        )

    def answer(self, answer: str | ToolRequest, *, item_id: str | None = None) -> None:
        """A reply that nobody asked for: the provider ends turns by itself."""
        event = _generation(answer, user_initiated=False, item_id=item_id)
        self._sessions[-1].emit("generation_created", event)


class _ScriptedSession(llm.RealtimeSession[Any]):
    def __init__(self, model: ScriptedRealtime) -> None:
        super().__init__(model)
        self._model = model
        self._chat_ctx = llm.ChatContext.empty()
        self._tools = llm.ToolContext.empty()

    @property
    def chat_ctx(self) -> llm.ChatContext:
        return self._chat_ctx.copy()

    @property
    def tools(self) -> llm.ToolContext:
        return self._tools.copy()

    async def update_instructions(self, instructions: str) -> None:
        return None

    async def update_chat_ctx(self, chat_ctx: llm.ChatContext) -> None:
        self._chat_ctx = chat_ctx.copy()

    async def update_tools(self, tools: list[llm.Tool]) -> None:
        self._tools = llm.ToolContext(tools)

    def update_options(self, *, tool_choice: NotGivenOr[llm.ToolChoice | None] = NOT_GIVEN) -> None:
        return None

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        return None

    def push_video(self, frame: rtc.VideoFrame) -> None:
        return None

    def generate_reply(
        self,
        *,
        instructions: NotGivenOr[str] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        tools: NotGivenOr[list[Any]] = NOT_GIVEN,
    ) -> asyncio.Future[llm.GenerationCreatedEvent]:
        reply: asyncio.Future[llm.GenerationCreatedEvent] = asyncio.Future()
        event = _generation(self._model.next_answer(), user_initiated=True)
        reply.set_result(event)
        self.emit("generation_created", event)
        return reply

    def commit_audio(self) -> None:
        return None

    def clear_audio(self) -> None:
        return None

    def interrupt(self) -> None:
        return None

    def truncate(self, **_: Any) -> None:
        return None

    async def aclose(self) -> None:
        return None


def _generation(
    answer: str | ToolRequest, *, user_initiated: bool, item_id: str | None = None
) -> llm.GenerationCreatedEvent:
    messages: list[llm.MessageGeneration] = []
    calls: list[llm.FunctionCall] = []
    if isinstance(answer, ToolRequest):
        calls.append(
            llm.FunctionCall(
                call_id=utils.shortuuid("call_"), name=answer.name, arguments=answer.arguments
            )
        )
    else:
        modalities: asyncio.Future[list[Any]] = asyncio.Future()
        modalities.set_result(["text"])
        messages.append(
            llm.MessageGeneration(
                message_id=item_id or utils.shortuuid("item_"),
                text_stream=_stream([answer]),
                audio_stream=_stream([]),
                modalities=modalities,
            )
        )
    return llm.GenerationCreatedEvent(
        message_stream=_stream(messages),
        function_stream=_stream(calls),
        user_initiated=user_initiated,
        response_id=None,
    )


async def _stream(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item
