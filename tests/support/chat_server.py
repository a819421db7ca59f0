"""What stand-ins for OpenAI's HTTP interface have in common: a place, a stream, a silent voice."""

from __future__ import annotations

import json
from typing import Any, Final, Self

from aiohttp import web

__all__ = ["ChatServer"]

# 24 kHz, 16 bits, mono, as the worker asks for it.
_SILENCE: Final = bytes(2 * 24_000 // 5)


class ChatServer:
    """`async with` serves it on a free port of loopback, at `url`; a subclass answers chats."""

    def __init__(self) -> None:
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

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any] | web.Response:
        """The assistant's message to a request's body, without its role; or another response."""
        raise NotImplementedError

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        message = await self.answer(await request.json())
        if isinstance(message, web.Response):
            return message
        finish = "tool_calls" if "tool_calls" in message else "stop"
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, reason in (({"role": "assistant", **message}, None), ({}, finish)):
            await response.write(_event(delta, reason))
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
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()
