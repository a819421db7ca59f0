"""Journals that nobody holds: who delivers them, and what is left alone."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents.utils import EventEmitter

from convex import ConvexError
from livekit.plugins.convex import AsyncConvexClient, Recovery, SweepReport
from livekit.plugins.convex.errors import TransportError
from livekit.plugins.convex.testing import FakeConvex
from tests.support.damage import flip

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FakeClock, FoldingConvex, Outboxes


async def test_a_dead_runs_journal_is_delivered(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex, outboxes: Outboxes
) -> None:
    dead_run("run_1", "item_0", "item_1", end=True)

    assert await recovery.sweep() == SweepReport(delivered=1, records=3)

    assert folding.item_ids() == ["item_0", "item_1"]
    assert outboxes.names() == []


async def test_it_speaks_for_the_student_of_the_header(
    recovery: Recovery, dead_run: Callable[..., Path], server: FakeConvex
) -> None:
    import jwt

    dead_run("run_1", "item_0")
    dead_run("run_2", "item_0", subject="guest:lesson_2", student_id=None)
    await recovery.sweep()

    claims = [
        jwt.decode(call.token, options={"verify_signature": False})
        for call in server.calls
        if call.token is not None
    ]
    assert {(claim["sub"], claim.get("student_id")) for claim in claims} == {
        ("student:k57", "k57"),
        ("guest:lesson_2", None),
    }


async def test_a_live_run_is_left_to_its_owner(
    recovery: Recovery, outboxes: Outboxes, folding: FoldingConvex
) -> None:
    outboxes.open("run_1").append(outboxes.message("item_0"))

    assert await recovery.sweep() == SweepReport(owned=1)
    assert folding.batches == []


async def test_journals_of_other_deployments_are_left_alone(
    recovery: Recovery, dead_run: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = dead_run("run_1", "item_0", deployment="https://elsewhere.convex.cloud")
    before = path.read_bytes()

    assert await recovery.sweep() == SweepReport(foreign=1)
    assert await recovery.sweep() == SweepReport(foreign=1)
    assert path.read_bytes() == before
    assert [r.message for r in caplog.records] == ["recovery.foreign_journal"]


async def test_two_sweeps_at_once_deliver_each_journal_once(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex, outboxes: Outboxes
) -> None:
    for n in range(6):
        dead_run(f"run_{n}", "item_0", "item_1", end=True)
    other = Recovery(recovery._client, directory=outboxes.directory)
    reports = await asyncio.gather(recovery.sweep(), other.sweep())

    assert sum(report.delivered for report in reports) == 6
    assert len(folding.batches) == 6
    assert outboxes.names() == []


async def test_an_outage_is_noticed_once_per_sweep(
    recovery: Recovery, dead_run: Callable[..., Path], server: FakeConvex, folding: FoldingConvex
) -> None:
    """Forty journals are no reason to ask a deployment that is away forty times."""
    for n in range(12):
        dead_run(f"run_{n:02}", "item_0", end=True)
    server.fail_next(503, times=100)
    report = await recovery.sweep()

    assert report.held == 12
    assert server.call_count() <= 4
    server.clear_faults()
    assert (await recovery.sweep()).delivered == 12


async def test_one_journal_that_convex_refuses_keeps_no_other_back(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex
) -> None:
    dead_run("run_0", "opaque")
    dead_run("run_1", "item_1", end=True)

    def refuse(record: dict[str, Any]) -> None:
        if record.get("itemId") == "opaque":
            raise ConvexError("crash", {"code": "opaque"})

    folding.refuse = refuse
    report = await recovery.sweep()

    assert (report.held, report.delivered) == (1, 1)


async def test_journals_that_are_never_taken_keep_no_other_back_for_long(
    recovery: Recovery,
    dead_run: Callable[..., Path],
    server: FakeConvex,
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The oldest four fail as an outage does, at every sweep; the rest must still arrive.

    A sweep ends where Convex seems out of reach, so each of the four may cost one.
    """
    for n in range(4):
        os.utime(dead_run(f"bad_{n}", "item_0", end=True), (n, n))
    for n in range(4):
        dead_run(f"good_{n}", "item_0", end=True)
    mutation = AsyncConvexClient.mutation

    async def fail_some(self: AsyncConvexClient, function: str, args: Any, **how: Any) -> Any:
        if args["runId"].startswith("bad"):
            raise TransportError("HTTP 500", status=500)
        return await mutation(self, function, args, **how)

    monkeypatch.setattr(AsyncConvexClient, "mutation", fail_some)
    for _ in range(5):
        await recovery.sweep()

    assert sorted(folding.rows) == ["good_0", "good_1", "good_2", "good_3"]


