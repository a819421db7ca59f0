"""A student is erased and exported through the project's real functions, by the command line."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emma_agent import cli
from emma_agent.convex_local import ConvexLocal
from emma_agent.erasure import Receipt, erase
from emma_agent.export import rows_of
from emma_agent.lesson import LessonState
from emma_agent.school import Administrator
from emma_agent.settings import get_settings
from livekit.plugins.convex import (
    AgentToken,
    AsyncConvexClient,
    ErasedError,
    Outbox,
    Recovery,
    SweepReport,
    deliver_dead_journals,
)
from livekit.plugins.convex.delivery import Delivery
from livekit.plugins.convex.journal import FORMAT, Header
from livekit.plugins.convex.limits import MAX_TEXT_BYTES, RECORD_VERSION
from livekit.plugins.convex.records import (
    MessageRecord,
    RunEndedRecord,
    SessionStartedRecord,
    ToolCallRecord,
)

STUDENT = "Carlos"


class School:
    """A deployment with the demo's student in it, and what its database holds."""

    def __init__(self, local: ConvexLocal, db: Path) -> None:
        self.local = local
        self.administrator = Administrator(local.url, local.admin_key)
        self._db = db

    def student(self) -> str:
        """The demo's student, who is made anew once they were erased, with a lesson behind them."""
        prefix = {"sessionKeyPrefix": f"demo-{uuid.uuid4().hex}"}
        seeded: Any = self.administrator.mutation("seed:demo", prefix)
        return str(seeded["studentId"])

    def naming(self, words: str) -> list[str]:
        """Every document with these words: of all tables, and of Convex's own beside them."""
        # The server holds its files for itself; a copy is nobody's.
        with tempfile.TemporaryDirectory() as directory:
            for file in self._db.parent.glob(f"{self._db.name}*"):
                shutil.copy(file, directory)
            with contextlib.closing(sqlite3.connect(f"{directory}/{self._db.name}")) as database:
                query = "SELECT json FROM docs WHERE instr(json, ?)"
                return [document for (document,) in database.execute(query, (words,))]


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    db = tmp_path_factory.mktemp("convex") / "convex.sqlite3"
    with ConvexLocal.start(db=db, env={"ERASURE_KEY": "0123456789abcdef" * 4}) as local:
        yield School(local, db)


class Lesson:
    """A run of the student's: its journal, and its delivery."""

    def __init__(self, school: School, directory: Path, student_id: str) -> None:
        subject = f"student:{student_id}"
        token = AgentToken(school.local.agent_key, subject=subject, student_id=student_id)
        self.client = AsyncConvexClient(school.local.url, token=token, timeout_s=20.0)
        self.key = f"lesson-{uuid.uuid4().hex}"
        header = Header(
            format=FORMAT,
            record_version=RECORD_VERSION,
            run_id=uuid.uuid4().hex,
            session_key=self.key,
            subject=subject,
            student_id=student_id,
            deployment=school.local.url,
            started_at_ms=time.time() * 1000,
            steady_at_ms=0.0,
        )
        self.outbox = Outbox.open(directory, header)
        self.delivery = Delivery(self.outbox, self.client)
        self.outbox.append(
            SessionStartedRecord(
                created_at=time.time(),
                session_key=self.key,
                room="room",
                job_id="AJ_test",
                agent_name="emma",
            )
        )

    def say(self, text: str) -> None:
        self.outbox.append(
            MessageRecord(
                created_at=time.time(),
                item_id=uuid.uuid4().hex,
                role="user",
                text=text,
                interrupted=False,
            )
        )

    async def aclose(self) -> None:
        await self.delivery.aclose(0.0)
        await self.client.aclose()


@pytest.fixture
async def lesson(school: School, tmp_path: Path) -> AsyncIterator[Callable[[str], Lesson]]:
    held: list[Lesson] = []

    def hold(student_id: str) -> Lesson:
        held.append(Lesson(school, tmp_path / "outbox", student_id))
        return held[-1]

    yield hold
    for one in held:
        await one.aclose()


