"""Delivery of a live run: when a batch leaves, and what is in it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.convex.limits import MAX_BATCH_RECORDS
from livekit.plugins.convex.records import AT_ONCE_S, ToolCallRecord, TranscriptRecord
from tests.support.logged import logged

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import LiveRun

NOW = 1_795_474_184.5


async def test_a_message_leaves_at_once(live: LiveRun) -> None:
    live.say("item_0")
    await live.after(0.0)

    assert live.convex.item_ids() == ["item_0"]
    assert live.delivery.pending == 0


async def test_a_message_lets_what_follows_it_go_first(live: LiveRun) -> None:
    """That is the request to the model: the student waits for its answer, and for nothing here."""
    live.say("item_0")
    await live.clock.advance(AT_ONCE_S / 2)
    assert live.convex.batches == []
    live.say("item_1")
    await live.clock.advance(AT_ONCE_S / 2)
    assert live.convex.batches == [[0, 1]]


async def test_a_tool_call_waits_for_company_but_not_for_ever(live: LiveRun) -> None:
    def call(call_id: str) -> ToolCallRecord:
        return ToolCallRecord(
            created_at=NOW, call_id=call_id, name="n", arguments="{}", is_error=False
        )

    live.outbox.append(call("rides along"))
    await live.after(5.0)
    assert live.convex.batches == []
    live.say("item_1")
    await live.after(0.0)
    assert live.convex.batches == [[0, 1]]

    live.outbox.append(call("goes alone"))
    await live.after(14.9)
    assert live.convex.batches == [[0, 1]]
    await live.after(0.2)
    assert live.convex.batches == [[0, 1], [2]]


async def test_a_transcript_is_absorbed_by_the_request_of_its_message(live: LiveRun) -> None:
    live.outbox.append(TranscriptRecord(created_at=NOW, text="Good"))
    await live.after(0.4)
    live.say("item_1")
    await live.after(0.0)

    assert live.convex.batches == [[0, 1]]


async def test_one_batch_is_in_flight_while_the_next_gathers(live: LiveRun) -> None:
    live.convex.gate = asyncio.Event()
    live.say("item_0")
    await live.after(0.0)
    for n in range(1, 4):
        live.say(f"item_{n}")
        await live.after(1.0)
    assert live.convex.batches == [[0]]

    live.convex.gate.set()
    await live.after(0.0)
    assert live.convex.batches == [[0], [1, 2, 3]]


async def test_a_backlog_goes_out_in_batches_of_64_and_half_a_mebibyte(run: LiveRun) -> None:
    for n in range(150):
        run.say(f"item_{n}")
    for n in range(150, 160):
        run.say(f"item_{n}", text="x" * 65_536)
    run.start()

    assert await run.delivery.flush(1.0) == 0

    assert [len(batch) for batch in run.convex.batches] == [MAX_BATCH_RECORDS] * 2 + [29, 3]
    assert run.convex.seqs() == list(range(160))


async def test_records_in_memory_are_delivered_while_the_disk_refuses(
    live: LiveRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.INFO, logger="livekit.plugins.convex")
    live.say("item_0")
    with monkeypatch.context() as patch:
        patch.setattr("livekit.plugins.convex.journal.os.write", refuse)
        for n in range(1, 4):
            live.say(f"item_{n}")
            await live.after(0.0)
        assert live.convex.item_ids() == [f"item_{n}" for n in range(4)]
        assert live.outbox.waiting_in_memory == 0
    live.say("item_4")
    await live.after(0.0)

    assert live.convex.item_ids() == [f"item_{n}" for n in range(5)]
    assert logged(caplog) == ["outbox.disk_refuses", "outbox.disk_accepts_again"]


async def test_the_disk_is_synced_at_most_each_second_and_beside_the_loop(
    live: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads: list[str] = []

    def sync() -> None:
        import threading

        threads.append(threading.current_thread().name)
        loop.call_soon_threadsafe(synced.set)

    monkeypatch.setattr(live.outbox.journal, "sync", sync)
    for n in range(10):
        live.say(f"item_{n}")
    await live.after(0.99)
    assert threads == []
    await live.after(0.02)
    await asyncio.wait_for(synced.wait(), 10)

    assert len(threads) == 1
    assert threads[0].startswith("outbox-disk")
