"""What a teacher does to a lesson while it is taught, and what remains of it for the next one."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.testing import fake_job_context

from emma_agent.convex_local import ConvexLocal
from emma_agent.lesson import LessonState
from emma_agent.logs import configure_logging
from emma_agent.prompt import assemble
from emma_agent.records import SessionSummaryRecord
from emma_agent.tutor import Tutor
from livekit.plugins.convex import AsyncConvexClient, SessionRecorder
from tests.support.lessons import text_session
from tests.support.school import NEW_LESSON, NEW_STUDENT, SLIDES, Staff, Wire
from tests.support.scripted_llm import ScriptedLLM
from tests.support.talking import use

ALL: Any = {"numItems": 200.0, "cursor": None}


class School:
    """A deployment with a teacher, a student and a lesson."""

    def __init__(self, local: ConvexLocal) -> None:
        self.local = local
        self._wire = Wire(local.url, key=local.agent_key, admin_key=local.admin_key)
        self._teacher = Staff(self._wire).tokens["administrator"]
        self.student_id: str = self._do("students:create", **NEW_STUDENT)
        self.lesson_id: str = self._do("lessons:create", **NEW_LESSON)["lessonId"]
        self._do("presentations:create", lessonId=self.lesson_id, title="Market", slides=SLIDES)
        self._do("lessons:publish", lessonId=self.lesson_id)

    def _do(self, function: str, **args: Any) -> Any:
        return self._wire.value(function, args, authorization=self._teacher)

    async def teacher(self, function: str, **args: Any) -> None:
        await asyncio.to_thread(self._do, function, lessonId=self.lesson_id, **args)

    def open(self, session_key: str, directory: Path) -> LessonState:
        metadata = {
            "student_id": self.student_id,
            "lesson_id": self.lesson_id,
            "session_key": session_key,
        }
        return LessonState.open(
            json.dumps(metadata),
            url=self.local.url,
            key=self.local.agent_key,
            outbox_dir=directory,
        )

    def close(self) -> None:
        self._wire.close()


@pytest.fixture
def school() -> Iterator[School]:
    with ConvexLocal.start() as local:
        school = School(local)
        yield school
        school.close()


@asynccontextmanager
async def held(
    state: LessonState, model: ScriptedLLM, directory: Path
) -> AsyncIterator[AgentSession[LessonState]]:
    """The lesson, recorded and its plan followed, until the block is left."""
    await state.ready(timeout_s=20.0)
    session = text_session(state, model)
    with fake_job_context(room=rtc.Room(), job_id="AJ_1") as ctx:
        state.recorder = SessionRecorder.attach(
            session,
            ctx=ctx,
            client=state.client,
            identity=state.identity,
            outbox_dir=directory,
            end_job_on_close=False,
        )
        await session.start(Tutor(state), capture_run=True)
        state.follow_plan()
        yield session
        await session.aclose()
        state.recorder.record(
            SessionSummaryRecord(
                created_at=time.time(),
                for_student="You bought bread.",
                for_teacher="Says buyed for bought.",
                source="records",
            )
        )
        assert await state.recorder.aclose(timeout_s=20.0) == 0
        assert state.recorder.stats.set_aside == state.recorder.stats.lost == 0


@contextmanager
def told(event: str) -> Iterator[asyncio.Event]:
    """Set when it is logged."""
    heard = asyncio.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == event:
                heard.set()

    configure_logging()
    logger, ear = logging.getLogger("emma_agent"), Ear()
    logger.addHandler(ear)
    try:
        yield heard
    finally:
        logger.removeHandler(ear)


async def test_a_lesson_that_is_changed_and_deleted_goes_on_and_is_recorded_to_its_end(
    school: School, tmp_path: Path
) -> None:
    answers = ["Hello!", "We shop.", "We travel."]
    rest = ("next_step", "next_slide", "next_step", "next_step", "finish_lesson", "next_step")
    after = [f"After {tool}, turn {number}." for number, tool in enumerate(rest)]
    steps = [step for tool, words in zip(rest, after, strict=True) for step in (use(tool), words)]
    model = ScriptedLLM(*answers, *steps)
    state = school.open("taught", tmp_path)
    async with held(state, model, tmp_path) as session:
        await session.run(user_input="What do we do today?")
        assert "title: At the market" in model.instructions()

        version = state.version
        await school.teacher("lessons:update", changes={"title": "At the station"})
        async with asyncio.timeout(20):
            await state.changed_since(version)
        await session.run(user_input="And now?")
        assert "title: At the station" in model.instructions()

        with told("lesson.deleted") as deleted:
            await school.teacher("lessons:remove")
            async with asyncio.timeout(20):
                await deleted.wait()
        for _ in rest:
            await session.run(user_input="Let us go on.")
        assert "title: At the station" in model.instructions()
        assert (state.step, state.slide, state.finished) == ("farewell", 1, True)

    client: AsyncConvexClient = state.client
    said: Any = await client.query("messages:list", {"sessionKey": "taught", "paginationOpts": ALL})
    by_emma = [row["text"] for row in said["page"] if row["role"] == "assistant"]
    assert by_emma == [*answers, *after]
    recorded: Any = await client.query("sessions:resumable", {"sessionKey": "taught"})
    assert (recorded["over"], recorded["step"], recorded["slide"]) == (True, "farewell", 1)
    await state.aclose()

    # The lesson is gone, and what was learnt in it is there in the next one.
    following = school.open("next", tmp_path)
    await following.ready(timeout_s=20.0)
    assert following.lesson is None
    assert "what happened in it: Says buyed for bought." in assemble(following.snapshot())
    await following.aclose()