async def test_a_journal_that_another_worker_delivers_meanwhile_ends_no_sweep(
    recovery: Recovery,
    dead_run: Callable[..., Path],
    folding: FoldingConvex,
    outboxes: Outboxes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead_run("run_1", "item_0", end=True)
    glob = Path.glob

    def with_one_gone(self: Path, pattern: str) -> Iterator[Path]:
        yield from glob(self, pattern)
        yield self / pattern.replace("*", "gone")

    monkeypatch.setattr(Path, "glob", with_one_gone)

    assert (await recovery.sweep()).delivered == 1
    assert caplog.records == []


async def test_a_journal_nobody_can_speak_for_keeps_no_other_back(
    recovery: Recovery, dead_run: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    dead_run("run_0", "item_0", subject="", student_id=None)
    dead_run("run_1", "item_1", end=True)
    report = await recovery.sweep()

    assert (report.held, report.delivered) == (1, 1)
    assert [r.message for r in caplog.records] == ["recovery.journal_failed"]


async def test_a_flipped_byte_costs_the_record_it_is_in(
    recovery: Recovery,
    dead_run: Callable[..., Path],
    folding: FoldingConvex,
    outboxes: Outboxes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = dead_run("run_1", "item_0", "item_1", "item_2", "item_3", end=True)
    flip(path, b"item_1")
    damaged = path.read_bytes()
    await recovery.sweep()

    assert folding.item_ids() == ["item_0", "item_2", "item_3"]
    lost = next(record for record in folding.folded if record["kind"] == "lost")
    assert (lost["seq"], lost["fromSeq"], lost["toSeq"], lost["reason"]) == (1, 1, 1, "damaged")
    assert outboxes.names() == ["run_1.damaged"]
    assert (outboxes.directory / "run_1.damaged").read_bytes() == damaged
    assert [r.message for r in caplog.records] == ["outbox.damaged_line", "outbox.journal_kept"]


async def test_a_damaged_journal_is_kept_also_by_who_did_not_see_the_damage(
    recovery: Recovery, dead_run: Callable[..., Path], outboxes: Outboxes, server: FakeConvex
) -> None:
    """The sweep that met the damage was cut off; the next one goes on behind it."""
    path = dead_run("run_1", *(f"item_{n}" for n in range(100)), end=True)
    flip(path, b"item_1")
    damaged = path.read_bytes()
    record = server._handlers["sessions:record"]
    server.on("sessions:record", once_then_away(record))
    await recovery.sweep()
    assert "run_1.confirmed" in outboxes.names()
    server.on("sessions:record", record)
    again = Recovery(recovery._client, directory=outboxes.directory)
    await again.sweep()

    assert outboxes.names() == ["run_1.damaged"]
    assert (outboxes.directory / "run_1.damaged").read_bytes() == damaged


async def test_damage_across_lines_and_at_the_end_is_counted(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex
) -> None:
    path = dead_run("run_1", *(f"item_{n}" for n in range(6)))
    flip(path, b"item_1")
    flip(path, b"item_2")
    flip(path, b"item_5")
    await recovery.sweep()

    assert folding.item_ids() == ["item_0", "item_3", "item_4"]
    lost = [(r["fromSeq"], r["toSeq"]) for r in folding.folded if r["kind"] == "lost"]
    assert lost == [(1, 2), (5, 5)]


async def test_a_hole_of_zeros_is_not_read_into_memory(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex
) -> None:
    """What a power cut may leave: blocks that were allocated and never written."""
    path = dead_run("run_1", "item_0", "item_1", end=True)
    head, tail = path.read_bytes().split(b"\n", 1)
    path.write_bytes(head + b"\n" + b"\x00" * 3_000_000 + b"\n" + tail)
    await recovery.sweep()

    assert folding.seqs() == [0, 1, 2]


async def test_an_empty_journal_is_named_once_and_kept(
    recovery: Recovery,
    dead_run: Callable[..., Path],
    outboxes: Outboxes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    os.truncate(dead_run("run_1"), 0)
    assert await recovery.sweep() == SweepReport(unreadable=1)
    await recovery.sweep()

    assert outboxes.names() == ["run_1.journal"]
    assert [r.message for r in caplog.records] == ["recovery.journal_unreadable"]


async def test_a_journal_that_never_got_its_name_is_removed_in_time(
    recovery: Recovery, outboxes: Outboxes
) -> None:
    outboxes.directory.mkdir()
    fresh, old = outboxes.directory / ".run_1.tmp", outboxes.directory / ".run_2.tmp"
    for path in (fresh, old):
        path.touch()
    os.utime(old, (0, 0))
    await recovery.sweep()

    assert outboxes.names() == [".run_1.tmp"]


async def test_without_a_directory_there_is_nothing_to_do(recovery: Recovery) -> None:
    assert await recovery.sweep() == SweepReport()


async def test_it_sweeps_at_the_start_and_then_periodically(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex, clock: FakeClock
) -> None:
    dead_run("run_1", "item_0", end=True)
    recovery.start()
    await until(lambda: len(folding.rows) == 1)
    dead_run("run_2", "item_0", end=True)
    await until(lambda: bool(clock.slept))
    await clock.advance(17.0)
    assert len(folding.rows) == 1
    await clock.advance(1.1)
    await until(lambda: len(folding.rows) == 2)


async def test_a_sweep_that_fails_is_followed_by_another(
    recovery: Recovery, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    sweeps = 0

    async def fail() -> SweepReport:
        nonlocal sweeps
        sweeps += 1
        raise OSError("the disk is gone")

    monkeypatch.setattr(recovery, "sweep", fail)
    recovery.start()
    await clock.advance(40.0)

    assert sweeps == 3
    assert {record.message for record in caplog.records} == {"recovery.sweep_failed"}


async def test_it_can_be_attached_to_a_server(
    server: FakeConvex,
    dead_run: Callable[..., Path],
    folding: FoldingConvex,
    outboxes: Outboxes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dead_run("run_1", "item_0", end=True)
    caplog.set_level(logging.INFO)
    client = AsyncConvexClient(server.url)
    worker: EventEmitter[str] = EventEmitter()
    Recovery.attach(worker, client=lambda: client, directory=outboxes.directory)  # type: ignore[arg-type]

    worker.emit("worker_started")
    await until(lambda: "recovery.delivered" in [r.message for r in caplog.records])

    assert outboxes.names() == []
    for task in asyncio.all_tasks():
        if task.get_name() == "outbox-recovery":
            task.cancel()
    await client.aclose()


def once_then_away(handler: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Answers one call, and throws at the others."""
    calls = iter([handler])

    def answer(args: dict[str, Any]) -> Any:
        return next(calls)(args)

    return answer


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  it is met over HTTP
            await asyncio.sleep(0.005)
