"""A language model that says what a test tells it to, behind OpenAI's HTTP interface.

As `scripted_llm.py`, for a worker in a process of its own. The voice is a moment of silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.support.chat_server import ChatServer

__all__ = ["Failure", "ScriptedServer", "Tool"]


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


class ScriptedServer(ChatServer):
    """Gives `answers` one after the other.

    Attributes:
        asked: the messages of each question, in order; that for a summary is the last.
    """

    def __init__(self, *answers: str | Tool | Failure, summary: str = "") -> None:
        super().__init__()
        self._answers = list(answers)
        self._summary = summary
        self.asked: list[list[dict[str, Any]]] = []

    @property
    def left(self) -> Sequence[str | Tool | Failure]:
        """Answers that were not asked for."""
        return tuple(self._answers)

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any] | web.Response:
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
                call = {"index": 0, "id": f"call_{len(self.asked)}", "type": "function"}
                return {"tool_calls": [{**call, "function": function}]}
            case text:
                return {"content": text}
