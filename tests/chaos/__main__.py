"""Play every scenario and print what became of what was recorded: `make chaos`.

Exit code 1 if a promise was broken in one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import Stage, Verdict

_COLUMNS = ("sent", "stored", "lost", "doubled", "reordered", "open")


async def play(scenarios: Sequence[Scenario], directory: Path, console: Console) -> bool:
    """Play them one after the other; whether every promise was kept."""
    width = max(len(scenario.name) for scenario in scenarios)
    console.print(f"{'':{width}}  " + "  ".join(f"{name:>9}" for name in _COLUMNS))
    kept = True
    for number, scenario in enumerate(scenarios):
        # A stage of its own: what one has broken is none of the next one's business.
        folder = directory / str(number)
        folder.mkdir()
        began = time.monotonic()
        try:
            async with Stage.set_up(folder) as stage:
                verdict = await scenario.play(stage)
        except (AssertionError, TimeoutError) as error:
            console.print(f"{scenario.name:{width}}  broke off: {error or type(error).__name__}")
            kept = False
            continue
        kept = kept and verdict.kept
        console.print(
            f"{scenario.name:{width}}  {_numbers(verdict)}  "
            f"{'kept' if verdict.kept else 'BROKEN'}  {time.monotonic() - began:.0f} s"
        )
    return kept


def _numbers(verdict: Verdict) -> str:
    return "  ".join(f"{asdict(verdict)[name]:9}" for name in _COLUMNS)


def _chosen(names: Sequence[str]) -> Iterator[Scenario]:
    for scenario in SCENARIOS:
        if not names or any(name in scenario.name for name in names):
            yield scenario


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument(
        "name", nargs="*", help="only the scenarios whose names contain one of these"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs, data and journals")
    arguments = parser.parse_args()
    scenarios = list(_chosen(arguments.name))
    if not scenarios:
        parser.error(f"no scenario is called so; there are: {[one.name for one in SCENARIOS]}")
    folder = Path(tempfile.mkdtemp(prefix="emma-chaos-"))
    try:
        return 0 if asyncio.run(play(scenarios, folder, Console(width=160))) else 1
    finally:
        if arguments.keep:
            Console().print(f"Logs, data and journals: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
