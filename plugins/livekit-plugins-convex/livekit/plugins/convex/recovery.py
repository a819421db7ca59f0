"""Recovery: the journals of runs that died are delivered by whoever finds them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .directory import check_directory
from .erasure import ask_about_kept
from .errors import JournalLockedError, OutboxError, told
from .journal import SUFFIX, Header, Journal, default_directory
from .log import logger
from .recorder import speaking_for
from .salvage import MAX_IN_FLIGHT, SweepReport, deliver_left
from .transport import check_url

if TYPE_CHECKING:
    from livekit.agents import AgentServer

    from .client import AsyncConvexClient

SWEEP_EVERY_S = 15.0
_READDRESS = (
    "its records wait for that deployment; if they belong to this worker's, move them with "
    "`outbox readdress` (livekit.plugins.convex.readdress)"
)
# At the start, and about once an hour, Convex is asked about what is kept for operators.
_SWEEPS_TO_ASK = 240
# A journal has its name within microseconds of its first byte.
_ABANDONED_AFTER_S = 60.0


class Recovery:
    """Sweeps a directory for journals that nobody holds: at start, and every 15 s.

    Runs in the worker's main process, which outlives its jobs. Two workers may share a directory:
    a journal is delivered by the one that has its lock, and repeats change nothing. Convex is
    asked once per journal and sweep, so a deployment that is away is not hammered.

    A run that died without an end is given one, `run_lost`, when Convex has all else of it
    (salvage.py).

    Args:
        client: signs for each journal's student with its `AgentKey`; closed by its owner.
        directory: None for the recorder's default.
        on_progress: called with a run's id and the number of its records that were just delivered.
        sleep, jitter: time and chance, for tests; `jitter(a, b)` as `random.uniform`.
    """

    def __init__(
        self,
        client: AsyncConvexClient,
        *,
        directory: Path | str | None = None,
        interval_s: float = SWEEP_EVERY_S,
        max_in_flight: int = MAX_IN_FLIGHT,
        on_progress: Callable[[str, int], None] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.directory = default_directory() if directory is None else Path(directory)
        self._client = client
        self._interval_s = interval_s
        self._in_flight = asyncio.Semaphore(max_in_flight)
        self._on_progress = on_progress
        self._sleep = sleep
        self._jitter = jitter
        self._told: set[tuple[str, str]] = set()
        self._sweeps = 0
        self._last_tried: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def attach(
        cls,
        server: AgentServer,
        *,
        client: Callable[[], AsyncConvexClient],
        directory: Path | str | None = None,
    ) -> None:
        """Sweep in the worker's main process from the moment that it has started.

        Args:
            client: makes the client, on the worker's loop: one made at import would not survive
                the fork.
        """
        kept: list[Recovery] = []

        def on_worker_started() -> None:
            try:
                recovery = cls(client(), directory=directory)
                recovery.start()
            except Exception as error:  # noqa: BLE001  the worker teaches on without it
                logger.error("recovery.not_started", extra={"error": type(error).__name__})
            else:
                kept.append(recovery)

        server.on("worker_started", on_worker_started)

    def start(self) -> None:
        """Begin to sweep in the background. Needs a running loop.

        A directory that cannot be used is an error in the log at this moment, before anybody has
        joined: sessions will be kept in memory alone.
        """
        if self._task is None:
            try:
                check_directory(self.directory)
            except OutboxError as error:
                logger.error("recovery.outbox_unusable", extra={"error": str(error)})
            self._task = asyncio.create_task(self._run(), name="outbox-recovery")

    async def aclose(self) -> None:
        """Stop; what is in flight is cut off and found again by the next sweep."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def sweep(self) -> SweepReport:
        """Deliver what can be delivered now, a few journals at a time."""
        report = SweepReport()
        self._sweeps += 1
        self._remove_abandoned()
        unreachable = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for path in self._journals():
                group.create_task(self._deliver(path, report, unreachable))
        if self._sweeps % _SWEEPS_TO_ASK == 1 and not unreachable.is_set():
            report.erased += await ask_about_kept(self.directory, self._for_kept)
        return report

    async def _run(self) -> None:
        while True:
            try:
                report = await self.sweep()
                if report.records:
                    logger.info(
                        "recovery.delivered",
                        extra={"journals": report.delivered, "records": report.records},
                    )
            except Exception as error:  # noqa: BLE001  the next sweep may fare better
                logger.error("recovery.sweep_failed", extra={"error": type(error).__name__})
            # Workers that were started together shall not sweep together for ever.
            await self._sleep(self._interval_s * self._jitter(0.8, 1.2))

    def _journals(self) -> list[Path]:
        """What there is: first what was longest not tried, and of that the oldest.

        A journal whose every request fails would otherwise stand before all others for ever,
        since a sweep ends where Convex seems out of reach.
        """
        found: list[tuple[int, float, Path]] = []
        try:
            for path in self.directory.glob(f"*{SUFFIX}"):
                # Another worker may have delivered it since it was listed.
                with contextlib.suppress(FileNotFoundError):
                    found.append((self._last_tried.get(path.name, 0), path.stat().st_mtime, path))
        except OSError as error:
            self._tell_once("recovery.directory_unreadable", str(self.directory), error=error)
            return []
        self._last_tried = {path.name: tried for tried, _, path in found if tried}
        return [path for _, _, path in sorted(found)]

    async def _deliver(self, path: Path, report: SweepReport, unreachable: asyncio.Event) -> None:
        async with self._in_flight:
            if unreachable.is_set():
                report.held += 1
                return
            outcome = await deliver_left(path, self._client, on_progress=self._on_progress)
        report.count(path, outcome)
        match outcome.found:
            case "delivered" | "erased" | "held":
                self._last_tried[path.name] = self._sweeps
                if outcome.error is not None:
                    self._tell_once("recovery.journal_failed", path.name, error=outcome.error)
                if outcome.held is not None and outcome.held.unreachable:
                    unreachable.set()
            case "unreadable":
                self._tell_once("recovery.journal_unreadable", path.name, error=outcome.error)
            case "foreign":
                self._tell_once(
                    "recovery.foreign_journal",
                    path.name,
                    deployment=outcome.deployment,
                    remedy=_READDRESS,
                )
            case _:
                pass

    def _for_kept(self, header: Header) -> AsyncConvexClient | None:
        ours = header.deployment in ("", self._client.url)
        return speaking_for(self._client, header) if ours else None

    def _remove_abandoned(self) -> None:
        """Journals that never got their name: no record was in them."""
        for path in self.directory.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime < _ABANDONED_AFTER_S:
                    continue
                fd = os.open(path, os.O_RDWR)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(fd)

    def _tell_once(
        self, event: str, name: str, *, error: Exception | None = None, **about: str
    ) -> None:
        if (event, name) not in self._told:
            self._told.add((event, name))
            extra = {"path": name, **about}
            if error is not None:
                extra["error"] = told(error)
            logger.warning(event, extra=extra)


