"""A server that answers chat completions as a test says, behind OpenAI's HTTP interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from tests.support.chat_server import ChatServer

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


class ScriptedOpenAI(ChatServer):
    """Answers as its `reply` says.

    Attributes:
        asked: the requests, in order.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self._reply = reply

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any] | web.Response:
        self.asked.append(asked)
        reply = self._reply(asked)
        if isinstance(reply, int):
            return web.json_response({"error": {"message": "refused"}}, status=reply)
        return {"content": reply} if isinstance(reply, str) else reply
