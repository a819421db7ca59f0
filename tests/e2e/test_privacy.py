"""What a student says, their name and what is noted of them is in the outbox and in Convex alone.

A whole lesson with every tool, a model that fails and errs, the chattiest logs, and an operator who
collects traces and metrics. Every personal text begins with the same letters, and then everything
that the worker and its jobs have written is searched for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import stat
import sys
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
from tests.support.school import NEW_LESSON, NEW_STUDENT, SLIDES, Staff, Wire
from tests.support.scripted_server import Failure, ScriptedServer, Tool
from tests.support.writing_student import WritingStudent

pytestmark = pytest.mark.timeout(300)

# In no word of any language, and in no id.
MARK = "qxzj"


def personal(text: str) -> str:
    return f"{MARK}{text}"


STUDENT = {
    **NEW_STUDENT,
    "name": personal("name"),
    "goals": [personal("goal")],
    "interests": [personal("interest")],
}
EXERCISE = {"exerciseId": "e1", "kind": "say", "prompt": "Say it.", "answers": []}
SAID = tuple(personal(f"said{number} I goed there.") for number in range(1, 10))


def use(name: str, **arguments: object) -> Tool:
    return Tool(name, json.dumps(arguments))


CORRECTION = {
    "said": personal("goed"),
    "target": personal("went"),
    "severity": "major",
    "explanation": personal("explanation"),
}
# One line for what Emma does about one sentence of the student.
TURNS: tuple[tuple[str | Tool | Failure, ...], ...] = (
    (use("get_student_profile"), use("get_lesson_plan"), use("get_progress"), "I know you."),
    (
        use("note_correction", error_type="tense", **CORRECTION),
        use("note_correction", error_type=personal("no such type"), **CORRECTION),
        personal("went, you mean."),
    ),
    (
        use("introduce_word", word=personal("word"), meaning=personal("meaning"), example="e"),
        use("rate_word", word=personal("word"), rating="hard"),
        use("rate_word", word=personal("unknown"), rating="hard"),
        Tool("introduce_word", f'{{"word": {personal("broken")}'),
        "A new word.",
    ),
    (Failure(500, f"cannot process {personal('failure')}"), "I am back."),
    (use("set_preference", speed="slower"), use("next_step"), "The slides."),
    (use("next_slide"), use("next_step"), "Now practise."),
    (use("record_answer", exercise_id="e1", answer=personal("answer"), result="right"), "Right."),
    (use("next_step"), "You did well."),
    (use("finish_lesson"), use("next_step"), f"Goodbye, {personal('name')}."),
)
SUMMARY = json.dumps({"student": personal("summary for you"), "teacher": personal("summary of it")})


@dataclass(frozen=True)
class Lesson:
    """What was written where."""

    directory: Path
    endpoints: dict[str, str]
    in_convex: str
    models: ScriptedServer


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    return asyncio.run(hold(tmp_path_factory.mktemp("privacy")))


async def hold(directory: Path) -> Lesson:
    server = LiveKitServer.choose(ROOT)
    answers = [f"Hello, {personal('name')}.", *(answer for turn in TURNS for answer in turn)]
    (directory / "metrics").mkdir()
    async with (
        ScriptedServer(*answers, summary=SUMMARY) as models,
        ConvexLocal.start(db=directory / "convex.sqlite3") as convex,
        aiohttp.ClientSession() as http,
        contextlib.AsyncExitStack() as stack,
    ):

        def child(name: str, command: list[str], env: dict[str, str]) -> Child:
            child = Child(name, command, env=env, log=directory / f"{name}.log")
            stack.push_async_callback(child.stop, grace_s=10.0)
            return child

        child("livekit", server.command, {**clean_environment(), **server.env})
        await until_it_answers(http, server.health_url)
        wire = Wire(convex.url, key=convex.agent_key, admin_key=convex.admin_key)
        student_id, lesson_id = await asyncio.to_thread(prepare, wire)
        worker = child(
            "worker",
            [sys.executable, "-m", "emma_agent", "dev"],
            {
                **clean_environment(),
                "CONVEX_URL": convex.url,
                "CONVEX_AGENT_KEY": convex.agent_key.pem(),
                "LIVEKIT_URL": server.url,
                "LIVEKIT_API_KEY": server.api_key,
                "LIVEKIT_API_SECRET": server.api_secret,
                "OPENAI_BASE_URL": models.url,
                "EMMA_OUTBOX_DIR": str(directory / "outbox"),
                "EMMA_TURN_DETECTION": "vad",
                "EMMA_LOG_LEVEL": "DEBUG",
                # Whoever looks for a fault turns on all there is.
                "OPENAI_LOG": "debug",
                "LK_OPENAI_DEBUG": "1",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
                "PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics"),
                "PYTHONPATH": str(ROOT / "tests" / "support" / "traced"),
                "TRACED_SPANS": str(directory / "spans.jsonl"),
            },
        )
        await worker.wait_for(lambda: b"registered worker" in worker.log.read_bytes(), timeout_s=90)
        session_key = f"privacy-{secrets.token_hex(8)}"
        ticket = Ticket.issue(
            url=server.url,
            api_key=server.api_key,
            api_secret=server.api_secret,
            room=session_key,
            identity="student",
            agent_name="emma",
            metadata={
                "student_id": student_id,
                "lesson_id": lesson_id,
                "session_key": session_key,
            },
        )
        token = AgentToken(convex.agent_key, subject=f"student:{student_id}", student_id=student_id)
        async with (
            AsyncConvexClient(convex.url, token=token) as client,
            LiveLesson.follow(client, session_key) as live,
        ):
            async with WritingStudent.join(ticket) as student:
                await student.read()
                for sentence in SAID[: len(TURNS)]:
                    await student.write(sentence)
                    await student.read()
            await live.until(
                lambda now: now.session is not None and now.session.status == "ended",
                timeout_s=30,
            )
            endpoints = await asked(http, worker)
            in_convex = str([await client.query("students:tutoringContext", {}), live.rows])
    return Lesson(directory, endpoints, in_convex, models)


def prepare(wire: Wire) -> tuple[str, str]:
    """A student and a lesson with slides and an exercise."""
    root = Staff(wire).tokens["administrator"]

    def do(function: str, args: dict[str, Any]) -> Any:
        return wire.value(function, args, authorization=root)

    student_id = do("students:create", STUDENT)
    made = do("lessons:create", {**NEW_LESSON, "exercises": [EXERCISE]})
    lesson_id = made["lessonId"]
    do("presentations:create", {"lessonId": lesson_id, "title": "Market", "slides": SLIDES})
    do("lessons:publish", {"lessonId": lesson_id})
    return str(student_id), str(lesson_id)


async def asked(http: aiohttp.ClientSession, worker: Child) -> dict[str, str]:
    """What the worker's own HTTP server answers."""
    listening = {
        each.laddr.port
        for each in psutil.Process(worker.pid).net_connections("tcp4")
        if each.status == psutil.CONN_LISTEN
    }
    answers = {}
    for port in listening:
        for path in ("/", "/worker"):
            async with http.get(f"http://127.0.0.1:{port}{path}") as reply:
                answers[path] = await reply.text()
    return answers


