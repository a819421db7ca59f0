"""LessonState where Convex does not answer in time: it knows what Convex knew the last time."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convex import ConvexError
from emma_agent import known_context
from emma_agent.context import GUEST_PLAN
from emma_agent.known_context import KEPT_FOR_S, KnownContext, keep, recall
from emma_agent.lesson import LessonState
from emma_agent.logs import configure_logging
from emma_agent.prompt import assemble
from livekit.plugins.convex import AgentKey
from livekit.plugins.convex.testing import FakeConvex
from tests.support.wire import LESSON, PREFERENCES, STUDENT, tutoring_context

KEY = AgentKey.generate()
CONTEXT = "students:tutoringContext"

Open = Callable[..., LessonState]


def metadata(**changes: object) -> str:
    known = {"student_id": "student_1", "lesson_id": "lesson_1", "session_key": "s2"} | changes
    return json.dumps({name: value for name, value in known.items() if value is not None})


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    configure_logging()
    caplog.set_level(logging.INFO, logger="emma_agent")
    return caplog


@pytest.fixture
async def convex(convex: FakeConvex) -> FakeConvex:
    convex.on("sessions:resumable", lambda args: None)
    convex.on(CONTEXT, lambda args: tutoring_context())
    return convex


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
async def open_lesson(convex: FakeConvex, outbox: Path) -> AsyncIterator[Open]:
    lessons: list[LessonState] = []

    def open_lesson(**changes: object) -> LessonState:
        lesson = LessonState.open(metadata(**changes), url=convex.url, key=KEY, outbox_dir=outbox)
        lessons.append(lesson)
        return lesson

    yield open_lesson
    for lesson in lessons:
        await lesson.aclose()


@pytest.fixture
def kept(convex: FakeConvex, outbox: Path) -> KnownContext:
    """What an hour ago another lesson was told."""
    known = KnownContext(
        deployment=convex.url,
        student_id="student_1",
        lesson_id="lesson_1",
        session_key="s1",
        kept_at=time.time() - 3_600,
        context=tutoring_context(),
    )
    keep(outbox, known)
    return known


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "emma_agent.lesson"]


def recalled(outbox: Path, convex: FakeConvex) -> KnownContext | None:
    return recall(outbox, student_id="student_1", deployment=convex.url)


async def eventually(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def names_in(outbox: Path) -> list[str]:
    return [path.name for path in outbox.iterdir()] if outbox.exists() else []


def in_the_way(path: Path) -> None:
    """A file where a directory is wanted."""
    path.write_text("no directory")


def say_nothing(convex: FakeConvex) -> asyncio.Event:
    """Convex is silent until the event is set."""
    answer = asyncio.Event()

    async def slow(args: object) -> object:
        await answer.wait()
        return tutoring_context()

    convex.on(CONTEXT, slow)
    return answer


def thrown(code: str) -> Callable[[object], Any]:
    def throw(args: object) -> Any:
        raise ConvexError("…", {"code": code, "message": "…"})

    return throw


# Kept


async def test_what_convex_told_is_kept_for_the_next_lesson(
    convex: FakeConvex, open_lesson: Open, outbox: Path, logs: pytest.LogCaptureFixture
) -> None:
    lesson = open_lesson(session_key="s1")
    await lesson.ready()
    await eventually(lambda: recalled(outbox, convex) is not None)
    known = recalled(outbox, convex)
    assert known is not None
    assert (known.lesson_id, known.session_key) == ("lesson_1", "s1")
    assert known.context == tutoring_context()
    assert time.time() - known.kept_at < 60
    assert not lesson.recalled
    assert events(logs) == []


async def test_the_event_loop_touches_no_file(
    convex: FakeConvex, open_lesson: Open, outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs would stop the sound of every lesson in this process."""
    loops: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                loops.append(f"{name} beside")
            else:
                loops.append(f"{name} on the loop")
            return function(*args, **kwargs)

        return called

    for name in ("keep", "recall", "forget"):
        monkeypatch.setattr(known_context, name, watched(name, getattr(known_context, name)))
    await open_lesson().ready()
    await eventually(lambda: recalled(outbox, convex) is not None)
    convex.on(CONTEXT, thrown("out_of_order"))
    await open_lesson().ready()
    convex.on(CONTEXT, thrown("student_unknown"))
    await open_lesson().ready()
    assert sorted(set(loops)) == ["forget beside", "keep beside", "recall beside"]


