"""Delivery of a live run: when a batch leaves, what happens when it is not taken."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from livekit.plugins.convex.delivery import Delivery
from livekit.plugins.convex.errors import (
    AuthenticationError,
    BusyError,
    FunctionError,
    RequestTimeoutError,
    TransportError,
)
from livekit.plugins.convex.limits import MAX_BATCH_RECORDS
from livekit.plugins.convex.records import RunEndedRecord, ToolCallRecord, TranscriptRecord
from livekit.plugins.convex.sender import Sender

if TYPE_CHECKING:
    from livekit.plugins.convex.outbox import Outbox
    from tests.unit.plugin.conftest import FakeClock, FoldingConvex, Outboxes

NOW = 1_795_474_184.5
DONE = RunEndedRecord(created_at=NOW, reason="done")


@pytest.fixture
def outbox(outboxes: Outboxes) -> Outbox:
    return outboxes.open()


@pytest.fixture
def deliver(outbox: Outbox, folding: FoldingConvex, clock: FakeClock) -> Callable[..., Delivery]:
    """Makes a delivery whose backoff is always the longest it may be."""

    def make(of: Outbox = outbox) -> Delivery:
        return Delivery(
            of,
            folding,
            clock=clock.time,
            monotonic=clock.monotonic,
            sleep=clock.sleep,
            jitter=lambda low, high: high,
        )

    return make


@pytest.fixture
async def delivery(deliver: Callable[..., Delivery]) -> AsyncIterator[Delivery]:
    delivery = deliver()
    delivery.start()
    yield delivery
    closing = asyncio.ensure_future(delivery.aclose(0.0))
    await asyncio.wait_for(closing, 10)


def names(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= level]


async def test_a_message_leaves_at_once(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    outbox.append(outboxes.message("item_0"))
    await clock.advance(0.0)

    assert folding.item_ids() == ["item_0"]
    assert delivery.pending == 0


async def test_a_tool_call_waits_for_company_but_not_for_ever(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    def call(call_id: str) -> ToolCallRecord:
        return ToolCallRecord(
            created_at=NOW, call_id=call_id, name="n", arguments="{}", is_error=False
        )

    outbox.append(call("rides along"))
    await clock.advance(5.0)
    assert folding.batches == []
    outbox.append(outboxes.message("item_1"))
    await clock.advance(0.0)
    assert folding.batches == [[0, 1]]

    outbox.append(call("goes alone"))
    await clock.advance(14.9)
    assert folding.batches == [[0, 1]]
    await clock.advance(0.2)
    assert folding.batches == [[0, 1], [2]]


async def test_a_transcript_is_absorbed_by_the_request_of_its_message(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    outbox.append(TranscriptRecord(created_at=NOW, text="Good"))
    await clock.advance(0.4)
    outbox.append(outboxes.message("item_1"))
    await clock.advance(0.0)

    assert folding.batches == [[0, 1]]


async def test_one_batch_is_in_flight_while_the_next_gathers(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    folding.gate = asyncio.Event()
    outbox.append(outboxes.message("item_0"))
    await clock.advance(0.0)
    for n in range(1, 4):
        outbox.append(outboxes.message(f"item_{n}"))
        await clock.advance(1.0)
    assert folding.batches == [[0]]

    folding.gate.set()
    await clock.advance(0.0)
    assert folding.batches == [[0], [1, 2, 3]]


async def test_a_backlog_goes_out_in_batches_of_64_and_half_a_mebibyte(
    deliver: Callable[..., Delivery], outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex
) -> None:
    for n in range(150):
        outbox.append(outboxes.message(f"item_{n}"))
    for n in range(150, 160):
        outbox.append(outboxes.message(f"item_{n}", text="x" * 65_536))
    delivery = deliver()
    delivery.start()

    assert await delivery.flush(1.0) == 0

    assert [len(batch) for batch in folding.batches] == [MAX_BATCH_RECORDS] * 2 + [29, 3]
    assert folding.seqs() == list(range(160))
    await delivery.aclose(1.0)


async def test_a_lost_reply_adds_no_second_row(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    """The mutation committed, its answer never came, the batch was sent again."""
    folding.after = [TransportError("sessions:record: connection lost")]
    outbox.append(outboxes.message("item_0"))
    await clock.advance(20.0)

    assert folding.item_ids() == ["item_0"]
    assert folding.batches == [[0], [0]]


async def test_it_retries_for_ever_with_growing_waits_and_says_so_once(
    delivery: Delivery,
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="livekit.plugins.convex")
    folding.before = [TransportError("refused") for _ in range(9)]
    await clock.advance(0.0)
    clock.slept.clear()
    outbox.append(outboxes.message("item_0"))
    await clock.advance(120.0)

    assert [s for s in clock.slept if s != 1.0] == [0.25, 0.5, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert folding.item_ids() == ["item_0"]
    assert names(caplog) == ["outbox.delivery_delayed", "outbox.delivery_resumed"]
    delayed = caplog.records[0]
    assert (delayed.error, delayed.pending) == ("TransportError", 1)  # type: ignore[attr-defined]


async def test_it_waits_as_long_as_convex_asks(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    folding.before = [BusyError("busy", status=503, retry_after_s=40.0)]
    outbox.append(outboxes.message("item_0"))
    await clock.advance(39.0)
    assert len(folding.batches) == 1
    await clock.advance(2.0)
    assert folding.item_ids() == ["item_0"]


async def test_an_append_does_not_end_a_backoff(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    folding.before = [BusyError("busy", status=503, retry_after_s=10.0)]
    outbox.append(outboxes.message("item_0"))
    await clock.advance(1.0)
    outbox.append(outboxes.message("item_1"))
    await clock.advance(1.0)

    assert len(folding.batches) == 1


async def test_a_refused_record_is_set_aside_alone(
    delivery: Delivery,
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folding.refuse = lambda record: (
        ("text_too_long", "text") if record.get("itemId") == "bad" else None
    )
    for item in ("item_0", "bad", "item_2"):
        outbox.append(outboxes.message(item, text="private words"))
    await clock.advance(0.0)

    assert [record["kind"] for record in folding.folded] == ["message", "setAside", "message"]
    assert folding.folded[1] == {
        "seq": 1,
        "kind": "setAside",
        "createdAt": NOW * 1000,
        "code": "text_too_long",
        "field": "text",
        "ofKind": "message",
    }
    dead = outbox.journal.dead()[1]
    assert (dead["code"], dead["record"]["itemId"]) == ("text_too_long", "bad")
    assert delivery.sender.set_aside == 1
    assert delivery.sender.delivered == 2
    assert names(caplog) == ["outbox.record_set_aside"]
    assert "private" not in str([record.__dict__ for record in caplog.records])


async def test_after_a_crash_it_is_not_set_aside_twice(
    deliver: Callable[..., Delivery], outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex
) -> None:
    """The dead file was written, the process died before the tombstone was confirmed."""
    outbox.append(outboxes.message("bad"))
    entry = {"seq": 0, "code": "text_too_long", "field": "text", "at": NOW * 1000, "record": {}}
    outbox.journal.bury(entry)
    dead = outbox.journal.path.with_suffix(".dead").read_bytes()
    delivery = deliver()
    delivery.start()
    await delivery.flush(1.0)

    assert [record["kind"] for record in folding.folded] == ["setAside"]
    assert outbox.journal.path.with_suffix(".dead").read_bytes() == dead
    await delivery.aclose(1.0)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (FunctionError("sessions:record"), "FunctionError"),
        (
            FunctionError("sessions:record", data={"code": "student_unknown", "seq": 0.0}),
            "student_unknown",
        ),
        (FunctionError("sessions:record", data={"code": "text_too_long"}), "text_too_long"),
        (
            FunctionError("sessions:record", data={"code": "text_too_long", "seq": 99.0}),
            "text_too_long",
        ),
        (AuthenticationError("the token was refused"), "AuthenticationError"),
        (ValueError("a client's own fault"), "ValueError"),
        (FunctionError("sessions:record", data={"code": "version_unsupported"}), None),
    ],
)
async def test_a_bad_deployment_hurts_no_record(
    delivery: Delivery,
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    reason: str | None,
) -> None:
    """Held and tried again, with one line; a repaired deployment finds everything."""
    folding.before = [failure] * 5
    outbox.append(outboxes.message("item_0"))
    await clock.advance(2.0)

    assert delivery.sender.held is not None
    assert delivery.sender.held.reason == reason or reason is None
    await clock.advance(60.0)
    assert folding.item_ids() == ["item_0"]
    assert delivery.sender.set_aside == 0
    assert names(caplog, logging.WARNING) == ["outbox.delivery_held"]


async def test_older_functions_are_named_at_the_start_and_hold_the_journal(
    deliver: Callable[..., Delivery],
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folding.versions = [0]
    delivery = deliver()
    delivery.start()
    await clock.advance(0.0)
    assert names(caplog) == ["outbox.version_unsupported"]
    assert "npx convex deploy" in caplog.records[0].remedy  # type: ignore[attr-defined]

    outbox.append(outboxes.message("item_0"))
    await clock.advance(30.0)
    assert delivery.pending == 1
    folding.versions = [0, 1]
    await clock.advance(30.0)

    assert folding.item_ids() == ["item_0"]
    await delivery.aclose(1.0)


async def test_it_goes_back_where_convex_says_it_is(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    """The deployment was restored from a backup that is older than our confirmation."""
    for n in range(4):
        outbox.append(outboxes.message(f"item_{n}"))
    await clock.advance(0.0)
    folding.rows["run_1"] = folding.rows["run_1"][:1]
    outbox.append(outboxes.message("item_4"))
    await clock.advance(0.0)

    assert folding.item_ids() == [f"item_{n}" for n in range(5)]
    assert folding.batches == [[0, 1, 2, 3], [4], [1, 2, 3, 4]]


async def test_it_goes_forward_where_convex_is_ahead(
    deliver: Callable[..., Delivery], outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex
) -> None:
    """The confirmation was lost with its file; Convex skips what it has."""
    for n in range(3):
        outbox.append(outboxes.message(f"item_{n}"))
    first = deliver()
    first.start()
    await first.flush(1.0)
    again = deliver()
    outbox.journal.path.with_suffix(".confirmed").unlink()
    again = deliver()
    again.start()
    outbox.append(outboxes.message("item_3"))
    await again.flush(1.0)

    assert folding.item_ids() == [f"item_{n}" for n in range(4)]
    await first.aclose(1.0)
    await again.aclose(1.0)


async def test_a_server_that_answers_nonsense_is_not_hammered(
    delivery: Delivery,
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies: list[Any] = [None, {}, {"seq": "0"}, {"seq": -1.0}]
    calls = 0

    async def nonsense(*_: object, **__: object) -> Any:
        nonlocal calls
        calls += 1
        return replies[min(calls, len(replies)) - 1]

    monkeypatch.setattr(folding, "mutation", nonsense)
    outbox.append(outboxes.message("item_0"))
    await clock.advance(60.0)

    assert delivery.pending == 1
    assert calls < 40


async def test_records_in_memory_are_delivered_while_the_disk_refuses(
    delivery: Delivery,
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.INFO, logger="livekit.plugins.convex")
    outbox.append(outboxes.message("item_0"))
    with monkeypatch.context() as patch:
        patch.setattr("livekit.plugins.convex.journal.os.write", refuse)
        for n in range(1, 4):
            outbox.append(outboxes.message(f"item_{n}"))
            await clock.advance(0.0)
        assert folding.item_ids() == [f"item_{n}" for n in range(4)]
        assert outbox.waiting_in_memory == 0
    outbox.append(outboxes.message("item_4"))
    await clock.advance(0.0)

    assert folding.item_ids() == [f"item_{n}" for n in range(5)]
    assert names(caplog) == ["outbox.disk_refuses", "outbox.disk_accepts_again"]


async def test_a_slow_backend_is_given_more_time(
    delivery: Delivery,
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deadlines: list[float | None] = []
    fold = folding.mutation

    async def slow(function: str, args: Any = None, *, timeout_s: float | None = None) -> Any:
        deadlines.append(timeout_s)
        if timeout_s is not None and timeout_s < 35:
            raise RequestTimeoutError("no answer")
        return await fold(function, args, timeout_s=timeout_s)

    monkeypatch.setattr(folding, "mutation", slow)
    outbox.append(outboxes.message("item_0"))
    await clock.advance(60.0)

    assert deadlines == [10.0, 20.0, 40.0]
    assert folding.item_ids() == ["item_0"]


async def test_flush_does_not_wait_for_the_backoff(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    folding.before = [BusyError("busy", status=503, retry_after_s=1000.0)]
    outbox.append(outboxes.message("item_0"))
    await clock.advance(1.0)

    assert await delivery.flush(5.0) == 0
    assert clock.elapsed == 1.0


async def test_flush_is_bounded_and_returns_what_is_left(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    folding.before = [TransportError("away")] * 1000
    for n in range(3):
        outbox.append(outboxes.message(f"item_{n}"))
    flush = asyncio.ensure_future(delivery.flush(5.0))
    await clock.advance(4.9)
    assert not flush.done()
    await clock.advance(0.2)

    assert await flush == 3


async def test_an_ended_and_confirmed_journal_is_deleted(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex
) -> None:
    outbox.append(outboxes.message("item_0"))
    outbox.append(DONE)

    assert await delivery.aclose(5.0) == 0
    assert await delivery.aclose(5.0) == 0

    assert outboxes.names() == []
    assert folding.seqs() == [0, 1]


async def test_what_is_left_at_the_end_stays_on_disk_and_can_be_taken_over(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, clock: FakeClock
) -> None:
    outbox.append(outboxes.message("item_0"))
    await clock.advance(0.0)
    folding.before = [TransportError("away")] * 1000
    outbox.append(DONE)
    closing = asyncio.ensure_future(delivery.aclose(5.0))
    await clock.advance(5.0)

    assert await asyncio.wait_for(closing, 10) == 1
    journal = outboxes.adopt(outbox.journal.path)
    confirmed = journal.confirmed()
    assert confirmed is not None
    assert (confirmed.seq, confirmed.ended) == (0, False)


async def test_what_only_memory_has_at_the_end_is_counted_as_lost(
    delivery: Delivery,
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The disk took nothing and Convex was away: there is nowhere left to keep it."""

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    folding.before = [TransportError("away")] * 1000
    with monkeypatch.context() as patch:
        patch.setattr("livekit.plugins.convex.journal.os.write", refuse)
        outbox.append(outboxes.message("item_0"))
        outbox.append(outboxes.message("item_1"))
        closing = asyncio.ensure_future(delivery.aclose(5.0))
        await clock.advance(5.0)
        assert await asyncio.wait_for(closing, 10) == 2

    assert outbox.lost == 2
    assert "outbox.lost_with_memory" in names(caplog, logging.ERROR)


