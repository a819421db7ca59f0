"""The lessons that ship with the project, held whole and in text, and what Convex has of them then.

A scripted model speaks for Emma; what the student says are the accepted answers.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from convex.http_client import ConvexHttpClient
from livekit import rtc
from livekit.agents.testing import fake_job_context

from emma_agent.context import Exercise, Lesson
from emma_agent.convex_local import ConvexLocal
from emma_agent.lesson import LessonState
from emma_agent.records import (
    ExerciseRecord,
    LessonFinishedRecord,
    SlideShownRecord,
    WordIntroducedRecord,
    WordReviewedRecord,
)
from emma_agent.school import Administrator, import_lessons, shipped_lessons
from emma_agent.tutor import Tutor
from livekit.plugins.convex import AgentToken, AsyncConvexClient, Record, SessionRecorder
from tests.support.lessons import text_session
from tests.support.scripted_llm import ScriptedLLM

SETTLED_WITHIN_S = 30.0
ALL: Any = {"numItems": 200.0, "cursor": None}


@dataclass(frozen=True)
class School:
    """A deployment with the shipped lessons, and a student who takes their course."""

    local: ConvexLocal
    operator: Administrator
    student_id: str

    def client(self) -> AsyncConvexClient:
        """Asks as the student's agent."""
        subject = f"student:{self.student_id}"
        token = AgentToken(self.local.agent_key, subject=subject, student_id=self.student_id)
        return AsyncConvexClient(self.local.url, token=token, timeout_s=20.0)


@pytest.fixture(scope="module")
def school() -> Iterator[School]:
    with ConvexLocal.start() as local:
        operator = Administrator(local.url, local.admin_key)
        import_lessons(operator, shipped_lessons())
        invited: Any = operator.mutation(
            "users:addAdministrator", {"name": "Head", "email": "head@school.invalid"}
        )
        head = ConvexHttpClient(local.url)
        now = int(time.time())
        identity = {"iss": local.agent_key.issuer, "aud": "convex", "sub": "head"}
        head.set_auth(local.agent_key.sign({**identity, "iat": now, "exp": now + 600}))
        head.mutation("users:accept", {"code": invited["invitationCode"]})
        courses = head.query("lessons:listCourses", {"paginationOpts": ALL})
        student_id: str = head.mutation(
            "students:create",
            {
                "name": "Ana",
                "level": "A2",
                "nativeLanguage": "es",
                "targetLanguage": "en",
                "timeZone": "Europe/Madrid",
                "goals": [],
                "interests": [],
                "courseId": courses["page"][0]["courseId"],
            },
        )
        yield School(local, operator, student_id)


@pytest.fixture
async def client(school: School) -> AsyncIterator[AsyncConvexClient]:
    async with school.client() as client:
        yield client


@dataclass(frozen=True)
class Turn:
    """What Emma says, and what the student answers: to an exercise, if it is one."""

    slide: int
    emma: str
    student: str
    exercise: Exercise | None = None


def turns_of(lesson: Lesson) -> list[Turn]:
    """Slide after slide: Emma shows it, then asks its exercises."""
    turns: list[Turn] = []
    for number, slide in enumerate(lesson.slides):
        turns.append(Turn(number, slide.text, "I see."))
        for exercise in lesson.exercises:
            if exercise.slide == number:
                answer = next(iter(exercise.answers), "Let me tell you about it.")
                turns.append(Turn(number, exercise.prompt, answer, exercise))
    return turns


async def hold(school: School, lesson_id: str, directory: Path) -> tuple[str, Lesson]:
    """Hold the lesson whole; the session's key, and the lesson as the tutor had it."""
    key = f"session-{uuid.uuid4().hex}"
    metadata = json.dumps(
        {"student_id": school.student_id, "lesson_id": lesson_id, "session_key": key}
    )
    state = LessonState.open(
        metadata,
        url=school.local.url,
        key=school.local.agent_key,
        outbox_dir=directory / "outbox",
    )
    await state.ready(timeout_s=20.0)
    lesson = state.plan.lesson
    assert lesson is not None
    turns = turns_of(lesson)
    session = text_session(state, ScriptedLLM(*(turn.emma for turn in turns), "Goodbye!"))
    with fake_job_context(room=rtc.Room(), job_id="AJ_1", job_metadata=metadata) as ctx:
        recorder = SessionRecorder.attach(
            session,
            ctx=ctx,
            client=state.client,
            identity=state.identity,
            outbox_dir=directory / "outbox",
            agent_name="emma",
            end_job_on_close=False,
        )
        # Her first answer is the greeting: it shows the first slide.
        await session.start(Tutor(state), capture_run=True)
        shown = -1
        for turn in turns:
            if turn.slide != shown:
                shown = turn.slide
                note(recorder, SlideShownRecord(created_at=time.time(), slide=shown))
                await expect_slide(recorder, state.client, key, lesson, shown)
            await session.run(user_input=turn.student)
            if turn.exercise is not None:
                note(recorder, result_of(turn.exercise, turn.student))
        for word in lesson.target_words:
            note(recorder, WordIntroducedRecord(created_at=time.time(), word=word, language="en"))
            note(
                recorder,
                WordReviewedRecord(created_at=time.time(), word=word, language="en", rating=3),
            )
        note(recorder, LessonFinishedRecord(created_at=time.time()))
        await session.aclose()
        assert await recorder.aclose(timeout_s=20.0) == 0
        assert recorder.stats.set_aside == recorder.stats.lost == 0
    await state.aclose()
    return key, lesson


