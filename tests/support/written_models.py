"""Models for a lesson in writing, behind OpenAI's HTTP interface: every answer is known beforehand.

A greeting, then "This is answer 1.", "This is answer 2." and so on, by the number of sentences the
student has written. The voice is a moment of silence, so a turn takes as long as the worker takes.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, Self

from aiohttp import web

__all__ = ["GREETING", "WrittenModels", "answer_to"]

GREETING: Final = "Hello, this is the greeting."
# 24 kHz, 16 bits, mono, as the worker asks for it.
_SILENCE: Final = bytes(2 * 24_000 // 5)


def answer_to(turn: int) -> str:
    """What the model says to the student's sentence of that number, from 1."""
    return f"This is answer {turn}."


class WrittenModels:
    """The endpoints; `async with` serves them on a free port of loopback.

    Attributes:
        silent_from: the turn that is never answered, as by a model that thinks for too long.
        waiting: set once that turn has been asked for.
    """

    def __init__(self, *, silent_from: int | None = None) -> None:
        self.silent_from = silent_from
        self.waiting = asyncio.Event()
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

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        turn = sum(message["role"] == "user" for message in asked["messages"])
        if self.silent_from is not None and turn >= self.silent_from:
            self.waiting.set()
            await asyncio.Event().wait()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        text = answer_to(turn) if turn else GREETING
        for delta, finish in (({"role": "assistant", "content": text}, None), ({}, "stop")):
            await response.write(_event(delta, finish))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _speak(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=_SILENCE, content_type="audio/pcm")


def _event(delta: dict[str, Any], finish: str | None) -> bytes:
    chunk = {
        "id": "chunk",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "written",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()