async def test_without_an_end_a_confirmed_journal_stays(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes
) -> None:
    outbox.append(outboxes.message("item_0"))
    await delivery.aclose(5.0)

    assert outboxes.names() == ["run_1.confirmed", "run_1.journal"]


async def test_set_aside_records_outlive_the_journal(
    delivery: Delivery, outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex
) -> None:
    folding.refuse = lambda record: ("too_many_items", "models")
    outbox.append(outboxes.message("item_0"))
    outbox.append(DONE)
    await delivery.aclose(5.0)

    assert outboxes.names() == ["run_1.dead"]


async def test_the_disk_is_synced_at_most_each_second_and_beside_the_loop(
    delivery: Delivery,
    outbox: Outbox,
    outboxes: Outboxes,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synced = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads: list[str] = []

    def sync() -> None:
        import threading

        threads.append(threading.current_thread().name)
        loop.call_soon_threadsafe(synced.set)

    monkeypatch.setattr(outbox.journal, "sync", sync)
    for n in range(10):
        outbox.append(outboxes.message(f"item_{n}"))
    await clock.advance(0.99)
    assert threads == []
    await clock.advance(0.02)
    await asyncio.wait_for(synced.wait(), 10)

    assert len(threads) == 1
    assert threads[0].startswith("outbox-disk")


async def test_nothing_runs_on_after_the_end(delivery: Delivery, outbox: Outbox) -> None:
    await delivery.aclose(0.0)
    left = [task.get_name() for task in asyncio.all_tasks() if "outbox" in task.get_name()]

    assert left == []


async def test_a_close_that_is_cancelled_gives_the_journal_up_all_the_same(
    deliver: Callable[..., Delivery], outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex
) -> None:
    """A journal that stays locked is not recovered for as long as the process lives."""
    folding.gate = asyncio.Event()
    delivery = deliver()
    delivery.start()
    outbox.append(outboxes.message("item_0"))
    closing = asyncio.ensure_future(delivery.aclose(60.0))
    while not folding.batches:  # noqa: ASYNC110
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(closing, 10)

    assert [task for task in asyncio.all_tasks() if "outbox" in task.get_name()] == []
    outboxes.adopt(outbox.journal.path).close()
    assert await delivery.aclose(60.0) == 1


async def test_closes_at_once_are_one(
    deliver: Callable[..., Delivery],
    outbox: Outbox,
    outboxes: Outboxes,
    folding: FoldingConvex,
    clock: FakeClock,
) -> None:
    folding.gate = asyncio.Event()
    delivery = deliver()
    delivery.start()
    outbox.append(outboxes.message("item_0"))

    early = asyncio.gather(delivery.aclose(0.0), delivery.aclose(0.0))
    late = asyncio.ensure_future(delivery.aclose(1.0))

    assert list(await asyncio.wait_for(early, 10)) == [1, 1]
    await clock.advance(2.0)
    assert await asyncio.wait_for(late, 10) == 1
    outboxes.adopt(outbox.journal.path).close()


async def test_a_journal_that_the_disk_does_not_let_go_is_left_to_recovery(
    deliver: Callable[..., Delivery],
    outbox: Outbox,
    outboxes: Outboxes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(outbox.journal, "delete", refuse)
    delivery = deliver()
    delivery.start()
    outbox.append(DONE)

    assert await delivery.aclose(5.0) == 0
    assert names(caplog, logging.ERROR) == ["outbox.journal_stays"]
    outboxes.adopt(outbox.journal.path).close()


async def test_a_refused_record_that_only_the_journal_has_outlives_a_crash(
    outbox: Outbox, outboxes: Outboxes, folding: FoldingConvex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead file could not be written, then the process died; recovery deletes nothing."""

    def refuse(entry: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folding.refuse = lambda record: ("text_too_long", "text")
    outbox.append(outboxes.message("item_0"))
    outbox.append(DONE)
    monkeypatch.setattr(outbox.journal, "bury", refuse)
    assert await Sender(outbox.journal, folding, outbox=outbox).drain() is None
    outbox.journal.close()
    sender = Sender(outboxes.adopt(outbox.journal.path), folding)

    assert await sender.drain() is None
    assert sender.finish()
    assert outboxes.names() == ["run_1.damaged"]
