"""`make demo-crash`: the worker is killed in the middle of Emma's sentence and started again."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from emma_agent.demo.crash import kill_and_recover
from emma_agent.demo.plan import Deployment, Plan, StageError
from emma_agent.demo.screen import Screen

pytestmark = pytest.mark.timeout(300)


def test_what_was_said_before_the_kill_is_there_after_the_new_start(tmp_path: Path) -> None:
    shown = io.StringIO()
    before = set(psutil.Process().children(recursive=True))
    verdict = asyncio.run(
        kill_and_recover(
            Plan(),
            directory=tmp_path,
            screen=Screen(Console(file=shown, width=110)),
            children=set(),
        )
    )
    left_over = [p for p in psutil.Process().children(recursive=True) if p not in before]

    assert verdict.problems == []
    assert [match.line.role for match in verdict.matches if match.line] == [
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    # Without this the kill would prove nothing: Convex would have had it all before.
    assert "said and heard so far: 4; in Convex: 1" in shown.getvalue()
    assert left_over == []


def test_a_deployment_of_others_is_not_taken_away(tmp_path: Path) -> None:
    plan = Plan(convex=Deployment("https://school.example", "admin", {}))
    with pytest.raises(StageError, match="unset CONVEX_URL"):
        asyncio.run(
            kill_and_recover(
                plan,
                directory=tmp_path,
                screen=Screen(Console(file=io.StringIO())),
                children=set(),
            )
        )
