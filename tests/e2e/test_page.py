"""A student's page in a real room: it sees the slide that is on, turns it, and is told of the end."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from rich.console import Console

from emma_agent.demo.plan import Plan
from emma_agent.demo.rows import LiveLesson
from emma_agent.demo.screen import Screen
from emma_agent.demo.stage import on_stage, rows_and_ticket
from emma_agent.ending import LESSON_OVER
from emma_agent.page import TURN_SLIDE
from livekit.plugins.convex import AsyncConvexClient
from tests.support.scripted_server import ScriptedServer, Tool
from tests.support.writing_student import WritingStudent

pytestmark = pytest.mark.timeout(300)

# Of a student to whom no word is due yet.
PARTS = ("presentation", "practice", "feedback", "farewell")


class Page:
    """What a page in a browser does: reads Emma's attributes, and calls her."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._changed = asyncio.Event()
        self.ended: list[str] = []
        room.on("participant_attributes_changed", lambda *_: self._changed.set())
        room.on("disconnected", self._on_disconnected)

    @property
    def emma(self) -> rtc.RemoteParticipant:
        [emma] = self._room.remote_participants.values()
        return emma

    @property
    def attributes(self) -> dict[str, str]:
        """Those of the lesson, without the blanks in front."""
        return {
            name.removeprefix("emma."): value
            for name, value in self.emma.attributes.items()
            if name.startswith("emma.")
        }

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not reached():
                self._changed.clear()
                await self._changed.wait()

    async def sees(self, **expected: str) -> None:
        await self.until(lambda: expected.items() <= self.attributes.items())

    async def turns(self, to: object) -> dict[str, Any]:
        return dict(json.loads(await self.calls(json.dumps({"to": to}))))

    async def calls(self, payload: str) -> str:
        return await self._room.local_participant.perform_rpc(
            destination_identity=self.emma.identity, method=TURN_SLIDE, payload=payload
        )

    async def is_refused(self, payload: str) -> int:
        with pytest.raises(rtc.RpcError) as refused:
            await self.calls(payload)
        assert refused.value.message
        return refused.value.code

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        self.ended.append(rtc.DisconnectReason.Name(reason))
        self._changed.set()


async def slide_in_convex(client: AsyncConvexClient, session_key: str, index: int) -> str:
    """Wait until that slide is on, from 0, for whoever subscribes as a page does; its title."""
    current = client.subscribe("presentations:current", {"sessionKey": session_key})
    async with asyncio.timeout(30), current as updates:
        async for value in updates:
            now: Any = value
            if now is not None and now["index"] == index:
                return str(now["slide"]["title"])
    raise AssertionError


async def test_a_page_and_emma_turn_the_same_slides(tmp_path: Path) -> None:
    answers: list[str | Tool] = ["Hello!", Tool("next_slide"), "That was the next slide."]
    for part in PARTS:
        answers += [Tool("next_step"), f"Now the {part}."]
    answers += [Tool("end_lesson"), "See you!"]
    screen = Screen(Console(file=io.StringIO()))
    async with ScriptedServer(*answers) as models:
        plan = Plan(openai={"OPENAI_BASE_URL": models.url, "OPENAI_API_KEY": "none"})
        async with (
            on_stage(plan, directory=tmp_path, screen=screen, children=set()) as services,
            rows_and_ticket(services) as (client, ticket),
            LiveLesson.follow(client, ticket.room) as live,
            WritingStudent.join(ticket) as student,
        ):
            page = Page(student.room)
            assert await student.read() == "Hello!"
            await page.sees(step="greeting", slides="4", lesson_id=services.lesson_id)
            assert "slide" not in page.attributes
            assert "lk.agent.state" in page.emma.attributes

            turned = await page.turns("next")
            assert turned == {"slide": 1, "slides": 4, "title": "What would you like?"}
            await page.sees(slide="1")
            assert await slide_in_convex(client, ticket.room, 0) == turned["title"]
            assert (await page.turns(3))["slide"] == 3
            await page.sees(slide="3")
            await slide_in_convex(client, ticket.room, 2)

            assert await page.is_refused("next") == 400
            assert await page.is_refused('{"to": 9}') == 404
            assert await page.is_refused(" " * 9_000) == 413
            assert page.attributes["slide"] == "3"

            # Emma knows of it, and turns on from there.
            await student.write("The next slide, please.")
            assert await student.read() == "That was the next slide."
            await page.sees(slide="4")
            await slide_in_convex(client, ticket.room, 3)
            told = next(
                message["content"] for message in models.asked[1] if message["role"] == "system"
            )
            assert "The slide that is on, 3 of 4:" in told

            for part in PARTS:
                await student.write("Let us go on.")
                assert await student.read() == f"Now the {part}."
                await page.sees(step=part)
            await student.write("Bye!")
            # Heard whole before the room ends.
            assert await student.read() == "See you!"
            await page.until(lambda: bool(page.ended))
            assert page.ended == ["ROOM_DELETED"]
            assert await live.until(
                lambda now: now.session is not None and now.session.status == "ended", timeout_s=30
            )
            assert live.session is not None
            assert (live.session.end_reason, live.session.provisional_end) == (LESSON_OVER, False)
            assert models.left == ()
        log = (tmp_path / "worker.log").read_text(encoding="utf-8")
        assert "lesson.task_failed" not in log
        assert "page.not_shown" not in log
