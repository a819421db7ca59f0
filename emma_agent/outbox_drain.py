"""Deliver what waits in an outbox now, with its progress before one's eyes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emma_agent.deployment import worker_client
from emma_agent.outbox_state import Standing, standing_of
from emma_agent.settings import Settings
from livekit.plugins.convex import Recovery, SweepReport
from livekit.plugins.convex.inspection import journals
from livekit.plugins.convex.sender import Held

__all__ = ["Drained", "drain_outbox"]

# For so long Convex is asked again while it takes nothing.
PATIENCE_S: Final = 30.0
_PAUSE_S: Final = 1.0
_NOT_TRIED: Final = Held("Convex is out of reach", unreachable=True)


@dataclass(slots=True)
class Drained:
    """What a drain has done.

    Attributes:
        delivered: records that Convex took, without those it refused for good.
        runs_lost: runs that had died without an end, and were given one.
        interrupted: by Ctrl-C.
        left: how what is still there stands.
    """

    delivered: int = 0
    runs_lost: int = 0
    interrupted: bool = False
    left: list[Standing] = field(default_factory=list)


def drain_outbox(
    settings: Settings, directory: Path, *, timeout_s: float | None, quiet: bool
) -> Drained:
    """Deliver all journals of the settings' deployment that nobody holds.

    Args:
        timeout_s: for everything; None: until Convex has taken nothing for 30 s.
        quiet: show no progress.

    Raises:
        OSError: the directory cannot be read.
    """
    drained = Drained()
    held_for: dict[str, Held] = {}
    waiting = sum(
        journal.pending
        for journal in journals(directory)
        if journal.header is not None
        and not journal.live
        and journal.header.deployment in ("", settings.deployment_url)
    )
    progress = Progress(
        TextColumn("Delivering"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
    with progress:
        bar = progress.add_task("deliver", total=waiting)

        def delivered(_: str, count: int) -> None:
            drained.delivered += count
            # The ends of runs that died come on top of what waited.
            progress.update(bar, advance=count, total=max(waiting, drained.delivered))

        async def run() -> None:
            async with asyncio.timeout(timeout_s), worker_client(settings) as client:
                recovery = Recovery(client, directory=directory, on_progress=delivered)
                await _sweep_until_done(recovery, drained, held_for)

        try:
            asyncio.run(run())
        except TimeoutError:
            pass
        except KeyboardInterrupt:
            drained.interrupted = True
    drained.left = [
        _held(standing, held_for)
        for standing in standing_of(journals(directory), [], deployment=settings.deployment_url)
    ]
    return drained


async def _sweep_until_done(
    recovery: Recovery, drained: Drained, held_for: dict[str, Held]
) -> None:
    """Sweep until nothing is held, or waiting any longer would not help."""
    progressed_at = time.monotonic()
    while True:
        before = drained.delivered
        report = await recovery.sweep()
        drained.runs_lost += report.runs_lost
        held_for.clear()
        held_for.update(report.held_for)
        if drained.delivered > before:
            progressed_at = time.monotonic()
        if not _may_help(report) or time.monotonic() - progressed_at >= PATIENCE_S:
            return
        await asyncio.sleep(_PAUSE_S)


def _may_help(report: SweepReport) -> bool:
    """Whether another sweep may deliver more: Convex was out of reach for one of them."""
    return any(held.unreachable for held in report.held_for.values())


def _held(standing: Standing, held_for: dict[str, Held]) -> Standing:
    if standing.state not in ("waiting", "damaged"):
        return standing
    out_of_reach = any(held.unreachable for held in held_for.values())
    held = held_for.get(f"{standing.run_id}.journal", _NOT_TRIED if out_of_reach else None)
    if held is None:
        return standing
    remedy = held.remedy
    if remedy is None and held.unreachable:
        remedy = "it is delivered when Convex answers again; `python -m emma_agent doctor` says why"
    return standing.because(held.reason, remedy)