def note(recorder: SessionRecorder, record: Record) -> None:
    assert recorder.record(record) is not None


def result_of(exercise: Exercise, answer: str) -> ExerciseRecord:
    score = 1.0 if answer in exercise.answers else 0.5
    return ExerciseRecord(
        created_at=time.time(), exercise_id=exercise.exercise_id, score=score, answer=answer
    )


async def expect_slide(
    recorder: SessionRecorder, client: AsyncConvexClient, key: str, lesson: Lesson, number: int
) -> None:
    """What the student's page shows now."""
    assert await recorder.flush(timeout_s=20.0) == 0
    slide = lesson.slides[number]
    assert await client.query("presentations:current", {"sessionKey": key}) == {
        "index": number,
        "count": len(lesson.slides),
        "slide": {"title": slide.title, "text": slide.text},
    }


async def settled(client: AsyncConvexClient, lesson_id: str) -> None:
    """Until the student's page has the lesson: when it ends, since nobody will resume it.

    One that might be resumed is settled after 15 minutes.
    """
    asked = {"lessonId": lesson_id}
    async with (
        asyncio.timeout(SETTLED_WITHIN_S),
        client.subscribe("progress:ofLesson", asked) as progress,
    ):
        async for row in progress:
            if row is not None:
                return


async def next_lesson(client: AsyncConvexClient) -> dict[str, Any]:
    answer: Any = await client.query("lessons:next")
    assert isinstance(answer, dict)
    return answer


async def pages(client: AsyncConvexClient, function: str, **args: Any) -> list[dict[str, Any]]:
    """The rows of a list that fits into one page."""
    answer: Any = await client.query(function, {**args, "paginationOpts": ALL})
    assert answer["isDone"]
    return list(answer["page"])


async def words_in(client: AsyncConvexClient, state: str) -> set[str]:
    return {row["word"] for row in await pages(client, "vocabulary:byState", state=state)}


async def expect_held(client: AsyncConvexClient, key: str, lesson: Lesson) -> None:
    """The rows that a whole lesson leaves."""
    session: Any = await client.query("sessions:get", {"sessionKey": key})
    said = await pages(client, "messages:list", sessionKey=key)
    assert (session["status"], session["messageCount"]) == ("ended", len(said))
    by_emma = {row["text"] for row in said if row["role"] == "assistant"}
    assert {slide.text for slide in lesson.slides} <= by_emma
    assert {exercise.prompt for exercise in lesson.exercises} <= by_emma

    results = await pages(client, "progress:exerciseResults")
    scores = {row["exerciseId"]: row["score"] for row in results}
    assert {one.exercise_id: 1.0 if one.answers else 0.5 for one in lesson.exercises}.items() <= (
        scores.items()
    )
    # Reviewed once and known: none is new any more.
    known = await words_in(client, "learning") | await words_in(client, "review")
    assert set(lesson.target_words) <= known
    assert await words_in(client, "new") == set()

    progress: Any = await client.query("progress:ofLesson", {"lessonId": lesson.lesson_id})
    assert (progress["status"], progress["timesStudied"]) == ("completed", 1)


async def test_both_lessons_are_held_whole_one_after_the_other(
    school: School, client: AsyncConvexClient, tmp_path: Path
) -> None:
    words: set[str] = set()
    for slug in ("a2-at-the-doctors", "b1-a-job-interview"):
        offered = (await next_lesson(client))["lesson"]
        assert offered["slug"] == slug

        key, lesson = await hold(school, offered["lessonId"], tmp_path)
        await settled(client, lesson.lesson_id)

        await expect_held(client, key, lesson)
        words |= set(lesson.target_words)

    assert await next_lesson(client) == {"lesson": None, "reason": "all_completed"}
    known = await words_in(client, "learning") | await words_in(client, "review")
    assert known == words
    profile: Any = await client.query("students:profile", {"today": time.strftime("%Y-%m-%d")})
    assert profile["totals"]["sessions"] == 2