def lines_with_mark(path: Path) -> list[str]:
    text = path.read_bytes().decode(errors="replace")
    return [line[:400] for line in text.splitlines() if MARK in line]


def test_the_lesson_was_held_with_all_its_tools(lesson: Lesson) -> None:
    """Else nothing was there to be written down."""
    assert lesson.models.left == ()
    for text in (personal("name"), *SAID[: len(TURNS)]):
        assert text in lesson.in_convex
    database = b"".join(path.read_bytes() for path in lesson.directory.glob("convex.sqlite3*"))
    for text in ("goed", "went", "explanation", "word", "meaning", "answer", "summary of it"):
        assert personal(text).encode() in database, text


def test_no_log_holds_it(lesson: Lesson) -> None:
    for log in lesson.directory.glob("*.log"):
        assert lines_with_mark(log) == [], log.name
    worker = (lesson.directory / "worker.log").read_text(encoding="utf-8")
    assert "DEBUG" in worker
    assert "session.closed" in worker


def test_no_trace_holds_it(lesson: Lesson) -> None:
    spans = lesson.directory / "spans.jsonl"
    names = {json.loads(line)["name"] for line in spans.read_text(encoding="utf-8").splitlines()}
    assert {"llm_request", "function_tool"} <= names
    assert lines_with_mark(spans) == []


def test_no_metric_holds_it(lesson: Lesson) -> None:
    files = [path for path in (lesson.directory / "metrics").iterdir() if path.is_file()]
    assert files
    assert b"lk_agents" in b"".join(path.read_bytes() for path in files)
    for path in files:
        assert lines_with_mark(path) == [], path.name
    assert "emma" in lesson.endpoints["/worker"]
    for name, answer in lesson.endpoints.items():
        assert MARK not in answer, name


def test_nothing_else_on_the_disk_holds_it(lesson: Lesson) -> None:
    """No journal is left once it is delivered; what was last known of the student is for a week."""
    kept = {
        path.relative_to(lesson.directory).as_posix()
        for path in lesson.directory.rglob("*")
        if path.is_file() and lines_with_mark(path)
    }
    [known] = {name for name in kept if not name.startswith("convex.sqlite3")}
    path = lesson.directory / known
    assert (path.parent.name, path.suffix) == ("outbox", ".context")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # As the lesson began: nothing that was said in it.
    written = path.read_text(encoding="ascii")
    assert personal("name") in written
    assert not [said for said in SAID if said in written]
