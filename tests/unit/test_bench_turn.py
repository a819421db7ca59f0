"""`make bench-turn`: that it counts what it says it counts. What it measures is not asserted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console

from benchmarks.turn.__main__ import main, table_of_targets, targets
from benchmarks.turn.audio import Answer, answers_in, table_of
from benchmarks.turn.paired import Pair, paired
from emma_agent.demo.exchange import Exchange, Heard, Said
from emma_agent.demo.rows import MessageRow

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
def test_both_sides_have_the_same_turns_and_starts(tmp_path: Path) -> None:
    """In a process of its own: it makes a worker's settings of the environment."""
    results = tmp_path / "results.json"
    few = ["--lessons", "2", "--turns", "10", "--starts", "2", "--json", str(results)]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.turn", *few],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    found: dict[str, Any] = json.loads(results.read_text())
    assert {row: one["pairs"] for row, one in found["turns"].items()} == {
        "all": 20,
        "Convex healthy": 10,
        "Convex 300 ms slow": 10,
        "no tool": 12,
        "a tool that reads": 2,
        "a tool that writes a record": 2,
        "a tool that changes Emma's instructions": 2,
        "the next part of the lesson": 2,
    }
    assert found["starts"]["own"]["pairs"] == 2
    assert {len(seconds) for seconds in found["starts"]["parts_s"].values()} == {2}
    waited = found["starts"]["parts_s"]["Emma, waiting for Convex"]
    whole = found["starts"]["parts_s"]["Emma, all of it"]
    assert min(waited) > 0.0
    assert min(whole) > 0.3, "Convex was to be slow"
    # Too few to say anything: whatever was measured, that is no success.
    unmet = {one["what"] for one in found["targets"] if not one["met"]}
    assert {"pairs of turns", "pairs of starts"} <= unmet

    shown = [line.split("│")[1].strip() for line in ended.stdout.splitlines() if "│" in line]
    assert {
        "all",
        "no tool",
        "bare, all of it",
        "Emma's share, all of it",
        "pairs of turns",
    } <= set(shown)
    assert "lesson 2 of 2" in ended.stderr
    assert "lesson 2 of 2" not in ended.stdout


def test_a_pair_is_emmas_time_less_the_bare_agents() -> None:
    found = paired([Pair(0.010, 0.008, 0.001), Pair(0.014, 0.008, 0.003)])
    assert found.pairs == 2
    assert found.mean_ms == pytest.approx(4.0)
    assert found.cpu_ms == pytest.approx(2.0)
    assert found.emma.p50_ms == pytest.approx(12.0)
    assert found.bare.p95_ms == pytest.approx(8.0)
    # Of two pairs one mean in four is that of the greater alone.
    assert found.upper_ms == pytest.approx(6.0)


def test_the_bound_comes_closer_with_more_pairs() -> None:
    some = [Pair(0.001 * (n % 5), 0.0, 0.0) for n in range(10)]
    assert 2.0 < paired(some * 30).upper_ms < paired(some).upper_ms < 4.0


@pytest.mark.parametrize(
    ("turn_ms", "start_ms", "met"),
    [
        (4.9, 19.9, {"turn": True, "start": True}),
        (5.1, 19.9, {"turn": False, "start": True}),
        (4.9, 20.1, {"turn": True, "start": False}),
    ],
)
def test_the_bound_is_what_is_judged(turn_ms: float, start_ms: float, met: dict[str, bool]) -> None:
    turns = paired([Pair(turn_ms / 1e3, 0.0, 0.0)] * 300)
    starts = paired([Pair(start_ms / 1e3, 0.0, 0.0)] * 30)
    many, turn, enough, start = targets(turns, starts)
    assert many.met
    assert enough.met
    assert {"turn": turn.met, "start": start.met} == met
    assert table_of_targets([many, turn, enough, start]).row_count == 4


@pytest.mark.parametrize("option", ["--lessons", "--turns", "--starts"])
def test_of_nothing_nothing_is_measured(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([option, "0"])
    assert "at least one of each" in capsys.readouterr().err


def row(role: Literal["user", "assistant"], **metrics: float) -> MessageRow:
    return MessageRow(
        item_id="i",
        role=role,
        text="",
        interrupted=False,
        provisional=False,
        created_at=0.0,
        stored_at=0.0,
        metrics=metrics or None,
    )


def test_what_was_recorded_of_an_answer_is_split_into_its_parts() -> None:
    rows = [
        row("assistant", llmTtftMs=1.0),
        row("user", endOfTurnDelayMs=900.0, transcriptionDelayMs=700.0),
        row("assistant", e2eLatencyMs=1_000.0, llmTtftMs=50.0, ttsTtfbMs=20.0),
        row("user"),
        row("assistant", e2eLatencyMs=1_200.0),
        # Nobody had said anything.
        row("assistant"),
    ]
    exchanges: list[Exchange] = [
        Heard("Hello", 0, 1),
        Said("Hi", 1, 2),
        Heard("So?", 3.5, 4),
        Said("No", 5, 6),
        Heard("Ah", 7.25, 8),
    ]
    first, second = answers_in(rows, exchanges)
    assert first == Answer(1_000.0, 900.0, 700.0, 50.0, 20.0, 1_500.0)
    assert first.rest == pytest.approx(30.0)
    assert (second.e2e, second.heard, second.rest) == (1_200.0, 1_250.0, None)

    console = Console(width=150, file=io.StringIO())
    with console.capture() as printed:
        console.print(table_of("realtime", [first, second]))
    lines = [line for line in printed.get().splitlines() if "│" in line]
    assert [line.split("│")[1].strip() for line in lines] == ["1", "2"]