def ignore(receipt: Receipt) -> None:
    pass


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, school: School, tmp_path: Path) -> Callable[..., int]:
    """The exit code of `python -m emma_agent <arguments>`, run by the school's operator."""
    for name in list(os.environ):
        if name.startswith(("LIVEKIT_", "OPENAI_", "CONVEX_", "NEXT_PUBLIC_", "EMMA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CONVEX_URL", school.local.url)
    monkeypatch.setenv("CONVEX_ADMIN_KEY", school.local.admin_key)
    monkeypatch.setenv("EMMA_OUTBOX_DIR", str(tmp_path / "outbox"))
    get_settings.cache_clear()

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["emma_agent", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        return 0

    return run


async def test_a_lesson_that_is_being_held_brings_nothing_back(
    school: School, lesson: Callable[[str], Lesson], tmp_path: Path
) -> None:
    student_id = school.student()
    held = lesson(student_id)
    held.delivery.start()
    held.say("I goed to the market")
    assert await held.delivery.flush(20.0) == 0
    assert len(school.naming("I goed to the market")) == 1

    receipt = erase(school.administrator, student_id, on_progress=ignore)
    held.say("And I buyed a loaf")
    assert await held.delivery.flush(20.0) == 0
    with pytest.raises(ErasedError):
        held.say("Nobody hears of this")

    assert receipt.deleted["messages"] == 4
    assert school.naming(student_id) == []
    assert school.naming(STUDENT) == []
    assert school.naming("I buyed") == []
    assert files_in(tmp_path / "outbox") == []


@pytest.mark.parametrize("by", ["recovery", "a new job"])
async def test_a_journal_that_arrives_afterwards_brings_nothing_back(
    school: School, lesson: Callable[[str], Lesson], tmp_path: Path, by: str
) -> None:
    """One that Convex knew, whose worker was cut off, and one that it never heard of."""
    student_id = school.student()
    known, unknown = lesson(student_id), lesson(student_id)
    known.delivery.start()
    assert await known.delivery.flush(20.0) == 0
    await known.delivery.aclose(0.0)
    unknown.say("I goed to the market")
    unknown.outbox.append(RunEndedRecord(created_at=time.time(), reason="done"))
    unknown.outbox.journal.close()
    assert len(files_in(tmp_path / "outbox")) == 3

    erase(school.administrator, student_id, on_progress=ignore)
    token = AgentToken(school.local.agent_key, subject="guest:worker")
    async with AsyncConvexClient(school.local.url, token=token) as client:
        if by == "recovery":
            report = await Recovery(client, directory=tmp_path / "outbox").sweep()
        else:
            report = await deliver_dead_journals(
                client, tmp_path / "outbox", subject=f"student:{student_id}", timeout_s=60.0
            )

    assert report == SweepReport(erased=2, runs_lost=1)
    assert files_in(tmp_path / "outbox") == []
    assert school.naming(student_id) == []
    assert school.naming("I goed") == []


async def test_more_than_a_page_is_erased_and_exported(
    school: School, lesson: Callable[[str], Lesson]
) -> None:
    """Also where rows are as large as they may be: both go by bytes then."""
    student_id = school.student()
    held = lesson(student_id)
    held.delivery.start()
    for n in range(250):
        held.say(f"message {n}")
    for n in range(60):
        call = ToolCallRecord(
            created_at=time.time(),
            call_id=f"call_{n}",
            name="note",
            arguments="x" * MAX_TEXT_BYTES,
            output="y" * MAX_TEXT_BYTES,
            is_error=False,
        )
        held.outbox.append(call)
    assert await held.delivery.flush(60.0) == 0
    rows = list(rows_of(school.administrator, student_id))
    assert sum(row.table == "messages" for row in rows) == 253
    assert sum(row.table == "analyticsEvents" for row in rows) == 60
    assert len({row.fields["_id"] for row in rows}) == len(rows)
    told: list[Receipt] = []

    receipt = erase(school.administrator, student_id, on_progress=told.append)

    # Rows of cut messages and calls alike; the run's own row became a tombstone.
    assert receipt.rows == len(rows)
    assert told[-1] == receipt
    assert school.naming(student_id) == []


def test_the_command_erases_and_prints_a_receipt(
    school: School,
    run: Callable[..., int],
    lesson: Callable[[str], Lesson],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    student_id = school.student()
    waiting = lesson(student_id)
    waiting.say("I goed to the market")
    waiting.outbox.journal.close()

    assert run("erase", student_id, "--yes") == 0

    shown = capsys.readouterr().out
    counts = dict(line.split()[:2] for line in shown.splitlines()[:15])
    assert (counts["students"], counts["messages"], counts["vocabulary"]) == ("1", "3", "0")
    assert f"Journals deleted in {tmp_path / 'outbox'}: 1" in shown
    assert "when they next ask Convex" in shown
    assert files_in(tmp_path / "outbox") == []
    assert school.naming(student_id) == []

    assert run("erase", student_id) == 0  # asks nothing: it is done
    again = capsys.readouterr().out
    assert again.splitlines()[:17] == shown.splitlines()[:17]


async def test_what_was_last_known_of_the_student_goes_with_them(
    school: School,
    run: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the operator's machine at once; on another when its worker next asks Convex."""
    student_id = school.student()
    here, elsewhere = tmp_path / "outbox", tmp_path / "elsewhere"
    for directory in (here, elsewhere):
        lesson = await asked(school, student_id, directory)
        assert lesson.context is not None
        [name] = files_in(directory)
        assert STUDENT.encode() in (directory / name).read_bytes()

    assert await asyncio.to_thread(run, "erase", student_id, "--yes") == 0

    assert f"Last known contexts deleted in {here}: 1" in capsys.readouterr().out
    assert files_in(here) == []
    lesson = await asked(school, student_id, elsewhere)
    assert (lesson.context, lesson.degraded) == (None, False)
    assert files_in(elsewhere) == []


async def asked(school: School, student_id: str, directory: Path) -> LessonState:
    """A lesson that has asked what Convex knows of the student, and is over."""
    lesson = LessonState.open(
        json.dumps({"student_id": student_id, "session_key": "s1"}),
        url=school.local.url,
        key=school.local.agent_key,
        outbox_dir=directory,
    )
    await lesson.ready(timeout_s=20)
    async with asyncio.timeout(10):
        while lesson.context is not None and not files_in(directory):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await lesson.aclose()
    return lesson


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("", 1), ("y\n", 0)])
def test_the_command_asks_first(
    school: School,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
) -> None:
    student_id = school.student()
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))

    assert run("erase", student_id) == code

    assert f"Erase {STUDENT} ({student_id})" in capsys.readouterr().out
    assert (school.naming(student_id) == []) == (code == 0)


