"""A language model that says what a test tells it to: no network, no randomness.

    model = ScriptedLLM(call("get_student_profile"), "Your name is Ana.")

Each entry is one answer of the model, in the order asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from livekit.agents import APIConnectionError, llm
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions


@dataclass(frozen=True)
class ToolRequest:
    """The model asks for a tool."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class Said:
    """The model says something and asks for a tool in one answer."""

    text: str
    tool: str


@dataclass(frozen=True)
class Unfinished:
    """The model begins to answer, and is not done before it is interrupted."""

    text: str


@dataclass(frozen=True)
class Broken:
    """The model begins to answer, and fails."""

    text: str


@dataclass(frozen=True)
class Late:
    """The model answers, but not before it is told to."""

    text: str
    after: asyncio.Event


Answer = (
    str
    | ToolRequest
    | list[ToolRequest]
    | Said
    | Unfinished
    | Broken
    | Late
    | Exception
    | Callable[[llm.ChatContext], str]
)


def call(name: str, arguments: str = "{}") -> ToolRequest:
    """The model asks for the tool `name`; `arguments` is JSON."""
    return ToolRequest(name, arguments)


class ScriptedLLM(llm.LLM[Any]):
    """Gives `answers` one after the other; after the last it says "." for ever.

    Attributes:
        asked: the conversation as the model saw it, once for each answer.
    """

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self._answers = list(answers)
        self.asked: list[llm.ChatContext] = []

    @property
    def model(self) -> str:
        return "scripted"

    @property
    def provider(self) -> str:
        return "test"

    def instructions(self, time: int = -1) -> str:
        """The instructions that the model saw the last time, or another."""
        return next(
            message.text_content or ""
            for message in self.asked[time].messages()
            if message.role == "system"
        )

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        self.asked.append(chat_ctx.copy())
        answer = self._answers.pop(0) if self._answers else "."
        return _ScriptedStream(
            self, answer, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options
        )


class _ScriptedStream(llm.LLMStream):
    def __init__(self, model: ScriptedLLM, answer: Answer, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self._answer = answer

    async def _run(self) -> None:
        match self._answer:
            case Exception():
                raise APIConnectionError(retryable=False) from self._answer
            case ToolRequest() as request:
                delta = self._calls([request])
            case list(requests):
                delta = self._calls(requests)
            case Said(text=text, tool=tool):
                delta = self._calls([ToolRequest(tool)])
                delta.content = text
            case Unfinished(text=text):
                delta = llm.ChoiceDelta(role="assistant", content=text)
                self._event_ch.send_nowait(llm.ChatChunk(id="chunk", delta=delta))
                await asyncio.Event().wait()
                return
            case Broken(text=text):
                delta = llm.ChoiceDelta(role="assistant", content=text)
                self._event_ch.send_nowait(llm.ChatChunk(id="chunk", delta=delta))
                raise APIConnectionError(retryable=False)
            case Late(text=text, after=after):
                await after.wait()
                delta = llm.ChoiceDelta(role="assistant", content=text)
            case str(text):
                delta = llm.ChoiceDelta(role="assistant", content=text)
            case choose:
                delta = llm.ChoiceDelta(role="assistant", content=choose(self._chat_ctx))
        self._event_ch.send_nowait(llm.ChatChunk(id="chunk", delta=delta))
        self._event_ch.send_nowait(
            llm.ChatChunk(
                id="chunk",
                usage=llm.CompletionUsage(completion_tokens=3, prompt_tokens=5, total_tokens=8),
            )
        )

    def _calls(self, requests: list[ToolRequest]) -> llm.ChoiceDelta:
        first = len(self._chat_ctx.items)
        calls = [
            llm.FunctionToolCall(
                name=request.name, arguments=request.arguments, call_id=f"call_{number}"
            )
            for number, request in enumerate(requests, first)
        ]
        return llm.ChoiceDelta(role="assistant", tool_calls=calls)
