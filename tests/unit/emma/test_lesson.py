"""LessonState: who the student is, what is known of them, and what happens without Convex."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import pytest

from convex import ConvexError
from emma_agent.context import GUEST_PLAN
from emma_agent.lesson import LessonState, identify
from emma_agent.logs import configure_logging
from livekit.plugins.convex import AgentKey, AsyncConvexClient
from livekit.plugins.convex.testing import FakeConvex
from tests.support.wire import LESSON, PREFERENCES, plan, tutoring_context

KEY = AgentKey.generate()
STUDENT = '{"student_id": "student_1", "lesson_id": "lesson_1", "session_key": "s1"}'
CONTEXT = "students:tutoringContext"
RESUMABLE = "sessions:resumable"

Open = Callable[[str], LessonState]


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    configure_logging()
    caplog.set_level(logging.INFO, logger="emma_agent")
    return caplog


@pytest.fixture
async def convex(convex: FakeConvex) -> FakeConvex:
    """Nothing is there to go on with."""
    convex.on(RESUMABLE, lambda args: None)
    return convex


@pytest.fixture
async def open_lesson(convex: FakeConvex, tmp_path: Path) -> AsyncIterator[Open]:
    lessons: list[LessonState] = []

    def open_lesson(metadata: str) -> LessonState:
        lesson = LessonState.open(metadata, url=convex.url, key=KEY, outbox_dir=tmp_path)
        lessons.append(lesson)
        return lesson

    yield open_lesson
    for lesson in lessons:
        await lesson.aclose()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "emma_agent.lesson"]


def test_metadata_names_the_student() -> None:
    identity = identify('{"student_id": "k57", "session_key": "s1", "participant_identity": "web"}')
    assert (identity.student_id, identity.session_key) == ("k57", "s1")
    assert (identity.subject, identity.participant_identity) == ("student:k57", "web")


def test_without_metadata_it_is_a_guest_of_a_session_of_their_own(
    logs: pytest.LogCaptureFixture,
) -> None:
    first, second = identify(""), identify("")
    assert first.student_id is None
    assert first.subject == f"guest:{first.session_key}"
    assert first.session_key != second.session_key
    assert first.participant_identity is None


@pytest.mark.parametrize(
    "metadata",
    [
        "{student",
        '["k57"]',
        '{"student_id": 57}',
        '{"participant_identity": 57}',
        "[" * 50_000,
        '{"x": ' * 50_000,
        # No text in UTF-8: neither a token nor a record can carry it.
        '{"student_id": "k\\ud800"}',
        '{"session_key": "s\\udfff"}',
        '{"participant_identity": "\\ud800"}',
    ],
)
def test_metadata_that_cannot_be_read_makes_a_guest_and_one_line(
    logs: pytest.LogCaptureFixture, metadata: str
) -> None:
    assert identify(metadata).student_id is None
    assert events(logs) == ["lesson.metadata_unusable"]


async def test_the_context_is_there_before_the_lesson_starts(
    convex: FakeConvex, open_lesson: Open
) -> None:
    convex.on(CONTEXT, lambda args: tutoring_context())
    lesson = open_lesson(STUDENT)
    await lesson.ready()
    assert lesson.context is not None
    assert lesson.context.student.name == "Ana"
    assert lesson.plan == lesson.context.plan
    assert not lesson.degraded
    [call] = [call for call in convex.calls if call.function == CONTEXT]
    assert call.args == {"lessonId": "lesson_1", "sessionKey": "s1"}
    assert call.token is not None
    claims = jwt.decode(call.token, options={"verify_signature": False})
    assert (claims["sub"], claims["student_id"]) == ("student:student_1", "student_1")


async def test_a_guest_costs_no_call(convex: FakeConvex, open_lesson: Open) -> None:
    lesson = open_lesson("")
    await lesson.ready()
    lesson.follow_plan()
    assert (lesson.context, lesson.plan, lesson.degraded) == (None, GUEST_PLAN, False)
    await lesson.aclose()
    assert (convex.calls, convex.sockets) == ([], 0)


async def test_a_late_answer_completes_the_lesson_that_has_started(
    convex: FakeConvex, open_lesson: Open, logs: pytest.LogCaptureFixture
) -> None:
    answer = asyncio.Event()

    async def slow(args: object) -> object:
        await answer.wait()
        return tutoring_context()

    convex.on(CONTEXT, slow)
    lesson = open_lesson(STUDENT)
    await lesson.ready(timeout_s=0.05)
    assert (lesson.context, lesson.degraded) == (None, True)

    answer.set()
    await lesson.changed_since(0)

    assert lesson.context is not None
    assert not lesson.degraded
    assert events(logs) == ["lesson.context_late", "lesson.context_refreshed"]
    assert convex.call_count(CONTEXT) == 1


async def test_an_outage_is_said_once_and_the_answer_still_comes(
    convex: FakeConvex, logs: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            await convex.start()

    convex.on(CONTEXT, lambda args: tutoring_context())
    url = convex.url
    await convex.stop()
    lesson = LessonState(
        identify(STUDENT), AsyncConvexClient(url), outbox_dir=tmp_path, sleep=sleep
    )
    lesson.prefetch()
    await lesson.ready()
    assert (lesson.context, lesson.degraded) == (None, True)

    await lesson.changed_since(0)

    assert lesson.context is not None
    assert waits == [1.0, 2.0, 4.0]
    assert events(logs) == ["lesson.context_failed", "lesson.context_refreshed"]
    await lesson.aclose()


async def test_a_student_who_does_not_exist_is_a_guest_and_not_asked_for_again(
    convex: FakeConvex, open_lesson: Open, logs: pytest.LogCaptureFixture
) -> None:
    def unknown(args: object) -> object:
        raise ConvexError("no such student", {"code": "student_unknown", "message": "…"})

    convex.on(CONTEXT, unknown)
    lesson = open_lesson(STUDENT)
    await lesson.ready()
    assert (lesson.context, lesson.plan, lesson.degraded) == (None, GUEST_PLAN, False)
    assert events(logs) == ["lesson.student_unknown"]
    assert convex.call_count(CONTEXT) == 1


@pytest.mark.parametrize("answer", [None, tutoring_context(student={"name": "Ana-María"})])
async def test_an_answer_of_another_shape_is_as_none_and_shows_no_name(
    convex: FakeConvex, open_lesson: Open, logs: pytest.LogCaptureFixture, answer: object
) -> None:
    convex.on(CONTEXT, lambda args: answer)
    lesson = open_lesson(STUDENT)
    await lesson.ready()
    assert (lesson.context, lesson.degraded) == (None, True)
    assert events(logs) == ["lesson.context_failed"]
    assert "Ana-María" not in str([record.__dict__ for record in logs.records])


async def test_a_teachers_change_reaches_the_lesson(convex: FakeConvex, open_lesson: Open) -> None:
    convex.on(CONTEXT, lambda args: tutoring_context())
    await convex.set_value("sessions:plan", plan())
    lesson = open_lesson(STUDENT)
    await lesson.ready()
    lesson.follow_plan()
    version = lesson.version

    await convex.set_value("sessions:plan", plan(lesson={**LESSON, "title": "At the station"}))
    await lesson.changed_since(version)

    assert lesson.plan.lesson is not None
    assert lesson.plan.lesson.title == "At the station"


async def test_a_plan_that_did_not_change_wakes_nobody(
    convex: FakeConvex, open_lesson: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    convex.on(CONTEXT, lambda args: tutoring_context())
    lesson = open_lesson(STUDENT)
    await lesson.ready()
    version = lesson.version

    @asynccontextmanager
    async def subscribe(*args: object) -> AsyncIterator[AsyncIterator[object]]:
        async def updates() -> AsyncIterator[object]:
            slower = {**PREFERENCES, "speechRate": 0.8}
            for value in (plan(), plan(preferences=dict(PREFERENCES)), plan(preferences=slower)):
                yield value
            await asyncio.Event().wait()

        yield updates()

    monkeypatch.setattr(lesson.client, "subscribe", subscribe)
    lesson.follow_plan()

    assert await lesson.changed_since(version) == version + 1
    assert lesson.plan.preferences.speech_rate == 0.8


async def test_a_lesson_that_is_deleted_is_taught_to_its_end(
    convex: FakeConvex, open_lesson: Open, logs: pytest.LogCaptureFixture
) -> None:
    convex.on(CONTEXT, lambda args: tutoring_context())
    lesson = open_lesson(STUDENT)
    await lesson.ready()
    for rate in (0.8, 0.7):
        version = lesson.version
        preferences = {**PREFERENCES, "speechRate": rate}
        await convex.set_value("sessions:plan", plan(lesson=None, preferences=preferences))
        lesson.follow_plan()
        await lesson.changed_since(version)
    assert lesson.plan.lesson is not None
    assert lesson.plan.lesson.title == "At the market"
    assert lesson.plan.preferences.speech_rate == 0.7
    said = [record for record in logs.records if record.getMessage() == "lesson.deleted"]
    assert len(said) == 1


async def test_a_plan_that_cannot_be_read_leaves_the_last_one(
    convex: FakeConvex, logs: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    tried_again = asyncio.Event()

    async def sleep(seconds: float) -> None:
        tried_again.set()
        await asyncio.Event().wait()

    convex.on(CONTEXT, lambda args: tutoring_context())
    await convex.set_value("sessions:plan", {"preferences": "none"})
    lesson = LessonState(
        identify(STUDENT), AsyncConvexClient(convex.url), outbox_dir=tmp_path, sleep=sleep
    )
    lesson.prefetch()
    await lesson.ready()
    lesson.follow_plan()
    await tried_again.wait()
    assert lesson.plan.lesson is not None
    assert lesson.plan.lesson.title == "At the market"
    assert events(logs) == ["lesson.plan_unfollowed"]
    await lesson.aclose()


async def test_closing_ends_everything_and_may_be_repeated(
    convex: FakeConvex, open_lesson: Open
) -> None:
    convex.hang_next(CONTEXT)
    lesson = open_lesson(STUDENT)
    await lesson.ready(timeout_s=0.01)
    lesson.follow_plan()
    await lesson.aclose()
    await lesson.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("lesson.")]


async def test_a_closed_lesson_keeps_what_it_knows(convex: FakeConvex, open_lesson: Open) -> None:
    convex.on(CONTEXT, lambda args: tutoring_context())
    lesson = open_lesson(STUDENT)
    await lesson.ready()
    await lesson.aclose()
    assert lesson.identity.student_id == "student_1"
    assert lesson.context is not None
    assert lesson.session_key == "s1"