def readdress(directory: Path | str, *, old: str, new: str) -> int:
    """Make journals of the deployment `old` journals of `new`; return how many.

    For records that were held while a worker had a wrong CONVEX_URL, or whose deployment has a
    new address. Everything in a journal is sent to `new`, also what `old` has taken. Journals of
    runs that live are left alone. Blocks while the journals are copied: for a command line.

    Args:
        directory: where the journals lie.
        old: the URL as the journals name it; "" for those that name none.

    Raises:
        ConfigurationError: `new` cannot be a deployment's address.
        OutboxError: the disk failed; the journals that were not done are as they were, and it may
            be called again.
    """
    new = check_url(new)
    old = old.strip().rstrip("/")
    if old == new:
        return 0
    done = 0
    for path in sorted(Path(directory).glob(f"*{SUFFIX}")):
        try:
            journal = Journal.adopt(path)
        except JournalLockedError:
            continue
        except (OutboxError, OSError) as error:
            about = {"path": path.name, "error": told(error)}
            logger.warning("outbox.journal_unreadable", extra=about)
            continue
        try:
            if journal.header.deployment == old:
                journal.readdress(new)
                done += 1
        except OSError as error:
            raise OutboxError(
                f"{path.name} could not be readdressed ({error.strerror}); {done} were before it, "
                "and the others are as they were"
            ) from error
        finally:
            journal.close()
    return done
