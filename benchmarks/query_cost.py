"""What each public query reads and how long it takes, by the size of the school.

    make bench-queries

Fills convex-local to 1,000, 10,000 and 100,000 messages with all that belongs to them, and calls
every public query at each size in turn, so that a busy machine is busy for all of them alike. For
each it prints documents and bytes read, p50 and p99, and whether the targets are met: documents at
most the declared rows (declared_costs.py) and four, the same at every size; p50 at the largest size
at most 1.3 times that at the smallest; every p99 below 20 ms.

Ends with 1 if a count is not what it shall be. A time that is missed is printed with by how much;
the last line of the table says what the machine itself takes, for requests that read nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.declared_costs import ALLOWANCE, COSTS
from benchmarks.filled_school import Answer, FilledSchool
from benchmarks.project import load_project

SIZES = (1_000, 10_000, 100_000)
CALLS = 200
WARM_UP = 20
MAX_GROWTH = 1.3
MAX_P99_MS = 20.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One query at one size; times in milliseconds."""

    documents: int
    bytes: int
    p50: float
    p99: float


def main() -> int:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="MESSAGES")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls of each query at each size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    options = parser.parse_args()
    builders = {path: one.builder for path, one in load_project().public_queries.items()}
    undeclared = set(builders) ^ set(COSTS)
    if undeclared:
        say(f"benchmarks/declared_costs.py and convex/ differ in: {', '.join(sorted(undeclared))}")
        return 1
    with contextlib.ExitStack() as stack:
        schools = [filled(stack, size) for size in sorted(options.sizes)]
        results, pings = measure(schools, builders, options.calls)
    say("")
    say(header(schools))
    for path, found in results.items():
        say(line(path, found))
    nothing = [percentile(pings, share) for share in (0.50, 0.99)]
    say(f"a request that reads nothing: p50 {nothing[0]:.2f} ms, p99 {nothing[1]:.1f} ms")
    broken = [text for path, found in results.items() for text in count_faults(path, found)]
    missed = [text for path, found in results.items() for text in time_faults(path, found)]
    if options.json is not None:
        printed = as_json(schools, results, nothing)
        options.json.write_text(json.dumps(printed, indent=2) + "\n")
    say("")
    verdict("documents within the declared rows + 4, the same at every size", broken)
    verdict(f"p50 grows at most {MAX_GROWTH:g} times, p99 below {MAX_P99_MS:g} ms", missed)
    return 1 if broken else 0


def filled(stack: contextlib.ExitStack, size: int) -> FilledSchool:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emma-bench-")))
    started = told = time.monotonic()

    def progress(written: int) -> None:
        nonlocal told
        if time.monotonic() - told > 5:
            told = time.monotonic()
            say(f"filling: {written:,} of {size:,} messages")

    school = stack.enter_context(FilledSchool.start(folder, messages=size, on_progress=progress))
    megabytes = (folder / "db.sqlite3").stat().st_size / 1_000_000
    took = time.monotonic() - started
    say(f"filled to {size:,} messages in {took:.1f} s: {megabytes:,.0f} MB")
    return school


def measure(
    schools: Sequence[FilledSchool], builders: dict[str, str], calls: int
) -> tuple[dict[str, list[Measured]], list[float]]:
    """Each query at each size, one call after the other, again and again: what else the machine
    does hits all of them alike. And how many ms requests took in between that read nothing."""
    answers: dict[str, list[list[Answer]]] = {path: [[] for _ in schools] for path in COSTS}
    pings: list[float] = []
    gc.collect()
    gc.disable()
    for call in range(WARM_UP + calls):
        if call % 50 == WARM_UP:
            say(f"measuring: call {call - WARM_UP} of {calls} of each query at each size")
        pings += [school.ping() for school in schools]
        for path, cost in COSTS.items():
            builder = builders[path]
            caller = cost.callers_of(builder)[0]
            # No size always comes first, when the other processes have just rested.
            for index in sorted(range(len(schools)), key=lambda i: (i + call) % len(schools)):
                school = schools[index]
                args = cost.args_for(school.names, caller, builder)
                answer = school.query(path, args, caller=caller)
                if answer.error is not None:
                    raise SystemExit(f"{path}: {answer.error}")
                if call >= WARM_UP:
                    answers[path][index].append(answer)
    gc.enable()
    found = {path: [summary(of_size) for of_size in sizes] for path, sizes in answers.items()}
    return found, sorted(1000 * seconds for seconds in pings)