async def test_of_a_guest_nothing_is_kept(open_lesson: Open, outbox: Path) -> None:
    lesson = open_lesson(student_id=None)
    await lesson.ready()
    await lesson.aclose()
    assert names_in(outbox) == []


async def test_an_answer_that_cannot_be_read_is_not_kept(
    convex: FakeConvex, open_lesson: Open, outbox: Path, kept: KnownContext
) -> None:
    convex.on(CONTEXT, lambda args: {"student": None})
    lesson = open_lesson()
    await lesson.ready()
    await lesson.aclose()
    assert recalled(outbox, convex) == kept


async def test_a_disk_that_refuses_is_said_and_costs_nothing(
    open_lesson: Open, outbox: Path, logs: pytest.LogCaptureFixture
) -> None:
    in_the_way(outbox)
    lesson = open_lesson()
    await lesson.ready()
    assert lesson.context is not None
    await eventually(lambda: "lesson.context_not_kept" in events(logs))
    assert "Ana" not in str([record.__dict__ for record in logs.records])


# Used


async def test_without_an_answer_the_student_is_who_they_were(
    convex: FakeConvex,
    open_lesson: Open,
    kept: KnownContext,
    logs: pytest.LogCaptureFixture,
) -> None:
    await convex.stop()
    lesson = open_lesson()
    await lesson.ready()
    assert lesson.context is not None
    assert (lesson.context.student.name, lesson.context.student.level) == ("Ana", "A2")
    assert lesson.plan.preferences.correction_style == "every_error"
    assert [due.word for due in lesson.words_due] == ["receipt", "loaf"]
    assert lesson.lesson is not None
    assert lesson.lesson.title == "At the market"
    # And it is said that there may be more.
    assert (lesson.degraded, lesson.recalled) == (True, True)
    assert events(logs) == ["lesson.context_failed", "lesson.context_recalled"]
    assert "Ana" not in str([record.__dict__ for record in logs.records])


async def test_silence_is_as_good_as_an_error(
    convex: FakeConvex,
    open_lesson: Open,
    kept: KnownContext,
    logs: pytest.LogCaptureFixture,
) -> None:
    say_nothing(convex)
    lesson = open_lesson()
    await lesson.ready(timeout_s=0.3)
    assert lesson.context is not None
    assert (lesson.degraded, lesson.recalled) == (True, True)
    assert events(logs) == ["lesson.context_late", "lesson.context_recalled"]


