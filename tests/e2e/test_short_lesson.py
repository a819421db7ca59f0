"""`make demo RESUME=1`: a whole lesson for real, with the worker killed in the middle of it.

`make demo LESSON=short` is the same lesson without the kill. What is judged there is
`problems_of`; here it is said once more without that code.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from emma_agent.demo.plan import Plan
from emma_agent.demo.screen import Screen
from emma_agent.demo.short_lesson import ShortLesson, hold_short_lesson
from emma_agent.demo.verdict import words

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Lesson:
    held: ShortLesson
    shown: str
    left_over: list[psutil.Process]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    shown = io.StringIO()
    before = set(psutil.Process().children(recursive=True))
    held = asyncio.run(
        hold_short_lesson(
            Plan(),
            directory=tmp_path_factory.mktemp("short"),
            screen=Screen(Console(file=shown, width=110)),
            children=set(),
            interrupt=True,
        )
    )
    left_over = [p for p in psutil.Process().children(recursive=True) if p not in before]
    return Lesson(held, shown.getvalue(), left_over)


def test_nothing_is_missing_twice_or_out_of_order(lesson: Lesson) -> None:
    verdict = lesson.held.verdict

    assert verdict.problems == []
    roles = [match.row.role for match in verdict.matches if match.row]
    # After the kill Emma speaks first, once.
    assert roles.count("assistant") == roles.count("user") + 1
    assert len(roles) >= 17


def test_the_greeting_knows_the_last_lesson(lesson: Lesson) -> None:
    greeting = lesson.held.facts.greeting

    assert "In a café" in greeting
    assert "Ana ordered breakfast and asked for the bill" in greeting


def test_each_part_was_entered_once_and_both_slides_were_on(lesson: Lesson) -> None:
    facts = lesson.held.facts

    assert facts.steps == ["warm_up", "presentation", "practice", "feedback", "farewell"]
    assert facts.slides == [0, 1]


def test_the_lesson_went_on_where_it_was(lesson: Lesson) -> None:
    facts = lesson.held.facts

    assert "in the middle of Emma's sentence; the student stays" in lesson.shown
    assert facts.back is not None
    assert {"presentation", "ticket"} <= set(words(facts.back))
    assert "hello" not in words(facts.back)
    assert facts.session is not None
    assert (facts.session.runs, facts.session.status) == (2, "ended")
    assert facts.left is not None
    assert facts.left.over


def test_her_page_tells_what_she_learnt(lesson: Lesson) -> None:
    facts = lesson.held.facts

    assert facts.after.minutes > facts.before.minutes
    assert replace(facts.after, minutes=facts.before.minutes) == replace(
        facts.before,
        words_mastered=2,
        words_learning=2,
        corrections=3,
        repaired=2,
        lessons_completed=2,
        lessons_held=4,
        streak_days=1,
    )


def test_a_summary_is_kept(lesson: Lesson) -> None:
    assert lesson.held.summary is not None
    assert "money" in lesson.held.summary.for_student


def test_no_process_is_left(lesson: Lesson) -> None:
    assert lesson.left_over == []


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("make demo", []),
        ("make demo LESSON=short", ["--lesson", "short"]),
        ("make demo RESUME=1", ["--resume"]),
    ],
)
def test_make_passes_on_what_is_asked_for(command: str, options: list[str]) -> None:
    # As from a terminal, also where `make test` runs this.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        [*command.split(), "--dry-run"],
        cwd=ROOT,
        env=outside,
        capture_output=True,
        text=True,
        check=True,
    )
    last = done.stdout.splitlines()[-1]
    assert last.split() == ["python", "-m", "emma_agent", "demo", *options]
