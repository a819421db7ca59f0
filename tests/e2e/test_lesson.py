"""One lesson for real: LiveKit server, worker, offline speech, a student with a voice, Convex.

The witness is the student: what it said (its script) and what it heard (the `lk.transcription`
stream). Whisper may differ in a comma or a word, so texts are compared as words.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from emma_agent.demo.children import Child
from emma_agent.demo.exchange import Heard, Said
from emma_agent.demo.plan import Plan, StageError
from emma_agent.demo.screen import Screen
from emma_agent.demo.script import GREETING
from emma_agent.demo.stage import SENTENCES, Outcome, hold_lesson
from emma_agent.demo.verdict import words
from tests.support.logged import said_in_logs

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Lesson:
    outcome: Outcome
    directory: Path
    shown: str
    left_over: list[psutil.Process]


def screen() -> tuple[Screen, io.StringIO]:
    shown = io.StringIO()
    return Screen(Console(file=shown, width=110)), shown


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lesson]:
    """Held once for all tests here, with the chattiest log: it must keep silent all the same."""
    directory = tmp_path_factory.mktemp("lesson")
    on_screen, shown = screen()
    before = set(psutil.Process().children(recursive=True))
    outcome = asyncio.run(
        hold_lesson(Plan(log_level="DEBUG"), directory=directory, screen=on_screen, children=set())
    )
    left_over = [p for p in psutil.Process().children(recursive=True) if p not in before]
    yield Lesson(outcome, directory, shown.getvalue(), left_over)


def test_convex_holds_what_was_said_and_heard_once_and_in_order(lesson: Lesson) -> None:
    outcome = lesson.outcome

    assert outcome.verdict.problems == []
    assert [type(e) for e in outcome.exchanges] == [Heard, Said, Heard, Said, Heard]
    assert [row.role for row in outcome.rows] == ["assistant", "user"] * 2 + ["assistant"]
    assert len({row.item_id for row in outcome.rows}) == 5


def test_each_answer_says_how_long_the_student_waited_and_for_what(lesson: Lesson) -> None:
    greeting, *turns = lesson.outcome.rows

    assert "e2eLatencyMs" not in (greeting.metrics or {})
    for said, answer in zip(turns[::2], turns[1::2], strict=True):
        assert {"endOfTurnDelayMs", "transcriptionDelayMs"} <= set(said.metrics or {})
        assert answer.metrics is not None
        assert {"llmTtftMs", "ttsTtfbMs", "playbackLatencyMs"} <= set(answer.metrics)
        assert answer.metrics["e2eLatencyMs"] > 0


def test_each_sentence_of_the_student_has_its_language_and_how_sure_the_ear_was(
    lesson: Lesson,
) -> None:
    for row in lesson.outcome.rows:
        if row.role == "user":
            assert row.language == "en"
            assert row.transcript_confidence is not None
            assert 0.0 < row.transcript_confidence < 1.0
        else:
            assert (row.language, row.transcript_confidence) == (None, None)


def test_the_rows_hold_the_words(lesson: Lesson) -> None:
    """The same as the verdict, said once more without its code."""
    greeting, first, answer, second, profile = [set(words(r.text)) for r in lesson.outcome.rows]

    assert set(words(GREETING)) <= greeting
    assert {"dinner", "family"} <= first
    assert {"sounds", "delicious"} <= answer
    assert {"student", "profile"} <= second
    assert {"your", "name", "level"} <= profile


def test_the_tool_read_the_students_profile_from_convex(lesson: Lesson) -> None:
    known, answer = lesson.outcome.profile, words(lesson.outcome.rows[-1].text)

    assert known.name.split()[0].lower() in answer
    assert known.level.lower() in answer


def test_the_rows_were_there_while_the_lesson_ran(lesson: Lesson) -> None:
    assert lesson.outcome.rows_during_lesson == 5


def test_the_session_is_closed_when_the_student_has_left(lesson: Lesson) -> None:
    session = lesson.outcome.session

    assert session is not None
    assert (session.status, session.provisional_end) == ("ended", False)
    assert (session.message_count, session.runs) == (5, 1)


def test_what_remains_of_it_in_words_is_there_for_the_student_and_the_teacher(
    lesson: Lesson,
) -> None:
    """The model writes it when the student has left: here the script, with what was in the lesson."""
    summary = lesson.outcome.summary

    assert summary is not None
    assert summary.source == "model"
    assert summary.for_student
    assert (summary.for_teacher or "").startswith("Written by the script. The lesson came to the")


def test_the_screen_showed_each_row(lesson: Lesson) -> None:
    for row in lesson.outcome.rows:
        assert row.text.strip() in lesson.shown


def test_no_log_holds_what_was_said(lesson: Lesson) -> None:
    spoken = [*SENTENCES, *(e.text for e in lesson.outcome.exchanges)]
    spoken += [row.text for row in lesson.outcome.rows]
    if lesson.outcome.summary is not None:
        spoken += [lesson.outcome.summary.for_student, lesson.outcome.summary.for_teacher or ""]

    found = said_in_logs(lesson.directory, spoken)

    assert set(found) >= {"worker.log", "speech.log", "server.log"}
    assert not any(found.values()), found


def test_no_process_is_left(lesson: Lesson) -> None:
    assert lesson.left_over == []


class KillsTheWorker(Screen):
    """Kills the worker as soon as it is ready, as the kernel does when memory runs out."""

    def __init__(self, console: Console, children: set[Child]) -> None:
        super().__init__(console)
        self._children_of_stage = children

    def ready(self, name: str) -> None:
        super().ready(name)
        for child in self._children_of_stage:
            if name.startswith("worker") and child.name == "The worker":
                os.kill(child.pid, signal.SIGKILL)


def test_a_worker_that_dies_is_said_in_one_sentence_with_its_log(tmp_path: Path) -> None:
    children: set[Child] = set()
    on_screen = KillsTheWorker(Console(file=io.StringIO()), children)

    with pytest.raises(StageError, match=r"^The worker ended by itself \(exit code -9\)\.$") as e:
        asyncio.run(hold_lesson(Plan(), directory=tmp_path, screen=on_screen, children=children))

    assert e.value.log == tmp_path / "worker.log"
    assert children == set()
