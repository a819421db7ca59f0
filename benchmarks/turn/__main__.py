"""Measure what Emma adds to a turn, and to the start of a lesson, beside a bare agent: `make bench-turn`.

Emma, as her worker runs her, and an agent that is LiveKit and no more have turns in text, in turn
about, with a model that answers at once. What one takes more than the other is what is neither
speech nor model nor network: instructions, tools, records, delivery. Convex is convex-local, in a
process of its own: half of the lessons with answers as soon as it has them, half with all of them
300 ms late, and so all starts. Exit code 1 if a target is missed, which a busy machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.turn.paired import Pair, Paired, paired
from benchmarks.turn.stage import SLOW_MS, Stage

LESSONS: Final = 8
TURNS: Final = 40
STARTS: Final = 40
TURN_MS: Final = 5.0
START_MS: Final = 20.0
LEAST_TURNS: Final = 300
LEAST_STARTS: Final = 30
_SEED: Final = 6


@dataclass(frozen=True, slots=True)
class Target:
    """What is promised, and what was measured."""

    what: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured < self.limit


def measure(
    stage: Stage, *, lessons: int, turns: int, starts: int, say: Callable[[str], None]
) -> tuple[dict[str, list[Pair]], list[Any]]:
    """Pairs of turns by what happened in them, and starts.

    Args:
        turns: of each lesson.
        say: told of the progress.
    """
    # Here: what they import reads the settings of a worker, which the stage has made. And what a job
    # process inherits, this one has too.
    import livekit.agents.ipc._preload  # noqa: F401

    import emma_agent.warm_up  # noqa: F401
    from benchmarks.turn.starts import measure_starts
    from benchmarks.turn.turns import KINDS, measure_lesson

    chance = random.Random(_SEED)
    found: dict[str, list[Pair]] = {"all": []}
    for slow in (0, SLOW_MS):
        found[f"Convex {slow} ms slow" if slow else "Convex healthy"] = []
    found |= {text: [] for text in KINDS.values()}
    for lesson in range(lessons):
        slow = 0 if lesson < (lessons + 1) // 2 else SLOW_MS
        situation = f"Convex {slow} ms slow" if slow else "Convex healthy"
        say(f"lesson {lesson + 1} of {lessons}, {turns} turns on each side, {situation} …")
        stage.slow(slow)
        by_kind = asyncio.run(
            measure_lesson(stage.metadata(f"turns-{lesson}"), turns=turns, chance=chance)
        )
        for kind, pairs in by_kind.items():
            for row in ("all", situation, KINDS[kind]):
                found[row].extend(pairs)
    say(f"{starts} starts on each side, each in a process of its own …")
    stage.slow(SLOW_MS)
    started = measure_starts(
        lambda number: stage.metadata(f"start-{number}"), pairs=starts, chance=chance
    )
    return found, started


def table_of_turns(found: dict[str, Paired]) -> Table:
    """Milliseconds from what was said to the answer's first text."""
    table = Table(title="From the student's text to the first text of the answer, ms")
    for name in ("", "turns", "Emma p50 / p95", "bare p50 / p95"):
        table.add_column(name)
    for name in ("p50 / p95", "mean", "upper bound", "processor time"):
        table.add_column(f"Emma's share: {name}")
    for row, one in found.items():
        table.add_row(
            row,
            str(one.pairs),
            f"{one.emma.p50_ms:.1f} / {one.emma.p95_ms:.1f}",
            f"{one.bare.p50_ms:.1f} / {one.bare.p95_ms:.1f}",
            f"{one.difference.p50_ms:.1f} / {one.difference.p95_ms:.1f}",
            f"{one.mean_ms:.2f}",
            f"{one.upper_ms:.2f}",
            f"{one.cpu_ms:.2f}",
        )
    return table


