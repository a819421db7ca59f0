"""What the worker's main process does beside dispatching: look after the deployment.

It never carries audio, so it may take its time; it is alive when a job has died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from emma_agent.deployment import CHECK_SUBJECT, Finding, check_deployment
from emma_agent.lesson import report_failure
from emma_agent.logs import get_logger
from emma_agent.settings import get_settings
from livekit.plugins.convex import AgentToken, AsyncConvexClient, ConfigurationError

__all__ = ["Duties", "check_configured_deployment"]

log = get_logger(__name__)


class Duties:
    """Owns the main process's background tasks. LiveKit ends them with its event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Start; a listener of the server's `worker_started`."""
        self._own(_report_deployment(), "duties.check_deployment")

    def _own(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(report_failure)


async def check_configured_deployment() -> Finding:
    """Check the deployment that the settings name, with the key they hold."""
    settings = get_settings()
    try:
        token = AgentToken(settings.agent_key(), subject=CHECK_SUBJECT)
        client = AsyncConvexClient(url=settings.deployment_url, token=token)
    except ConfigurationError as error:
        return Finding("convex.wrong_address", str(error), "correct the variable it names")
    async with client:
        return await check_deployment(client)


async def _report_deployment() -> None:
    finding = await check_configured_deployment()
    if finding.ok:
        log.info(finding.event)
    else:
        log.warning(finding.event, reason=finding.reason, remedy=finding.remedy)
