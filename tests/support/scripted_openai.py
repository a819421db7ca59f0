"""A server that answers chat completions as a test says, behind OpenAI's HTTP interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Self

from aiohttp import web

__all__ = ["Asked", "Reply", "ScriptedOpenAI", "calling"]

Asked = Mapping[str, Any]
"""The body of a request."""
Reply = Callable[[Asked], str | dict[str, Any] | int]
"""Words, a message of the assistant, or the status of a refusal."""


def calling(tool: str, **arguments: Any) -> dict[str, Any]:
    """A message that calls a tool."""
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": f"call_{tool}", "type": "function", "function": function}
    return {"role": "assistant", "tool_calls": [call]}


class ScriptedOpenAI:
    """`async with` serves it on a free port of loopback, at `url`.

    Attributes:
        asked: the requests, in order.
    """

    def __init__(self, reply: Reply) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self._reply = reply
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._complete)
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
        self.asked.append(asked)
        reply = self._reply(asked)
        if isinstance(reply, int):
            return web.json_response({"error": {"message": "refused"}}, status=reply)
        if isinstance(reply, str):
            reply = {"role": "assistant", "content": reply}
        finish = "tool_calls" if "tool_calls" in reply else "stop"
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, reason in ((reply, None), ({}, finish)):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
            line = json.dumps({**chunk, "choices": [choice]})
            await response.write(f"data: {line}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response
