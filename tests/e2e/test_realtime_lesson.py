"""The same lesson with one realtime model: server, worker, a student with a voice, Convex.

What the student says is written down seconds after Emma has answered it, as OpenAI Realtime may do,
and the student leaves before the last of it is. The witness is the student, as in `test_lesson.py`.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from emma_agent.demo.exchange import Exchange
from emma_agent.demo.plan import Plan
from emma_agent.demo.rows import LiveLesson, MessageRow, SessionRow, SummaryRow, summary_of
from emma_agent.demo.screen import Screen
from emma_agent.demo.stage import SENTENCES, lines_of, on_stage, rows_and_ticket, unless_one_ends
from emma_agent.demo.student import Student
from emma_agent.demo.verdict import judge, words
from tests.support.logged import said_in_logs

pytestmark = pytest.mark.timeout(300)

# Longer than an answer takes to be given.
LATE_S = 5.0


@dataclass(frozen=True)
class Lesson:
    exchanges: Sequence[Exchange]
    rows: Sequence[MessageRow]
    arrived: Sequence[str]
    session: SessionRow | None
    summary: SummaryRow | None
    directory: Path


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    return asyncio.run(hold(tmp_path_factory.mktemp("realtime")))


async def hold(directory: Path) -> Lesson:
    screen = Screen(Console(file=io.StringIO()))
    # With the chattiest log: it must keep silent all the same.
    plan = Plan(speech="realtime", late_transcripts_s=LATE_S, log_level="DEBUG")
    arrived: list[str] = []
    async with (
        on_stage(plan, directory=directory, screen=screen, children=set()) as services,
        rows_and_ticket(services) as (client, ticket),
        LiveLesson.follow(
            client, ticket.room, on_message=lambda row, _: arrived.append(row.role)
        ) as live,
    ):

        async def attend() -> list[Exchange]:
            async with Student.join(ticket) as student:
                await student.listen(timeout_s=60)
                for sentence in SENTENCES:
                    await student.say(sentence)
                    await student.listen(timeout_s=45)
                return student.exchanges

        exchanges = await unless_one_ends(attend(), services.needed)
        await live.until(closed, timeout_s=30)
        summary = await summary_of(client, ticket.room, timeout_s=20)
        return Lesson(exchanges, live.rows, arrived, live.session, summary, directory)


def closed(live: LiveLesson) -> bool:
    session = live.session
    return session is not None and session.status == "ended" and not session.provisional_end


def test_what_is_written_down_late_is_where_it_was_said(lesson: Lesson) -> None:
    assert judge(lines_of(lesson.exchanges), lesson.rows).problems == []
    assert [row.role for row in lesson.rows] == ["assistant", "user"] * 2 + ["assistant"]


def test_each_answer_says_how_long_the_student_waited(lesson: Lesson) -> None:
    greeting, _, first, _, second = lesson.rows
    assert "e2eLatencyMs" not in (greeting.metrics or {})
    for answer in (first, second):
        assert answer.metrics is not None
        assert answer.metrics["e2eLatencyMs"] > 0


def test_the_words_came_after_the_answers(lesson: Lesson) -> None:
    """Else this shows nothing."""
    assert lesson.arrived.index("user") > 1
    assert lesson.arrived[-1] == "user"


def test_the_last_words_are_kept_though_the_student_has_left(lesson: Lesson) -> None:
    said = next(row for row in reversed(lesson.rows) if row.role == "user")
    assert {"student", "profile"} <= set(words(said.text))
    assert lesson.session is not None
    assert lesson.session.message_count == 5


def test_the_tool_was_called(lesson: Lesson) -> None:
    assert {"name", "level"} <= set(words(lesson.rows[-1].text))


def test_without_a_model_of_text_its_summary_is_made_of_what_was_noted(lesson: Lesson) -> None:
    assert lesson.summary is not None
    assert lesson.summary.source == "records"
    assert lesson.summary.for_student


def test_no_log_holds_what_was_said(lesson: Lesson) -> None:
    spoken = [*SENTENCES, *(each.text for each in lesson.exchanges)]

    found = said_in_logs(lesson.directory, [*spoken, *(row.text for row in lesson.rows)])

    assert "worker.log" in found
    assert not any(found.values()), found
