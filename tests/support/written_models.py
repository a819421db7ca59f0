"""Models for a lesson in writing, behind OpenAI's HTTP interface: every answer is known beforehand.

A greeting, then "This is answer 1.", "This is answer 2." and so on, by the number of sentences the
student has written. The voice is a moment of silence, so a turn takes as long as the worker takes.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tests.support.chat_server import ChatServer

__all__ = ["GREETING", "WrittenModels", "answer_to"]

GREETING: Final = "Hello, this is the greeting."


def answer_to(turn: int) -> str:
    """What the model says to the student's sentence of that number, from 1."""
    return f"This is answer {turn}."


class WrittenModels(ChatServer):
    """Answers by the number of the sentence.

    Attributes:
        silent_from: the turn that is never answered, as by a model that thinks for too long.
        waiting: set once that turn has been asked for.
    """

    def __init__(self, *, silent_from: int | None = None) -> None:
        super().__init__()
        self.silent_from = silent_from
        self.waiting = asyncio.Event()

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        turn = sum(message["role"] == "user" for message in asked["messages"])
        if self.silent_from is not None and turn >= self.silent_from:
            self.waiting.set()
            await asyncio.Event().wait()
        return {"content": answer_to(turn) if turn else GREETING}
