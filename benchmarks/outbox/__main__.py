"""Measure what recording costs and keeps, beside what people use today, in one run: `make bench`.

Prints tables with a verdict for each target and, with --json, writes the results. Exit code 1 if a
promise is broken: something lost, doubled or out of order, or a tool that called the network. A
target of time that is missed is said with by how much, since a busy machine misses any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.outbox.bench_stage import BenchStage
from benchmarks.outbox.lesson import DURATION_S, TURNS
from benchmarks.outbox.losses import losses
from benchmarks.outbox.reading import read_profile
from benchmarks.outbox.ways import PUBLISHED, WAYS, Way

SITUATIONS = ("healthy", "slow", "dead")
SLOW_MS = 1_000
RECORDS_IN_OUTAGE = 100_000
RECORDS_TO_DRAIN = 10_000
_FROZEN_AFTER_S = 40.0


@dataclass(frozen=True, slots=True)
class Target:
    """`promise`: not a matter of time, so missing it fails the run."""

    what: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False
    promise: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def measure_events(
    stage: BenchStage, console: Console, ways: Sequence[Way], seconds: float
) -> dict[str, Any]:
    """Cost of one event and longest stall, by way and situation."""
    found: dict[str, Any] = {}
    for situation in SITUATIONS:
        # In turn within a situation: what else the machine does meets all of them.
        for way in ways:
            console.print(f"  one event: Convex {situation}, {way} …")
            stage.fail(**({"kind": "delay", "delayMs": SLOW_MS} if situation == "slow" else {}))
            found.setdefault(way, {})[situation] = stage.measure(
                "one_event",
                way,
                dead=situation == "dead",
                seconds=seconds,
                timeout_s=seconds + _FROZEN_AFTER_S,
            )
    stage.fail()
    return found


def measure_rest(stage: BenchStage, console: Console) -> dict[str, Any]:
    """Everything that is measured of the recorder alone, beside nothing."""
    found: dict[str, Any] = {}
    console.print("  events back to back …")
    found["back_to_back"] = {
        way: stage.measure("back_to_back", way, dead=True, events=3_000)
        for way in ("nothing", "recorder")
    }
    console.print("  a lesson of 25 minutes …")
    before = stage.calls("sessions:record")
    found["lesson"] = {
        way: stage.measure("whole_lesson", way, end_timeout_s=20.0)
        for way in ("nothing", "recorder")
    }
    found["requests_per_message"] = (stage.calls("sessions:record") - before) / (2 * TURNS)
    console.print("  from listener to subscriber …")
    found["to_subscriber"] = stage.measure(
        "to_subscriber", "recorder", events=180, end_timeout_s=20.0
    )
    console.print(f"  {RECORDS_TO_DRAIN} records to drain …")
    found["drain"] = stage.measure(
        "drain", "recorder", events=RECORDS_TO_DRAIN, end_timeout_s=100.0
    )
    console.print(f"  {RECORDS_IN_OUTAGE} records in an outage …")
    found["outage"] = {
        way: stage.measure("outage", way, dead=True, events=RECORDS_IN_OUTAGE)
        for way in ("nothing", "recorder")
    }
    console.print("  reading the profile in a tool …")
    found["profile"] = read_profile()
    return found


def targets(events: dict[str, Any], rest: dict[str, Any], lost: dict[str, Any]) -> list[Target]:
    """The verdicts; `lost` is by way and scenario."""
    ours = events["recorder"]
    healthy, dead = ours["healthy"], ours["dead"]
    lesson = rest["lesson"]
    cpu = (lesson["recorder"]["cpu_s"] - lesson["nothing"]["cpu_s"]) / DURATION_S
    grown = rest["outage"]["recorder"]["grown_bytes"] - rest["outage"]["nothing"]["grown_bytes"]
    drained = rest["drain"]["records"] / rest["drain"]["took_s"]
    stall = max(
        ours[situation]["stall_ms"] - events["nothing"][situation]["stall_ms"]
        for situation in SITUATIONS
    )
    broken = sum(
        loss["lost"] + loss["doubled"] + loss["reordered"] for loss in lost["recorder"].values()
    )
    return [
        Target("one event, p50", healthy["p50_us"], 25, "µs"),
        Target("one event, p99", healthy["p99_us"], 120, "µs"),
        Target("back to back, p50", rest["back_to_back"]["recorder"]["p50_us"], 8, "µs"),
        Target(
            "p50 with Convex dead to healthy", dead["p50_us"] / healthy["p50_us"], 1.25, "times"
        ),
        Target("listeners of a lesson", lesson["recorder"]["listeners_ms"], 40, "ms"),
        Target("stall beyond that of nothing, worst", stall, 5, "ms"),
        Target("lost, doubled or reordered", broken, 0, "", promise=True),
        Target("listener to subscriber, p50", rest["to_subscriber"]["p50_us"] / 1e3, 40, "ms"),
        Target("listener to subscriber, p99", rest["to_subscriber"]["p99_us"] / 1e3, 150, "ms"),
        Target("records drained per second", drained, 2_000, "/s", at_least=True),
        Target("memory for 100,000 records", grown / 2**20, 10, "MiB"),
        Target("requests per message", rest["requests_per_message"], 1.3, ""),
        Target("of one core per session", 100 * cpu, 1, "%"),
        Target("network calls of the profile tool", rest["profile"]["calls"], 0, "", promise=True),
    ]


def table_of_events(events: dict[str, Any]) -> Table:
    table = Table(title="One event on the audio loop, and the longest stall of the loop")
    table.add_column("way")
    for situation in SITUATIONS:
        table.add_column(f"Convex {situation}: p50 / p99 / max µs, stall ms")
    for way in events:
        cells = []
        for situation in SITUATIONS:
            one = events[way][situation]
            cells.append(
                "stopped for good"
                if one is None
                else f"{one['p50_us']:.0f} / {one['p99_us']:.0f} / {one['max_us']:.0f}, "
                f"{one['stall_ms']:.0f}"
            )
        table.add_row(way, *cells)
    return table


def table_of_losses(lost: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Messages lost / doubled / out of order, of those sent")
    table.add_column("")
    for way in lost:
        table.add_column(way)
    for scenario in next(iter(lost.values())):
        cells = []
        for found in lost.values():
            one = found[scenario]
            cells.append(
                f"{one['lost']} / {one['doubled']} / {one['reordered']} of {one['sent']}"
                + (", stopped for good" if one["frozen"] else "")
            )
        table.add_row(scenario.replace("_", " "), *cells)
    return table


def table_of_targets(verdicts: list[Target]) -> Table:
    table = Table(title="Targets, for a quiet machine of two cores")
    for name in ("", "measured", "target", "verdict"):
        table.add_column(name)
    for one in verdicts:
        missed = "BROKEN" if one.promise else "missed"
        table.add_row(
            one.what,
            f"{one.measured:.2f} {one.unit}",
            f"{'≥' if one.at_least else '≤'} {one.limit:g} {one.unit}",
            "met" if one.met else missed,
        )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="DIR",
        help="measure a published recorder too, installed there (benchmarks/outbox/published.py)",
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of events")
    arguments = parser.parse_args()
    console = Console(width=150)
    ways = WAYS if arguments.published is None else (*WAYS, *PUBLISHED)
    with BenchStage.set_up(arguments.published) as stage:
        events = measure_events(stage, console, ways, arguments.seconds)
        rest = measure_rest(stage, console)
        lost: dict[str, dict[str, Any]] = {}
        for way in ways[1:]:  # all but nothing
            console.print(f"  losses: {way} …")
            lost[way] = {name: asdict(one) for name, one in losses(stage, way).items()}
    verdicts = targets(events, rest, lost)
    console.print(table_of_events(events), table_of_losses(lost), table_of_targets(verdicts))
    if arguments.json is not None:
        results = {
            "events": events,
            "losses": lost,
            **rest,
            "targets": [{**asdict(one), "met": one.met} for one in verdicts],
        }
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(one.met for one in verdicts if one.promise) else 1


if __name__ == "__main__":
    sys.exit(main())
