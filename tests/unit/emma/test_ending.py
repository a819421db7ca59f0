"""After the farewell she ends the lesson: never in somebody's word, and never before the goodbye."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession, CloseEvent, JobContext, RunResult, UserStateChangedEvent
from livekit.agents.testing import fake_job_context

from emma_agent import ending
from emma_agent.ending import LESSON_OVER, Ending
from emma_agent.lesson import LessonState
from emma_agent.records import Step
from emma_agent.tutor import Tutor
from tests.support.lessons import known_student, lesson_of, text_session
from tests.support.scripted_llm import Answer, Said, ScriptedLLM
from tests.support.talking import Pen, outputs_of, use
from tests.support.waits import Waits

WANTED, ANSWERED, SILENT = ending._ASKED_S, ending._ANSWERED_S, ending._SILENT_S


class ReasonedPen(Pen):
    """A recorder as far as an end goes."""

    def __init__(self) -> None:
        super().__init__()
        self.reason: str | None = None

    def ends_because(self, reason: str) -> None:
        self.reason = reason


class Farewell:
    """A lesson in its farewell, with time in the test's hands."""

    def __init__(self, session: AgentSession[LessonState], waits: Waits, pen: ReasonedPen) -> None:
        self.session = session
        self.waits = waits
        self.pen = pen
        self.closed = asyncio.Event()
        session.on("close", self._on_close)

    async def write(self, text: str) -> list[str]:
        """What she answers."""
        result: RunResult[None] = await self.session.run(user_input=text)
        return [event.item.text_content or "" for event in result.events if event.type == "message"]

    async def silence(self) -> None:
        """As long as she waits for."""
        await self.waits.end_the_next()
        async with asyncio.timeout(5.0):
            await self.closed.wait()

    def _on_close(self, _: CloseEvent) -> None:
        self.closed.set()


@pytest.fixture
def deleted() -> list[str]:
    return []


@pytest.fixture
async def room() -> rtc.Room:
    return rtc.Room()


@pytest.fixture
def ctx(
    monkeypatch: pytest.MonkeyPatch, deleted: list[str], room: rtc.Room
) -> Iterator[JobContext]:
    def delete_room(room_name: str | None = None) -> asyncio.Future[Any]:
        deleted.append("room")
        return asyncio.Future()

    with fake_job_context(room=room) as ctx:
        monkeypatch.setattr(ctx, "delete_room", delete_room)
        yield ctx


@asynccontextmanager
async def farewell(
    ctx: JobContext, *answers: Answer, step: Step = "farewell"
) -> AsyncIterator[Farewell]:
    lesson = lesson_of(known_student())
    lesson.step = step
    pen = ReasonedPen()
    lesson.recorder = pen  # type: ignore[assignment]
    waits = Waits()
    async with text_session(lesson, ScriptedLLM(*answers)) as session:
        Ending(lesson, session, ctx, sleep=waits.sleep)
        await session.start(Tutor(lesson), capture_run=True)
        yield Farewell(session, waits, pen)
    await lesson.aclose()


async def test_a_student_who_says_nothing_more_ends_the_lesson(
    ctx: JobContext, deleted: list[str]
) -> None:
    async with farewell(ctx, "Goodbye!") as lesson:
        assert (lesson.pen.reason, deleted) == (None, [])
        await lesson.silence()
    assert (lesson.pen.reason, deleted) == (LESSON_OVER, ["room"])
    assert lesson.waits.begun[-1] == SILENT


async def test_a_student_who_goes_on_talking_is_answered(
    ctx: JobContext, deleted: list[str]
) -> None:
    async with farewell(ctx, "Goodbye!", "A plum is a fruit.", "See you.") as lesson:
        assert await lesson.write("What is a plum?") == ["A plum is a fruit."]
        assert await lesson.write("Thank you, bye.") == ["See you."]
        assert deleted == []
        await lesson.silence()
    assert (lesson.waits.begun[-1], deleted) == (ANSWERED, ["room"])