def summary(answers: Sequence[Answer]) -> Measured:
    times = sorted(1000 * answer.seconds for answer in answers)
    usage = answers[-1].usage
    return Measured(
        documents=max(answer.usage.documents_read for answer in answers),
        bytes=usage.bytes_read,
        p50=percentile(times, 0.50),
        p99=percentile(times, 0.99),
    )


def percentile(ascending: Sequence[float], share: float) -> float:
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def count_faults(path: str, found: Sequence[Measured]) -> list[str]:
    declared, read = COSTS[path].declared, [one.documents for one in found]
    faults = []
    if max(read) > declared + ALLOWANCE:
        faults.append(f"{path} reads {max(read)} documents, {declared} are declared")
    if min(read) < declared:
        faults.append(f"{path} reads {min(read)} documents, fewer than the {declared} declared")
    if len(set(read)) > 1:
        faults.append(f"{path} reads {', '.join(map(str, read))} documents, by size")
    return faults


def time_faults(path: str, found: Sequence[Measured]) -> list[str]:
    growth, slowest = found[-1].p50 / found[0].p50, max(one.p99 for one in found)
    faults = []
    if growth > MAX_GROWTH:
        faults.append(
            f"{path}: p50 grows {growth:.2f} times, from {found[0].p50:.2f} to {found[-1].p50:.2f} ms"
        )
    if slowest >= MAX_P99_MS:
        faults.append(f"{path}: p99 is {slowest:.1f} ms, {slowest - MAX_P99_MS:.1f} ms too long")
    return faults


def header(schools: Sequence[FilledSchool]) -> str:
    sizes = "".join(f"{f'p50 {school.messages:,}':>13}" for school in schools)
    return f"{'':<26}{'docs':>6}{'max':>6}{'bytes':>10}{sizes}{'growth':>8}{'p99':>7}"


def line(path: str, found: Sequence[Measured]) -> str:
    documents = "/".join(map(str, sorted({one.documents for one in found})))
    p50s = "".join(f"{one.p50:>10.2f} ms" for one in found)
    growth, p99 = found[-1].p50 / found[0].p50, max(one.p99 for one in found)
    ok = not count_faults(path, found) and not time_faults(path, found)
    return (
        f"{path:<26}{documents:>6}{COSTS[path].declared + ALLOWANCE:>6}{found[-1].bytes:>10,}{p50s}"
        f"{growth:>8.2f}{p99:>7.1f}{'' if ok else '  <--'}"
    )


def verdict(target: str, faults: Sequence[str]) -> None:
    say(f"{'met   ' if not faults else 'missed'}  {target}")
    for fault in faults:
        say(f"        {fault}")


def as_json(
    schools: Sequence[FilledSchool], results: dict[str, list[Measured]], nothing: Sequence[float]
) -> dict[str, Any]:
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "nothing_read_p50_p99_ms": [round(time, 3) for time in nothing],
        "messages": [school.messages for school in schools],
        "queries": {
            path: {
                "declared_rows": COSTS[path].declared,
                "documents_read": [one.documents for one in found],
                "bytes_read": [one.bytes for one in found],
                "p50_ms": [round(one.p50, 3) for one in found],
                "p99_ms": [round(one.p99, 3) for one in found],
            }
            for path, found in results.items()
        },
    }


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