@pytest.mark.parametrize("command", ["erase", "export"])
def test_who_is_no_student_is_one_line(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    assert run(command, "../nobody") == 1

    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert line.endswith("This is no student's id of this deployment.")


def test_without_a_key_the_command_says_how_to_set_one(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ConvexLocal.start(db=":memory:") as other:
        monkeypatch.setenv("CONVEX_URL", other.url)
        monkeypatch.setenv("CONVEX_ADMIN_KEY", other.admin_key)

        assert run("erase", "k57", "--yes") == 1

    [line] = capsys.readouterr().err.splitlines()
    assert "npx convex env set ERASURE_KEY" in line


def test_the_export_has_everything_in_each_format(
    school: School,
    run: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    student_id = school.student()
    rows = list(rows_of(school.administrator, student_id))
    output = tmp_path / "exports"

    assert run("export", student_id) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"table": row.table, "row": row.fields} for row in rows]
    assert lines[0]["row"]["name"] == STUDENT

    for form in ("jsonl", "csv", "xapi"):
        assert run("export", student_id, "--format", form, "--output", str(output)) == 0
    tables = {row.table for row in rows}
    assert set(files_in(output)) == {
        f"{student_id}.jsonl",
        f"{student_id}.xapi.json",
        *(f"{table}.csv" for table in tables),
    }
    for table in tables:
        with (output / f"{table}.csv").open(newline="") as file:
            ids = [row["_id"] for row in csv.DictReader(file)]
        assert ids == [row.fields["_id"] for row in rows if row.table == table]
    statements = json.loads((output / f"{student_id}.xapi.json").read_text())
    said = [one["result"]["response"] for one in statements]
    assert said == [row.fields["text"] for row in rows if row.table == "messages"]
