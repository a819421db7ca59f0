"""What the outbox's tests stand on: a clock that moves when told, a Convex that folds in memory."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from convex import ConvexError
from livekit.plugins.convex import AgentKey, AgentToken, AsyncConvexClient
from livekit.plugins.convex.delivery import Delivery
from livekit.plugins.convex.encoding import encode
from livekit.plugins.convex.errors import FunctionError
from livekit.plugins.convex.journal import FORMAT, Header, Journal
from livekit.plugins.convex.limits import RECORD_VERSION
from livekit.plugins.convex.outbox import Outbox, numbered_line
from livekit.plugins.convex.records import AT_ONCE_S, MessageRecord, Record, RunEndedRecord
from livekit.plugins.convex.recovery import Recovery
from livekit.plugins.convex.testing import FakeConvex

NOW = 1_795_474_184.5
URL = "http://127.0.0.1:3210"


class FakeClock:
    """Time that passes only by `advance`; `time`, `monotonic` and `sleep` go together."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.slept: list[float] = []
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def time(self) -> float:
        return NOW + self.elapsed

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.elapsed + seconds, next(self._order), waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Let the time pass, and everything that waits for it run."""
        until = self.elapsed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self.elapsed, _, waiter = heapq.heappop(self._sleepers)
            if not waiter.done():
                waiter.set_result(None)
            await settle()
        self.elapsed = until
        await settle()


async def settle() -> None:
    """Let every task run until it waits for something outside the loop."""
    for _ in range(40):
        await asyncio.sleep(0)


class FoldingConvex:
    """`sessions:record` in memory, by the rules of the wire contract, with faults on request.

    Attributes:
        rows: records folded, by run.
        batches: the `seq`s of each call's records, also of calls that failed.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.batches: list[list[int]] = []
        self.queries = 0
        self.versions = [1]
        self.refuse: Callable[[dict[str, Any]], tuple[str, str] | None] = lambda record: None
        self.before: list[BaseException] = []
        """Raised by the next calls, before anything is folded."""
        self.after: list[BaseException] = []
        """Raised by the next calls although everything was folded: the reply is lost."""
        self.gate: asyncio.Event | None = None

    @property
    def folded(self) -> list[dict[str, Any]]:
        return [record for records in self.rows.values() for record in records]

    def seqs(self) -> list[int]:
        return [record["seq"] for record in self.folded]

    def kinds(self) -> list[str]:
        return [record["kind"] for record in self.folded]

    def item_ids(self) -> list[str]:
        return [record["itemId"] for record in self.folded if record["kind"] == "message"]

    async def query(
        self,
        function: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        assert function == "sessions:recordVersions"
        self.queries += 1
        return [float(version) for version in self.versions]

    async def mutation(
        self,
        function: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        assert function == "sessions:record" and args is not None
        records = args["records"]
        self.batches.append([record["seq"] for record in records])
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.before:
            raise self.before.pop(0)
        seq = self._fold(args["version"], args["runId"], records)
        if self.after:
            raise self.after.pop(0)
        return {"seq": float(seq)}

    def _fold(self, version: int, run_id: str, records: list[dict[str, Any]]) -> int:
        if version not in self.versions:
            raise thrown("version_unsupported", supported=self.versions)
        rows = self.rows.get(run_id, [])
        last = first = rows[-1]["seq"] if rows else -1
        fresh = []
        for record in records:
            seq = record["seq"]
            if seq <= last:
                continue
            if (record["fromSeq"] if record["kind"] == "lost" else seq) > last + 1:
                raise thrown("gap", expected=first + 1)
            if (refusal := self.refuse(record)) is not None and record["kind"] != "setAside":
                code, field = refusal
                raise thrown(code, seq=seq, field=field)
            fresh.append(record)
            last = seq
        self.rows[run_id] = rows + fresh
        return int(last)


def thrown(code: str, **data: Any) -> FunctionError:
    """What the client raises when the function throws `ConvexError({ code, ... })`."""
    return FunctionError("sessions:record", data={"code": code, "message": "", **data})


def message(item_id: str, text: str = "Good morning", *, created_at: float = NOW) -> MessageRecord:
    return MessageRecord(
        created_at=created_at, item_id=item_id, role="user", text=text, interrupted=False
    )


def header(run_id: str = "run_1", **changes: Any) -> Header:
    fields: dict[str, Any] = {
        "format": FORMAT,
        "record_version": RECORD_VERSION,
        "run_id": run_id,
        "session_key": "lesson_1",
        "subject": "student:k57",
        "student_id": "k57",
        "deployment": URL,
        "started_at_ms": NOW * 1000,
        "steady_at_ms": 1000.0,
    }
    return Header(**{**fields, **changes})


class Outboxes:
    """Makes outboxes in one directory, and leaves their journals as a killed process would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.message = message
        self.header = header

    def open(self, run_id: str = "run_1", **options: Any) -> Outbox:
        return Outbox.open(self.directory, header(run_id), **options)

    def abandoned(self, run_id: str, *records: Any) -> Path:
        """The journal of a run that recorded this and died."""
        outbox = self.open(run_id)
        for record in records:
            outbox.append(record)
        outbox.journal.close()
        return outbox.journal.path

    def write(self, journal: Journal, seq: int, record: Record) -> None:
        journal.append(numbered_line(seq, encode(record)[0]))

    def adopt(self, path: Path) -> Journal:
        return Journal.adopt(path)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


class LiveRun:
    """A run that records and is delivered, in time that passes when told.

    Its backoff is always the longest it may be.
    """

    def __init__(self, outbox: Outbox, convex: FoldingConvex, clock: FakeClock) -> None:
        self.outbox = outbox
        self.convex = convex
        self.clock = clock
        self.started: list[Delivery] = []

    @property
    def delivery(self) -> Delivery:
        return self.started[-1]

    def start(self) -> Delivery:
        """Begin to deliver; again to go on as another process would."""
        delivery = Delivery(
            self.outbox,
            self.convex,
            clock=self.clock.time,
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
            jitter=lambda low, high: high,
        )
        self.started.append(delivery)
        delivery.start()
        return delivery

    def say(self, item_id: str, text: str = "Good morning") -> None:
        self.outbox.append(message(item_id, text))

    def end(self) -> None:
        self.outbox.append(RunEndedRecord(created_at=NOW, reason="done"))

    async def after(self, seconds: float) -> None:
        """Let the time pass, but long enough for what leaves at once, and all that waits for it."""
        await self.clock.advance(max(seconds, AT_ONCE_S))

    async def aclose(self) -> None:
        for delivery in self.started:
            await asyncio.wait_for(delivery.aclose(0.0), 10)


@pytest.fixture
def outboxes(tmp_path: Path) -> Outboxes:
    return Outboxes(tmp_path / "outbox")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def folding() -> FoldingConvex:
    return FoldingConvex()


@pytest.fixture
async def run(
    outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> AsyncIterator[LiveRun]:
    """A run whose delivery the test begins."""
    run = LiveRun(outboxes.open(), folding, clock)
    yield run
    await run.aclose()


@pytest.fixture
async def live(run: LiveRun) -> LiveRun:
    """A run that is being delivered."""
    run.start()
    return run


@pytest.fixture
async def server(convex: FakeConvex, folding: FoldingConvex) -> FakeConvex:
    """A deployment over HTTP whose `sessions:record` folds."""

    def record(args: dict[str, Any]) -> Any:
        folding.batches.append([row["seq"] for row in args["records"]])
        try:
            seq = folding._fold(int(args["version"]), args["runId"], args["records"])
        except FunctionError as error:
            raise ConvexError("…", error.data) from None
        return {"seq": seq}

    convex.on("sessions:record", record)
    return convex


@pytest.fixture
async def recovery(
    server: FakeConvex, outboxes: Outboxes, clock: FakeClock
) -> AsyncIterator[Recovery]:
    token = AgentToken(AgentKey.generate(), subject="worker")
    async with AsyncConvexClient(server.url, token=token) as client:
        recovery = Recovery(
            client,
            directory=outboxes.directory,
            sleep=clock.sleep,
            jitter=lambda low, high: high,
        )
        yield recovery
        await recovery.aclose()


@pytest.fixture
def dead_run(outboxes: Outboxes, server: FakeConvex) -> Callable[..., Path]:
    """Leaves the journal of a run that recorded some messages for `server` and died."""

    def leave(run_id: str, *items: str, end: bool = False, **header: Any) -> Path:
        about = outboxes.header(run_id, **{"deployment": server.url, **header})
        journal = Journal.create(outboxes.directory, about)
        outbox = Outbox(journal)
        for item in items:
            outbox.append(outboxes.message(item))
        if end:
            outbox.append(RunEndedRecord(created_at=NOW, reason="done"))
        journal.close()
        return journal.path

    return leave
