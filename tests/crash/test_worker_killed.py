"""The worker is killed, or told to end, in the middle of a lesson.

A real LiveKit server, a real worker, Convex on this machine. The witness is the student: what was
written and what came back, known to the test alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from emma_agent.convex_local import ROOT, ConvexLocal
from emma_agent.demo.children import Child
from emma_agent.demo.livekit_server import LiveKitServer
from emma_agent.demo.plan import clean_environment
from emma_agent.demo.rows import LiveLesson
from emma_agent.demo.student import Ticket
from livekit.plugins.convex import AgentToken, AsyncConvexClient
from tests.support.answering import until_it_answers
from tests.support.writing_student import WritingStudent
from tests.support.written_models import GREETING, WrittenModels, answer_to

pytestmark = pytest.mark.timeout(240)

SENTENCES = ("I have cooked dinner.", "It was soup.", "Do you like soup?")


@dataclass
class School:
    """Everything but the worker, and how to start one."""

    convex: ConvexLocal
    livekit: LiveKitServer
    models: WrittenModels
    http: aiohttp.ClientSession
    directory: Path
    student_id: str
    session_key: str

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncIterator[Child]:
        """A worker that takes jobs; gone at the end of the block."""
        child = Child(
            name,
            [sys.executable, "-m", "emma_agent", "dev"],
            env={
                **clean_environment(),
                "CONVEX_URL": self.convex.url,
                "CONVEX_AGENT_KEY": self.convex.agent_key.pem(),
                "LIVEKIT_URL": self.livekit.url,
                "LIVEKIT_API_KEY": self.livekit.api_key,
                "LIVEKIT_API_SECRET": self.livekit.api_secret,
                "OPENAI_BASE_URL": self.models.url,
                "EMMA_OUTBOX_DIR": str(self.directory / "outbox"),
                "EMMA_TURN_DETECTION": "vad",
            },
            log=self.directory / f"{name}.log",
        )
        try:
            await child.wait_for(
                lambda: b"registered worker" in child.log.read_bytes(), timeout_s=90
            )
            yield child
        finally:
            await child.stop(grace_s=10.0)

    @asynccontextmanager
    async def student(self) -> AsyncIterator[WritingStudent]:
        """The student joins, and with it Emma is called."""
        ticket = Ticket.issue(
            url=self.livekit.url,
            api_key=self.livekit.api_key,
            api_secret=self.livekit.api_secret,
            room=self.session_key,
            identity="student",
            agent_name="emma",
            metadata={"student_id": self.student_id, "session_key": self.session_key},
        )
        async with WritingStudent.join(ticket) as student:
            yield student

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[LiveLesson]:
        """What Convex holds of the lesson, live."""
        token = AgentToken(
            self.convex.agent_key,
            subject=f"student:{self.student_id}",
            student_id=self.student_id,
        )
        async with (
            AsyncConvexClient(self.convex.url, token=token) as client,
            LiveLesson.follow(client, self.session_key) as live,
        ):
            yield live

    async def refuse_everything(self) -> None:
        """From now on Convex answers 503 to each call."""
        await self._admin("POST", "/_local/faults", {"kind": "unavailable"})

    async def recover(self) -> None:
        """Convex answers again."""
        await self._admin("DELETE", "/_local/faults", None)

    async def asked(self, function: str) -> tuple[int, int]:
        """How many calls of `function` there were, and how many of them Convex has refused."""
        calls = await self._admin("GET", "/_local/calls", None)
        counts = calls.get(function, {})
        return int(counts.get("calls", 0)), int(counts.get("faults", 0))

    async def _admin(self, method: str, path: str, body: object) -> Any:
        headers = {"Authorization": f"Convex {self.convex.admin_key}"}
        url = f"{self.convex.url}{path}"
        async with self.http.request(method, url, json=body, headers=headers) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.json(content_type=None)


@pytest.fixture
async def school(tmp_path: Path) -> AsyncIterator[School]:
    """A school of one student and no worker yet."""
    server = LiveKitServer.choose(ROOT)
    async with (
        WrittenModels(silent_from=3) as models,
        ConvexLocal.start(db=tmp_path / "convex.sqlite3", faults=True) as convex,
        aiohttp.ClientSession() as http,
    ):
        livekit = Child(
            "livekit-server",
            server.command,
            env={**clean_environment(), **server.env},
            log=tmp_path / "livekit.log",
        )
        try:
            await until_it_answers(http, server.health_url)
            school = School(
                convex, server, models, http, tmp_path, "", f"crash-{secrets.token_hex(8)}"
            )
            seed = {"path": "seed:demo", "args": {}, "format": "json"}
            school.student_id = (await school._admin("POST", "/api/mutation", seed))["value"][
                "studentId"
            ]
            yield school
        finally:
            await livekit.stop(grace_s=1.0)


async def exchange_two_turns(student: WritingStudent) -> None:
    assert await student.read() == GREETING
    for turn, sentence in enumerate(SENTENCES[:2], start=1):
        await student.write(sentence)
        assert await student.read() == answer_to(turn)


def stored(live: LiveLesson) -> list[tuple[str, str]]:
    """Role and text of the rows, in the order of `messages:list`."""
    return [(row.role, row.text.strip()) for row in live.rows]


async def test_killed_with_all_its_jobs_while_convex_was_away_nothing_said_is_lost(
    school: School,
) -> None:
    """From before the lesson until after the kill, Convex takes nothing: only the disk has it."""
    await school.refuse_everything()
    async with school.worker("first") as worker, school.student() as student:
        await exchange_two_turns(student)
        # The kill comes in the middle of a turn: asked, not answered.
        await student.write(SENTENCES[2])
        await asyncio.gather(school.models.waiting.wait(), student.until_emma_thinks())
        processes = psutil.Process(worker.pid).children(recursive=True)
        assert len(processes) >= 2, "a forkserver and a job at the least"
        assert {os.getpgid(process.pid) for process in processes} == {worker.pid}
        os.killpg(worker.pid, signal.SIGKILL)
        await worker.exited.wait()
    assert worker.returncode == -signal.SIGKILL
    await asyncio.to_thread(psutil.wait_procs, processes, timeout=10)
    assert [process for process in processes if lives(process)] == []

    calls, refused = await school.asked("sessions:record")
    assert calls == refused > 0, "Convex has taken something already"
    await school.recover()
    async with school.rows() as live, school.worker("second") as successor:
        await successor.wait_for(
            lambda: b"recovery.delivered" in successor.log.read_bytes(), timeout_s=60
        )
        await live.until(lambda now: len(now.rows) >= len(student.exchanged), timeout_s=10)

    assert len(student.exchanged) == 6
    assert stored(live) == student.exchanged
    assert len({row.item_id for row in live.rows}) == len(live.rows)
    assert live.session is not None
    assert (live.session.message_count, live.session.runs) == (6, 1)


def lives(process: psutil.Process) -> bool:
    """Still runs; a zombie waits only for whoever adopted it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


async def test_told_to_end_with_its_whole_group_it_closes_the_session(school: School) -> None:
    """As systemd and shells do it: each process of the group gets the SIGTERM."""
    async with school.rows() as live:
        async with school.worker("worker") as worker, school.student() as student:
            await exchange_two_turns(student)
            os.killpg(worker.pid, signal.SIGTERM)
            await worker.exited.wait()
        await live.until(
            lambda now: now.session is not None and now.session.status == "ended", timeout_s=10
        )

    assert len(student.exchanged) == 5
    assert stored(live) == student.exchanged
    assert live.session is not None
    assert (live.session.status, live.session.provisional_end) == ("ended", False)
    assert live.session.message_count == 5
