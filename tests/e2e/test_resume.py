"""A lesson is interrupted, in a real room, and goes on: four ways, and who calls Emma back in each.

The student writes, which costs a shared machine less than a voice. What was said is known from the
student and from Convex, and that Emma knows where they were from what she says: the offline model
is told by the conversation alone what the student said before.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from livekit import api
from rich.console import Console

from emma_agent.demo.plan import Plan
from emma_agent.demo.rows import LiveLesson
from emma_agent.demo.school_backend import ensure_emma
from emma_agent.demo.screen import Screen
from emma_agent.demo.services import AGENT_NAME, Services
from emma_agent.demo.stage import on_stage, rows_and_ticket
from emma_agent.demo.student import Ticket
from emma_agent.ending import LESSON_OVER
from tests.support.page import Page
from tests.support.writing_student import WritingStudent

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

SAID = "Yesterday I cooked dinner for my family."
BACK_S = 90.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    screen = Screen(Console(file=io.StringIO()))
    directory: Path = tmp_path_factory.mktemp("resume")
    async with on_stage(Plan(), directory=directory, screen=screen, children=set()) as services:
        yield services


@dataclass(frozen=True)
class Lesson:
    """One lesson: the student's way in, the rows as they appear, the school's own server."""

    ticket: Ticket
    live: LiveLesson
    livekit: api.LiveKitAPI
    metadata: dict[str, object]
    dispatched: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def school_server(self, **more: object) -> AsyncIterator[None]:
        """The school's server, while the student's page is open: it asks twice a second."""

        async def watch() -> None:
            while True:
                if await ensure_emma(self.livekit, self.ticket.room, self.metadata | more):
                    self.dispatched.append(self.ticket.room)
                await asyncio.sleep(0.5)

        watching = asyncio.create_task(watch())
        try:
            yield
            # What ended it would be hidden.
            assert not watching.done()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def ended(self) -> None:
        """Wait until the job knows that the student has left.

        One who is back sooner than LiveKit tells it finds the same job, as after a network drop.
        """

        def known(live: LiveLesson) -> bool:
            return live.session is not None and live.session.status == "ended"

        assert await self.live.until(known, timeout_s=BACK_S)

    async def runs(self, count: int) -> None:
        """Wait until Convex knows of so many runs of the session; there are no more."""

        def known(live: LiveLesson) -> bool:
            return live.session is not None and live.session.runs >= count

        assert await self.live.until(known, timeout_s=BACK_S)
        assert self.live.session is not None
        assert self.live.session.runs == count

    async def said(self, count: int) -> list[str]:
        """What Convex holds of who spoke, once there are so many messages."""
        assert await self.live.until(lambda live: len(live.messages) >= count, timeout_s=BACK_S)
        assert len({row.item_id for row in self.live.messages}) == len(self.live.messages)
        return [row.role for row in self.live.messages]


@asynccontextmanager
async def lesson(services: Services, *, guided: bool = True) -> AsyncIterator[Lesson]:
    """A session of the demo's lesson, or of free conversation."""
    server = services.livekit
    async with (
        rows_and_ticket(services) as (client, ticket),
        LiveLesson.follow(client, ticket.room, on_message=lambda *_: None) as live,
        api.LiveKitAPI(server.url, server.api_key, server.api_secret) as livekit,
    ):
        metadata = {"student_id": services.student_id, "session_key": ticket.room}
        if guided:
            metadata["lesson_id"] = services.lesson_id
        ticket = Ticket.issue(
            url=server.url,
            api_key=server.api_key,
            api_secret=server.api_secret,
            room=ticket.room,
            identity=ticket.identity,
            agent_name=AGENT_NAME,
            metadata=metadata,
        )
        yield Lesson(ticket, live, livekit, {**metadata})


def goes_on(text: str) -> None:
    """Emma says where they were, and does not greet."""
    assert "dinner" in text.lower()
    assert "hello" not in text.lower()


ONCE = ["assistant", "user", "assistant", "assistant"]


async def test_a_network_drop_waits_for_the_student_and_nobody_dispatches(
    services: Services,
) -> None:
    async with lesson(services) as held:
        async with Page.open(held.ticket) as page:
            await page.read()
            await page.write(SAID)
            await page.read()
            await page.vanish()
        async with WritingStudent.join(held.ticket) as student, held.school_server():
            goes_on(await student.read())
            assert await held.said(4) == ONCE
        await held.runs(1)
    assert held.dispatched == []


async def test_after_a_page_reload_the_schools_server_dispatches(services: Services) -> None:
    async with lesson(services) as held:
        async with WritingStudent.join(held.ticket) as student:
            await student.read()
            await student.write(SAID)
            await student.read()
        await held.ended()
        async with WritingStudent.join(held.ticket) as student, held.school_server():
            goes_on(await student.read(from_another=True))
            assert await held.said(4) == ONCE
        await held.runs(2)
    assert len(held.dispatched) == 1


async def test_after_an_intended_end_the_next_token_dispatches_and_she_greets(
    services: Services,
) -> None:
    async with lesson(services, guided=False) as held:
        async with WritingStudent.join(held.ticket) as student, held.school_server():
            await student.read()
            # Through the conversation and the feedback to the farewell.
            for answer in ("Fine.", "I must go. Goodbye.", "Yes."):
                await student.write(answer)
                farewell = await student.read()
            assert "goodbye" in farewell.lower()
            await student.write("Goodbye.")
            await student.until_the_room_ends()
        assert await held.live.until(over, timeout_s=BACK_S)
        await held.runs(1)
    assert held.dispatched == []
    async with lesson(services) as following, WritingStudent.join(following.ticket) as student:
        greeting = await student.read()
        assert "hello" in greeting.lower()
        assert "last time we did free conversation" in greeting.lower()


def over(live: LiveLesson) -> bool:
    session = live.session
    return session is not None and session.end_reason == LESSON_OVER


async def test_after_the_death_of_the_worker_the_schools_server_dispatches(
    services: Services,
) -> None:
    """Last, since the worker is no more."""
    async with lesson(services) as held, WritingStudent.join(held.ticket) as student:
        await student.read()
        await student.write(SAID)
        await student.read()
        os.killpg(services.worker.pid, signal.SIGKILL)
        await services.worker.exited.wait()
        await services.start_worker()
        async with held.school_server():
            goes_on(await student.read(from_another=True))
            assert await held.said(4) == ONCE
        await held.runs(2)
    assert len(held.dispatched) == 1
