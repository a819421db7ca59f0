"""Recovery: the journals of runs that died are delivered by whoever finds them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .directory import check_directory
from .erasure import ask_about_kept
from .errors import ConvexClientError, JournalLockedError, OutboxError
from .journal import SUFFIX, Header, Journal, default_directory
from .log import logger
from .lost_run import end_lost_run
from .recorder import speaking_for
from .sender import Held, Sender
from .transport import check_url

if TYPE_CHECKING:
    from livekit.agents import AgentServer

    from .client import AsyncConvexClient

SWEEP_EVERY_S = 15.0
MAX_IN_FLIGHT = 4
_READDRESS = (
    "its records wait for that deployment; if they belong to this worker's, move them with "
    "`outbox readdress` (livekit.plugins.convex.readdress)"
)
# At the start, and about once an hour, Convex is asked about what is kept for operators.
_SWEEPS_TO_ASK = 240
# A journal has its name within microseconds of its first byte.
_ABANDONED_AFTER_S = 60.0


@dataclass(slots=True)
class SweepReport:
    """What one sweep found.

    Attributes:
        delivered: journals of which Convex now has everything.
        erased: journals of students who were erased, and what was kept of others; they are gone
            here too.
        held: journals with something left that Convex did not take.
        owned: journals of runs that live, or that another sweep has.
        foreign: journals of other deployments; they are left alone.
        unreadable: journals whose header cannot be read.
        records: records that were delivered.
        runs_lost: runs that had died without an end, and were given one.
        held_for: of those held, why, by the file's name; one that was not tried, because Convex
            was out of reach for others, is not among them.
    """

    delivered: int = 0
    erased: int = 0
    held: int = 0
    owned: int = 0
    foreign: int = 0
    unreadable: int = 0
    records: int = 0
    runs_lost: int = 0
    held_for: dict[str, Held] = field(default_factory=dict, compare=False)


class Recovery:
    """Sweeps a directory for journals that nobody holds: at start, and every 15 s.

    Runs in the worker's main process, which outlives its jobs. Two workers may share a directory:
    a journal is delivered by the one that has its lock, and repeats change nothing. Convex is
    asked once per journal and sweep, so a deployment that is away is not hammered.

    A run that died left no end. It is given one, `run_lost`, as soon as Convex has everything that
    can be read of it, and not before: what its journal holds until then is what the run wrote. The
    end goes through the journal as any record does, so it too survives whoever wrote it.

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
            try:
                journal = Journal.adopt(path)
            except JournalLockedError:
                report.owned += 1
                return
            except (OutboxError, OSError) as error:
                report.unreadable += 1
                self._tell_once("recovery.journal_unreadable", path.name, error=error)
                return
            try:
                await self._send(journal, report, unreachable)
            except Exception as error:  # noqa: BLE001  one journal keeps no other back
                report.held += 1
                report.held_for[path.name] = Held(type(error).__name__, unreachable=False)
                self._tell_once("recovery.journal_failed", path.name, error=error)
            finally:
                journal.close()

    async def _send(
        self, journal: Journal, report: SweepReport, unreachable: asyncio.Event
    ) -> None:
        header = journal.header
        if header.deployment not in ("", self._client.url):
            report.foreign += 1
            self._tell_once(
                "recovery.foreign_journal",
                journal.path.name,
                deployment=header.deployment,
                remedy=_READDRESS,
            )
            return
        self._last_tried[journal.path.name] = self._sweeps
        client = speaking_for(self._client, header)
        try:
            sender = Sender(journal, client)
            sender.on_progress = self._progress_of(sender)
            held = await sender.drain()
            if held is None and not sender.ended and not sender.erased:
                end_lost_run(journal, seq=sender.next_seq)
                report.runs_lost += 1
                logger.warning("recovery.run_lost", extra=sender.about())
                held = await sender.drain()
        finally:
            await client.aclose()
        report.records += sender.delivered
        if sender.erased:
            report.erased += 1
        elif held is None:
            sender.finish()
            report.delivered += 1
        else:
            report.held += 1
            report.held_for[journal.path.name] = held
            if held.unreachable:
                unreachable.set()

    def _for_kept(self, header: Header) -> AsyncConvexClient | None:
        ours = header.deployment in ("", self._client.url)
        return speaking_for(self._client, header) if ours else None

    def _progress_of(self, sender: Sender) -> Callable[[], None] | None:
        tell = self._on_progress
        if tell is None:
            return None
        told = 0

        def progressed() -> None:
            nonlocal told
            tell(sender.journal.header.run_id, sender.delivered - told)
            told = sender.delivered

        return progressed

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
                # Ours say what to do; a foreign error's text may hold anything.
                ours = isinstance(error, (OutboxError, ConvexClientError))
                extra["error"] = str(error) if ours else type(error).__name__
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
            told = str(error) if isinstance(error, OutboxError) else type(error).__name__
            logger.warning("outbox.journal_unreadable", extra={"path": path.name, "error": told})
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
