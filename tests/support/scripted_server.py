"""A language model that says what a test tells it to, behind OpenAI's HTTP interface.

As `scripted_llm.py`, for a worker in a process of its own. The voice is a moment of silence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web

__all__ = ["Failure", "ScriptedServer", "Tool"]

# 24 kHz, 16 bits, mono, as the worker asks for it.
_SILENCE: Final = bytes(2 * 24_000 // 5)


@dataclass(frozen=True, slots=True)
class Tool:
    """The model asks for a tool; `arguments` as it writes them, JSON or not."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Failure:
    """The provider fails, and says why in its own words."""

    status: int
    message: str


class ScriptedServer:
    """The endpoints; `async with` serves them on a free port of loopback.

    Attributes:
        asked: the messages of each question, in order; that for a summary is the last.
    """

    def __init__(self, *answers: str | Tool | Failure, summary: str = "") -> None:
        self._answers = list(answers)
        self._summary = summary
        self.asked: list[list[dict[str, Any]]] = []
        self.url = ""
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._complete)
        application.router.add_post("/v1/audio/speech", self._speak)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def left(self) -> Sequence[str | Tool | Failure]:
        """Answers that were not asked for."""
        return tuple(self._answers)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.asked.append(asked["messages"])
        answer: str | Tool | Failure
        if "You write the summary" in str(asked["messages"][0].get("content")):
            answer = self._summary
        else:
            answer = self._answers.pop(0) if self._answers else "Well."
        match answer:
            case Failure(status=status, message=message):
                error = {"message": message, "type": "invalid_request_error", "code": None}
                return web.json_response({"error": error}, status=status)
            case Tool(name=name, arguments=arguments):
                function = {"name": name, "arguments": arguments}
                number = len(self.asked)
                call = {"index": 0, "id": f"call_{number}", "type": "function"}
                delta: dict[str, Any] = {"tool_calls": [{**call, "function": function}]}
                finish = "tool_calls"
            case text:
                delta, finish = {"content": text}, "stop"
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in (_chunk({"role": "assistant", **delta}, None), _chunk({}, finish)):
            await response.write(event)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _speak(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=_SILENCE, content_type="audio/pcm")


def _chunk(delta: dict[str, Any], finish: str | None) -> bytes:
    chunk = {
        "id": "chunk",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()