async def test_a_disk_that_is_slower_than_the_refusal_is_waited_for(
    convex: FakeConvex,
    open_lesson: Open,
    kept: KnownContext,
    logs: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> KnownContext | None:
        go_on.wait(5)
        return recall(*args, **kwargs)

    monkeypatch.setattr(known_context, "recall", slow)
    await convex.stop()
    lesson = open_lesson()
    ready = asyncio.create_task(lesson.ready())
    await eventually(lambda: "lesson.context_failed" in events(logs))
    go_on.set()
    await ready
    assert lesson.recalled


async def test_emma_is_told_that_she_knows_an_earlier_day(
    convex: FakeConvex, open_lesson: Open, kept: KnownContext
) -> None:
    await convex.stop()
    lesson = open_lesson()
    await lesson.ready()
    told = assemble(lesson.snapshot())
    assert "The student, as last known; there may have been lessons since" in told
    for fact in ("name: Ana", "level: A2", "- receipt (recibo; Keep it.)", "- tense, 4 times"):
        assert fact in told
    # The lesson that was being held when it was kept, and not the one before.
    assert "last lesson: At the market" in told
    assert "Family" not in told


async def test_the_answer_completes_it_and_what_happened_meanwhile_stays(
    convex: FakeConvex,
    open_lesson: Open,
    kept: KnownContext,
    logs: pytest.LogCaptureFixture,
) -> None:
    answer = say_nothing(convex)
    lesson = open_lesson()
    await lesson.ready(timeout_s=0.3)
    lesson.rate_word("loaf", 3)
    lesson.set_preference(speech_rate=0.7)
    version = lesson.version

    answer.set()
    await lesson.changed_since(version)

    assert (lesson.degraded, lesson.recalled) == (False, False)
    assert lesson.context is not None
    assert lesson.context.last_session is not None
    assert lesson.context.last_session.lesson_title == "Family"
    assert [due.word for due in lesson.words_due] == ["receipt"]
    assert lesson.plan.preferences.speech_rate == 0.7
    assert "The student:" in assemble(lesson.snapshot())
    assert events(logs)[-1] == "lesson.context_refreshed"


async def test_a_word_that_is_not_due_any_more_goes_with_the_answer(
    convex: FakeConvex, open_lesson: Open, kept: KnownContext
) -> None:
    """It was reviewed in a lesson on another host; Convex schedules by the record's own time."""
    answer = asyncio.Event()

    async def slow(args: object) -> object:
        await answer.wait()
        return tutoring_context(wordsDue=[{"word": "receipt", "language": "en"}])

    convex.on(CONTEXT, slow)
    lesson = open_lesson()
    await lesson.ready(timeout_s=0.3)
    assert lesson.knows_word("loaf")
    assert lesson.rate_word("loaf", 3).language == "en"
    version = lesson.version
    answer.set()
    await lesson.changed_since(version)
    assert [due.word for due in lesson.words_due] == ["receipt"]
    assert lesson.rateable_in_s("loaf") > 0


async def test_of_another_lesson_the_student_is_used_and_not_the_lesson(
    convex: FakeConvex, open_lesson: Open, kept: KnownContext
) -> None:
    answer = asyncio.Event()
    station = {**LESSON, "lessonId": "lesson_2", "title": "At the station"}

    async def slow(args: object) -> object:
        await answer.wait()
        return tutoring_context(lesson=station)

    convex.on(CONTEXT, slow)
    lesson = open_lesson(lesson_id="lesson_2")
    await lesson.ready(timeout_s=0.3)
    assert lesson.lesson is None
    assert lesson.context is not None
    assert lesson.context.student.name == "Ana"
    assert lesson.language == "en"
    assert lesson.plan.preferences.speech_rate == PREFERENCES["speechRate"]
    assert "last lesson: At the market" in assemble(lesson.snapshot())
    version = lesson.version
    answer.set()
    await lesson.changed_since(version)
    assert lesson.lesson is not None
    assert lesson.lesson.title == "At the station"


async def test_a_job_that_goes_on_with_the_session_speaks_of_no_last_one(
    convex: FakeConvex, open_lesson: Open, outbox: Path
) -> None:
    now_ms = time.time() * 1000
    same = {"startedAt": now_ms, "messageCount": 4.0, "sessionKey": "s2"}
    keep(
        outbox,
        KnownContext(
            deployment=convex.url,
            student_id="student_1",
            lesson_id="lesson_1",
            session_key="s2",
            kept_at=time.time() - 30,
            context=tutoring_context(lastSession=same),
        ),
    )
    await convex.stop()
    lesson = open_lesson()
    await lesson.ready()
    assert lesson.context is not None
    assert lesson.context.last_session is None


async def test_an_answer_in_time_makes_it_needless(
    convex: FakeConvex, open_lesson: Open, kept: KnownContext
) -> None:
    convex.on(CONTEXT, lambda args: tutoring_context(student={**STUDENT, "name": "Anita"}))
    lesson = open_lesson()
    await lesson.ready()
    assert lesson.context is not None
    assert lesson.context.student.name == "Anita"
    assert (lesson.degraded, lesson.recalled) == (False, False)


def expired(outbox: Path, kept: KnownContext) -> None:
    keep(outbox, replace(kept, kept_at=time.time() - KEPT_FOR_S - 60))


def from_tomorrow(outbox: Path, kept: KnownContext) -> None:
    keep(outbox, replace(kept, kept_at=time.time() + 86_400))


def of_other_functions(outbox: Path, kept: KnownContext) -> None:
    keep(outbox, replace(kept, context={"student": {"name": "Ana"}}))


def damaged(outbox: Path, kept: KnownContext) -> None:
    [path] = outbox.iterdir()
    path.write_bytes(path.read_bytes().replace(b"Ana", b"Bna"))


def no_file(outbox: Path, kept: KnownContext) -> None:
    [path] = outbox.iterdir()
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [expired, from_tomorrow, of_other_functions, damaged])
async def test_what_is_of_no_use_makes_a_guests_lesson(
    convex: FakeConvex,
    open_lesson: Open,
    outbox: Path,
    kept: KnownContext,
    spoil: Callable[[Path, KnownContext], None],
    logs: pytest.LogCaptureFixture,
) -> None:
    spoil(outbox, kept)
    await convex.stop()
    lesson = open_lesson()
    await lesson.ready()
    assert (lesson.context, lesson.plan) == (None, GUEST_PLAN)
    assert (lesson.degraded, lesson.recalled) == (True, False)
    assert events(logs) == ["lesson.context_failed"]


