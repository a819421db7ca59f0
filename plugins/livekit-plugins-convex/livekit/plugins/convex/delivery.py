"""Delivery: the records of a live run to Convex, while the lesson goes on."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .errors import ConvexClientError
from .log import logger
from .outbox import Outbox
from .sender import DEPLOY, REQUEST_TIMEOUT_S, Caller, Held, Sender

RECORD_VERSIONS = "sessions:recordVersions"

FIRST_WAIT_S = 0.25
MAX_WAIT_S = 15.0
# Full jitter may come out at nothing; a refusing server is not asked faster than this.
MIN_WAIT_S = 0.05
# What a power cut can take (design, decision 2).
SYNC_EVERY_S = 1.0

_NAME_THE_DEPLOYMENT = (
    "set CONVEX_URL and start the worker again: the records wait on disk, and go to it then"
)


class Delivery:
    """Sends what an outbox holds, from `start` to `aclose`, retrying for as long as that takes.

    A message leaves at once; tool calls and usage wait up to 15 s for a message to ride along
    with. While one batch is in flight the next gathers on disk.

    Where the journal's header names no deployment nothing is sent: recovery does that, from a
    worker that knows where to.

    Args:
        outbox: the run's own; delivery closes it, and its journal.
        client: speaks for the student of the journal's header.
        clock: Unix seconds.
        monotonic, sleep, jitter: time and chance, for tests; `jitter(a, b)` as `random.uniform`.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: Caller,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.sender = Sender(outbox.journal, client, outbox=outbox, clock=clock)
        self._outbox = outbox
        self._has_address = outbox.journal.header.deployment != ""
        self._client = client
        self._monotonic = monotonic
        self._sleep = sleep
        self._jitter = jitter
        self._attempt = 0
        self._due = math.inf
        self._waiting_until: float | None = None
        self._due_earlier = asyncio.Event()
        self._hurry = asyncio.Event()
        self._progress = asyncio.Event()
        self._unsynced = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._disk: ThreadPoolExecutor | None = None
        self._sync_failed = False
        self._closed = False

    @property
    def pending(self) -> int:
        """Records that Convex has not confirmed."""
        return self.sender.pending

    def start(self) -> None:
        """Begin to deliver in the background. Needs a running loop."""
        if self._tasks or self._closed:
            return
        self._outbox.on_append = self.notify
        self.sender.on_progress = self._progressed
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox-disk")
        work = [("outbox-sync", self._keep_synced())]
        if self._has_address:
            work.append(("outbox-delivery", self._run()))
            work.append(("outbox-versions", self._check_versions()))
        else:
            logger.warning(
                "outbox.deployment_unknown", extra=self.sender.about(remedy=_NAME_THE_DEPLOYMENT)
            )
        for name, coroutine in work:
            task = asyncio.create_task(coroutine, name=name)
            task.add_done_callback(self._ended)
            self._tasks.append(task)
        if self.pending:
            self.notify(0.0)

    def notify(self, within_s: float) -> None:
        """A record was appended; it may wait `within_s` for others. Costs next to nothing."""
        due = self._monotonic() + within_s
        if due < self._due:
            self._due = due
            if self._waiting_until is not None and due < self._waiting_until:
                self._due_earlier.set()
        if not self._unsynced.is_set():
            self._unsynced.set()

    async def flush(self, timeout_s: float) -> int:
        """Send what is pending now, for at most `timeout_s` seconds; return what is left."""
        idle = not self._tasks or self._closed or not self._has_address
        if idle or not self.pending or timeout_s <= 0:
            return self.pending
        timer = _task(self._sleep(timeout_s))
        try:
            self._hurry.set()
            while self.pending and not timer.done() and not self._closed:
                self._progress.clear()
                await _first(self._progress.wait(), also=timer)
        finally:
            await _end(timer)
        return self.pending

    async def aclose(self, timeout_s: float) -> int:
        """Flush, stop, and give the journal up; return what is left undelivered in it.

        A journal that has ended and is confirmed is deleted. Any other stays on disk for recovery.
        May be called twice; if it is cancelled, the flush alone is cut short.
        """
        try:
            await self.flush(timeout_s)
        finally:
            # A journal that is not given up cannot be recovered while this process lives.
            left = await self._stop()
        return left

    async def _stop(self) -> int:
        if self._closed:
            return self.pending
        self._closed = True
        self._outbox.on_append = None
        for task in self._tasks:
            await _end(task)
        self._outbox.close()
        left = self.pending
        gone = self._outbox.waiting_in_memory if self._outbox.journal.durable else left
        if gone:
            self._outbox.lost += gone
            logger.error("outbox.lost_with_memory", extra=self.sender.about(lost=gone))
        if not self.sender.finish():
            if self._disk is not None and self._unsynced.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sync(), SYNC_EVERY_S)
            self._outbox.journal.close()
        if self._disk is not None:
            self._disk.shutdown(wait=False)
        return left

    async def _run(self) -> None:
        while True:
            await self._wait_until_due()
            self._hurry.clear()
            self._due = math.inf
            held = await self.sender.drain()
            if held is None:
                continue
            self._due = self._monotonic()
            # In a pause only a flush may hurry: appends do not make Convex come back.
            await _first(self._hurry.wait(), self._sleep(self._wait_s(held)))

    async def _wait_until_due(self) -> None:
        while not self._hurry.is_set() and (wait_s := self._due - self._monotonic()) > 0:
            self._waiting_until = self._due
            self._due_earlier.clear()
            waits: list[Awaitable[object]] = [self._due_earlier.wait(), self._hurry.wait()]
            if wait_s < math.inf:
                waits.append(self._sleep(wait_s))
            await _first(*waits)
        self._waiting_until = None

    def _wait_s(self, held: Held) -> float:
        """Exponential backoff with full jitter, and never sooner than Convex asked for."""
        ceiling = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._attempt, 16))
        self._attempt += 1
        return max(MIN_WAIT_S, self._jitter(0.0, ceiling), held.retry_after_s or 0.0)

    def _progressed(self) -> None:
        self._attempt = 0
        self._progress.set()

    async def _keep_synced(self) -> None:
        while True:
            await self._unsynced.wait()
            await self._sleep(SYNC_EVERY_S)
            self._unsynced.clear()
            if not self._outbox.write_tail():
                self._unsynced.set()
            await self._sync()

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._disk, self._outbox.journal.sync)
            self._sync_failed = False
        except OSError as error:
            if not self._sync_failed:
                self._sync_failed = True
                logger.error("outbox.sync_failed", extra=self.sender.about(error=error.errno))

    async def _check_versions(self) -> None:
        """Say early, and once, that the functions are older than this worker."""
        version = self._outbox.journal.header.record_version
        try:
            versions = await self._client.query(RECORD_VERSIONS, {}, timeout_s=REQUEST_TIMEOUT_S)
        except ConvexClientError:
            return  # the delivery itself will say what is wrong
        if isinstance(versions, list) and version not in versions:
            logger.warning(
                "outbox.version_unsupported",
                extra=self.sender.about(version=version, supported=str(versions), remedy=DEPLOY),
            )

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "outbox.task_failed",
                extra=self.sender.about(task=task.get_name(), error=type(error).__name__),
            )


async def _first(*waits: Awaitable[object], also: asyncio.Future[Any] | None = None) -> None:
    """Wait until one is done (`also` counts, and is left alone); end the others."""
    tasks = [_task(wait) for wait in waits]
    try:
        await asyncio.wait([*tasks, also] if also else tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            await _end(task)


def _task(awaitable: Awaitable[object]) -> asyncio.Task[object]:
    async def run() -> object:
        return await awaitable

    return asyncio.create_task(run())


async def _end(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