async def test_when_both_have_said_goodbye_she_ends_it(ctx: JobContext, deleted: list[str]) -> None:
    async with farewell(ctx, "Goodbye!", use("end_lesson"), "Bye, Ana!") as lesson:
        assert await lesson.write("Bye!") == ["Bye, Ana!"]
        assert deleted == []
        await lesson.silence()
        said = [message.text_content for message in lesson.session.history.messages()]
    assert (lesson.waits.begun[-1], deleted) == (WANTED, ["room"])
    assert said == ["Goodbye!", "Bye!", "Bye, Ana!"]


async def test_who_then_speaks_up_takes_the_end_back(ctx: JobContext, deleted: list[str]) -> None:
    answers: list[Answer] = ["Goodbye!", use("end_lesson"), "Bye!", "Yes?"]
    async with farewell(ctx, *answers) as lesson:
        await lesson.write("Bye!")
        assert await lesson.write("Wait, one more question.") == ["Yes?"]
        assert not lesson.session.userdata.end_wanted
        await lesson.silence()
    assert lesson.waits.begun[-1] == ANSWERED


async def test_nothing_ends_while_somebody_speaks(ctx: JobContext, deleted: list[str]) -> None:
    async with farewell(ctx, "Goodbye!") as lesson:
        await lesson.waits.begins()
        waited = len(lesson.waits.begun)
        lesson.session._update_user_state("speaking")
        await asyncio.sleep(0)
        assert lesson.waits.running() == 0
        lesson.session._update_user_state("listening")
        await lesson.waits.begins()
        assert len(lesson.waits.begun) == waited + 1
        # LiveKit's word for the same silence begins none of its own.
        lesson.session.emit(
            "user_state_changed", UserStateChangedEvent(old_state="listening", new_state="away")
        )
        await asyncio.sleep(0)
        assert len(lesson.waits.begun) == waited + 1


async def test_no_other_part_of_the_lesson_ends_it(ctx: JobContext, deleted: list[str]) -> None:
    async with farewell(ctx, "What went well?", "Good.", step="feedback") as lesson:
        await lesson.write("All of it.")
    assert (lesson.waits.begun, lesson.pen.reason, deleted) == ([], None, [])


async def test_a_session_that_closes_by_itself_leaves_the_room(
    ctx: JobContext, deleted: list[str]
) -> None:
    """As when the student's page is reloaded in the farewell: they come back into it."""
    async with farewell(ctx, "Goodbye!") as lesson:
        await lesson.waits.begins()
    await asyncio.sleep(0)
    assert (lesson.pen.reason, deleted, lesson.waits.running()) == (None, [], 0)


async def test_before_the_farewell_the_tool_says_what_to_do() -> None:
    lesson = lesson_of(known_student())
    [refused] = await outputs_of(lesson, use("end_lesson"), "Let us go on.")
    assert refused.is_error
    assert "is in its greeting; go through its parts with next_step" in refused.output
    assert not lesson.end_wanted


async def test_who_has_not_said_goodbye_yet_is_told_to() -> None:
    lesson = lesson_of(known_student())
    lesson.step = "farewell"
    [output] = await outputs_of(lesson, use("end_lesson"), "Bye!", said="Bye!")
    assert json.loads(output.output)["next"] == "say goodbye in one short sentence"
    assert lesson.end_wanted


async def test_a_goodbye_that_comes_with_the_call_is_not_said_twice() -> None:
    lesson = lesson_of(known_student())
    lesson.step = "farewell"
    model = ScriptedLLM("Goodbye!", Said("See you!", "end_lesson"), "Bye again!")
    async with text_session(lesson, model) as session:
        await session.start(Tutor(lesson), capture_run=True)
        await session.run(user_input="Bye!")
        said = [message.text_content for message in session.history.messages()]
    await lesson.aclose()
    assert said == ["Goodbye!", "Bye!", "See you!"]
    assert lesson.end_wanted