def table_of_starts(parts: Mapping[str, Sequence[float]], own: Paired) -> Table:
    """Milliseconds to the greeting's first text."""
    table = Table(
        title=f"From the job's first line to the first text of the greeting, ms; Convex {SLOW_MS} ms slow"
    )
    for name in ("", "p50", "p95"):
        table.add_column(name)
    for row, seconds in parts.items():
        ordered = sorted(seconds)
        p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        table.add_row(row, f"{1e3 * statistics.median(ordered):.0f}", f"{1e3 * p95:.0f}")
    table.add_row(
        "Emma's share, all of it", f"{own.difference.p50_ms:.1f}", f"{own.difference.p95_ms:.1f}"
    )
    table.caption = (
        f"{own.pairs} pairs. Mean of Emma's share {own.mean_ms:.1f}, upper bound "
        f"{own.upper_ms:.1f}, in processor time {own.cpu_ms:.1f}."
    )
    return table


def targets(turns: Paired, starts: Paired) -> list[Target]:
    """The verdicts."""
    return [
        Target("pairs of turns", turns.pairs, LEAST_TURNS, "", at_least=True),
        Target("Emma's share of a turn, upper 95 % bound", turns.upper_ms, TURN_MS, "ms"),
        Target("pairs of starts", starts.pairs, LEAST_STARTS, "", at_least=True),
        Target("Emma's share of a start, upper 95 % bound", starts.upper_ms, START_MS, "ms"),
    ]


def table_of_targets(verdicts: Sequence[Target]) -> Table:
    table = Table(title="Targets, for a quiet machine of two cores")
    for name in ("", "measured", "target", "verdict"):
        table.add_column(name)
    for one in verdicts:
        digits = 0 if one.at_least else 2
        table.add_row(
            one.what,
            f"{one.measured:.{digits}f} {one.unit}",
            f"{'≥' if one.at_least else '<'} {one.limit:g} {one.unit}",
            "met" if one.met else "missed",
        )
    return table


def run(
    *, lessons: int, turns: int, starts: int, out: Console, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure and print; returns everything that was found."""
    load_before = os.getloadavg()
    with Stage.set_up() as stage:
        found, started = measure(stage, lessons=lessons, turns=turns, starts=starts, say=say)
        from benchmarks.turn.starts import parts_of

        parts = parts_of(started)
    by_row = {row: paired(pairs) for row, pairs in found.items() if pairs}
    own = paired([pair.own for pair in started])
    verdicts = targets(by_row["all"], own)
    out.print(table_of_turns(by_row), table_of_starts(parts, own), table_of_targets(verdicts))
    out.print(
        "Upper bound: 95th percentile of the mean in 10,000 bootstrap samples of the pairs. Load of "
        f"the machine: {load_before[0]:.1f} before, {os.getloadavg()[0]:.1f} after, on "
        f"{os.cpu_count()} cores."
    )
    return {
        "load": {"before": load_before, "after": os.getloadavg(), "cores": os.cpu_count()},
        "turns": {row: asdict(one) for row, one in by_row.items()},
        "starts": {"own": asdict(own), "parts_s": parts},
        "targets": [{**asdict(one), "met": one.met} for one in verdicts],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        prog="make bench-turn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    for name, default, what in (
        ("lessons", LESSONS, "on each side; of the second half Convex is slow"),
        ("turns", TURNS, "of each lesson"),
        ("starts", STARTS, "on each side"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, help=f"{what} (default {default})"
        )
    parser.add_argument(
        "--audio",
        action="store_true",
        help="also hold a short lesson with real audio, as a pipeline and with a realtime model, and "
        "show what was recorded of its turns; nothing of it is judged",
    )
    arguments = parser.parse_args(argv)
    if min(arguments.lessons, arguments.turns, arguments.starts) < 1:
        parser.error("at least one of each")
    out, progress = Console(width=150), Console(stderr=True)

    def say(text: str) -> None:
        progress.print(f"  {text}", highlight=False)

    results = run(
        lessons=arguments.lessons,
        turns=arguments.turns,
        starts=arguments.starts,
        out=out,
        say=say,
    )
    if arguments.audio:
        from benchmarks.turn.audio import show_lesson

        results["audio"] = {
            kind: show_lesson(kind, out=out, say=say) for kind in ("pipeline", "realtime")
        }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(one["met"] for one in results["targets"]) else 1


if __name__ == "__main__":
    sys.exit(main())
