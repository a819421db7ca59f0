"""What is shown: rows as they appear, each with the time since the sound that it holds."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from emma_agent.demo.exchange import Heard, Said
from emma_agent.demo.rows import MessageRow
from emma_agent.demo.screen import Screen
from emma_agent.demo.verdict import Line, judge


def row(role: Literal["user", "assistant"], text: str) -> MessageRow:
    return MessageRow(
        item_id=text,
        role=role,
        text=text,
        interrupted=False,
        provisional=False,
        created_at=0,
        stored_at=0,
    )


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


async def test_a_row_is_timed_from_the_last_sound_of_its_own_side(shown: io.StringIO) -> None:
    screen = Screen(Console(file=shown, width=100))
    printing = asyncio.create_task(screen.print_rows())
    screen.on_exchange(Heard("Hello.", 10.0, 11.0))
    screen.on_exchange(Said("Good morning.", 12.0, 13.0))
    screen.on_message(row("assistant", "Hello."), 11.25)
    screen.on_message(row("user", "Good [morning]."), 14.5)
    # Her sound is still on its way to the student when the row is there.
    screen.on_message(row("assistant", "How are you?"), 16.9)
    await asyncio.sleep(0)
    screen.on_exchange(Heard("How are you?", 15.0, 17.0))

    await screen.flush()
    printing.cancel()

    lines = shown.getvalue().splitlines()
    assert [line.split() for line in lines] == [
        ["+250", "ms", "Emma", "Hello."],
        ["+1500", "ms", "Student", "Good", "[morning]."],
        ["-100", "ms", "Emma", "How", "are", "you?"],
    ]
    assert [role for role, _ in screen.delays_ms] == ["assistant", "user", "assistant"]


async def test_a_row_that_nobody_heard_is_shown_without_a_time(shown: io.StringIO) -> None:
    screen = Screen(Console(file=shown, width=100), pair_timeout_s=0.01)
    printing = asyncio.create_task(screen.print_rows())
    screen.on_message(row("assistant", "Nobody heard this."), 1.0)

    await screen.flush()
    printing.cancel()

    assert shown.getvalue().split() == ["Emma", "Nobody", "heard", "this."]


def test_the_table_and_a_failure_are_plain_where_there_is_no_terminal(
    shown: io.StringIO, tmp_path: Path
) -> None:
    screen = Screen(Console(file=shown, width=100))
    screen.table(judge([Line("user", "Hi there")], [row("assistant", "Unasked [x]")]))
    screen.failure("It failed.", log=tmp_path / "worker.log", lines=["the [last] line"])

    text = shown.getvalue()
    assert "\x1b" not in text
    assert "Hi there" in text
    assert "Unasked [x]" in text
    assert "  | the [last] line" in text
    assert f"The whole log: {tmp_path / 'worker.log'}" in text
