"""What the worker's main process does beside dispatching: look after what lessons leave.

It never carries audio, so it may take its time; it is alive when a job has died.
"""

from __future__ import annotations

import asyncio

from emma_agent.deployment import check_deployment, worker_client
from emma_agent.lesson import report_failure
from emma_agent.logs import get_logger
from emma_agent.settings import Settings, get_settings
from livekit.plugins.convex import AsyncConvexClient, Recovery

__all__ = ["Duties"]

log = get_logger(__name__)


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
        # Its failure is said and ends nothing else.
        report.add_done_callback(report_failure)
        try:
            await asyncio.Event().wait()  # LiveKit cancels what is left on its loop
        finally:
            report.cancel()
            await recovery.aclose()


async def _report_deployment(client: AsyncConvexClient) -> None:
    finding = await check_deployment(client)
    if finding.ok:
        log.info(finding.event)
    else:
        log.warning(finding.event, reason=finding.reason, remedy=finding.remedy)
