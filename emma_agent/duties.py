"""What the worker's main process does beside dispatching: look after what lessons leave.

It never carries audio, so it may take its time; it is alive when a job has died.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from emma_agent import known_context
from emma_agent.deployment import check_deployment, worker_client
from emma_agent.lesson import report_failure
from emma_agent.logs import get_logger
from emma_agent.settings import Settings, get_settings
from livekit.plugins.convex import AsyncConvexClient, Recovery

__all__ = ["Duties"]

log = get_logger(__name__)

# What is kept of students who do not come back goes when it is a week old, give or take this.
_PRUNE_EVERY_S: Final = 3_600.0


class Duties:
    """Owns the main process's background work; LiveKit ends it with its event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start, once; a listener of the server's `worker_started`."""
        self._task = asyncio.create_task(_work(get_settings()), name="duties")
        self._task.add_done_callback(report_failure)


async def _work(settings: Settings) -> None:
    async with worker_client(settings) as client:
        # The journals of jobs and workers that died: nobody else delivers them.
        recovery = Recovery(client, directory=settings.outbox_dir)
        recovery.start()
        report = asyncio.create_task(_report_deployment(client), name="duties.report")
        prune = asyncio.create_task(_prune(settings.outbox_directory), name="duties.prune")
        for task in (report, prune):
            # Its failure is said and ends nothing else.
            task.add_done_callback(report_failure)
        try:
            await asyncio.Event().wait()  # LiveKit cancels what is left on its loop
        finally:
            report.cancel()
            prune.cancel()
            await recovery.aclose()


async def _prune(directory: Path) -> None:
    """Remove what was last known of students when it is too old, or too much."""
    while True:
        try:
            removed = await asyncio.to_thread(known_context.prune, directory)
        except OSError as error:
            log.warning(
                "known_context.not_pruned",
                error=type(error).__name__,
                remedy="see that this user may write EMMA_OUTBOX_DIR (doctor); trying again",
            )
        else:
            if removed:
                log.info("known_context.pruned", files=removed)
        await asyncio.sleep(_PRUNE_EVERY_S)


async def _report_deployment(client: AsyncConvexClient) -> None:
    finding = await check_deployment(client)
    if finding.ok:
        log.info(finding.event)
    else:
        log.warning(finding.event, reason=finding.reason, remedy=finding.remedy)
