"""A student who writes instead of speaking, and remembers what was sent and what came back.

A participant like any other: it stands outside the worker, so its memory is a witness.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

from livekit import rtc

from emma_agent.demo.student import Ticket

__all__ = ["WritingStudent"]


class WritingStudent:
    """Use `join`.

    Attributes:
        exchanged: role and text of every message, in order: written by the student, or come back
            whole from Emma.
    """

    def __init__(self) -> None:
        self.exchanged: list[tuple[str, str]] = []
        self._room = rtc.Room()
        self._come_back: list[str] = []
        self._agent_state = ""
        self._emma_left = False
        self._room_ended = False
        self._changed = asyncio.Event()
        self._readers: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def join(cls, ticket: Ticket) -> AsyncIterator[Self]:
        """Join the room, leave it at the end of the block."""
        student = cls()
        room = student._room
        room.on("participant_connected", student._on_participant)
        room.on("participant_attributes_changed", student._on_attributes)
        room.on("participant_disconnected", student._on_departure)
        room.on("disconnected", student._on_end)
        room.register_text_stream_handler("lk.transcription", student._on_text)
        await room.connect(ticket.url, ticket.token)
        try:
            for participant in room.remote_participants.values():
                student._on_participant(participant)
            yield student
        finally:
            for reader in student._readers:
                reader.cancel()
            await asyncio.gather(*student._readers, return_exceptions=True)
            with contextlib.suppress(TimeoutError, rtc.ConnectError):
                async with asyncio.timeout(5.0):
                    await room.disconnect()

    @property
    def room(self) -> rtc.Room:
        """For what a page does beside writing."""
        return self._room

    async def write(self, text: str) -> None:
        """Send one sentence."""
        self.exchanged.append(("user", text))
        await self._room.local_participant.send_text(text, topic="lk.chat")

    async def read(self, *, from_another: bool = False) -> str:
        """Wait until Emma's next message has come back whole and she listens again.

        Args:
            from_another: of a job that is yet to come; the one that is there may leave.
        """
        await self._until(
            lambda: bool(self._come_back) and self._agent_state == "listening",
            may_leave=from_another,
        )
        text = self._come_back.pop(0)
        self.exchanged.append(("assistant", text))
        return text

    async def until_the_room_ends(self) -> None:
        """Wait until the room is deleted, which tells a page that the lesson is over."""
        await self._until(lambda: self._room_ended, may_leave=True)

    async def until_emma_thinks(self) -> None:
        """Wait until Emma has taken the sentence and thinks about it."""
        await self._until(lambda: self._agent_state == "thinking")

    async def _until(self, reached: Callable[[], bool], *, may_leave: bool = False) -> None:
        async with asyncio.timeout(60.0):
            while not reached():
                assert may_leave or not self._emma_left, "Emma has left the room"
                self._changed.clear()
                await self._changed.wait()

    def _on_participant(self, participant: rtc.Participant) -> None:
        self._agent_state = participant.attributes.get("lk.agent.state", "")
        self._emma_left = False
        self._changed.set()

    def _on_departure(self, _participant: rtc.RemoteParticipant) -> None:
        self._emma_left = True
        self._changed.set()

    def _on_end(self, _reason: rtc.DisconnectReason.ValueType) -> None:
        self._room_ended = True
        self._changed.set()

    def _on_attributes(self, _changed: dict[str, str], participant: rtc.Participant) -> None:
        if participant.identity != self._room.local_participant.identity:
            self._on_participant(participant)

    def _on_text(self, reader: rtc.TextStreamReader, _identity: str) -> None:
        task = asyncio.get_running_loop().create_task(self._read_stream(reader))
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def _read_stream(self, reader: rtc.TextStreamReader) -> None:
        if text := (await reader.read_all()).strip():
            self._come_back.append(text)
            self._changed.set()