async def test_a_file_that_cannot_be_read_makes_a_guests_lesson_and_is_said(
    convex: FakeConvex,
    open_lesson: Open,
    outbox: Path,
    kept: KnownContext,
    logs: pytest.LogCaptureFixture,
) -> None:
    no_file(outbox, kept)
    await convex.stop()
    lesson = open_lesson()
    await lesson.ready()
    assert lesson.context is None
    assert "lesson.context_unreadable" in events(logs)


# Erased


async def test_a_student_whom_convex_does_not_know_leaves_nothing_here(
    convex: FakeConvex, open_lesson: Open, outbox: Path, kept: KnownContext
) -> None:
    keep(outbox, replace(kept, deployment="https://other.convex.cloud"))
    keep(outbox, replace(kept, student_id="student_2", context={}))
    convex.on(CONTEXT, thrown("student_unknown"))
    lesson = open_lesson()
    await lesson.ready()
    assert (lesson.context, lesson.plan, lesson.degraded) == (None, GUEST_PLAN, False)
    assert len(names_in(outbox)) == 1
    assert recall(outbox, student_id="student_2", deployment=convex.url) is not None


async def test_a_student_who_proves_to_be_erased_is_not_known_any_more(
    convex: FakeConvex, open_lesson: Open, outbox: Path, kept: KnownContext
) -> None:
    """The lesson began with what was known here; then Convex answers."""
    answer = asyncio.Event()

    async def slow(args: object) -> object:
        await answer.wait()
        return thrown("student_unknown")(args)

    convex.on(CONTEXT, slow)
    lesson = open_lesson()
    await lesson.ready(timeout_s=0.3)
    assert lesson.context is not None
    version = lesson.version

    answer.set()
    await lesson.changed_since(version)

    assert lesson.snapshot().context is None
    assert (lesson.recalled, lesson.degraded) == (False, False)
    # What is taught names nobody, and goes on.
    assert lesson.lesson is not None
    assert lesson.plan.preferences == GUEST_PLAN.preferences
    assert "Ana" not in assemble(lesson.snapshot())
    await eventually(lambda: names_in(outbox) == [])


async def test_a_student_who_is_erased_while_the_lesson_is_held_leaves_nothing_here(
    convex: FakeConvex, open_lesson: Open, outbox: Path, kept: KnownContext
) -> None:
    lesson = open_lesson()
    await lesson.ready()
    await eventually(lambda: recalled(outbox, convex) != kept)
    convex.on("sessions:plan", thrown("student_unknown"))
    lesson.follow_plan()
    await eventually(lambda: names_in(outbox) == [])
