"""The end of a delivery: what is flushed, what stays on disk, what is given up."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.convex.errors import BusyError, TransportError
from tests.support.logged import logged

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import LiveRun, Outboxes


async def test_flush_does_not_wait_for_the_backoff(live: LiveRun) -> None:
    live.convex.before = [BusyError("busy", status=503, retry_after_s=1000.0)]
    live.say("item_0")
    await live.after(1.0)

    assert await live.delivery.flush(5.0) == 0
    assert live.clock.elapsed == 1.0


async def test_flush_is_bounded_and_returns_what_is_left(live: LiveRun) -> None:
    live.convex.before = [TransportError("away")] * 1000
    for n in range(3):
        live.say(f"item_{n}")
    flush = asyncio.ensure_future(live.delivery.flush(5.0))
    await live.after(4.9)
    assert not flush.done()
    await live.after(0.2)

    assert await flush == 3


async def test_an_ended_and_confirmed_journal_is_deleted(live: LiveRun, outboxes: Outboxes) -> None:
    live.say("item_0")
    live.end()

    assert await live.delivery.aclose(5.0) == 0
    assert await live.delivery.aclose(5.0) == 0

    assert outboxes.names() == []
    assert live.convex.seqs() == [0, 1]


async def test_what_is_left_at_the_end_stays_on_disk_and_can_be_taken_over(
    live: LiveRun, outboxes: Outboxes
) -> None:
    live.say("item_0")
    await live.after(0.0)
    live.convex.before = [TransportError("away")] * 1000
    live.end()
    closing = asyncio.ensure_future(live.delivery.aclose(5.0))
    await live.after(5.0)

    assert await asyncio.wait_for(closing, 10) == 1
    journal = outboxes.adopt(live.outbox.journal.path)
    confirmed = journal.confirmed()
    assert confirmed is not None
    assert (confirmed.seq, confirmed.ended) == (0, False)


async def test_what_only_memory_has_at_the_end_is_counted_as_lost(
    live: LiveRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk took nothing and Convex was away: there is nowhere left to keep it."""

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    live.convex.before = [TransportError("away")] * 1000
    with monkeypatch.context() as patch:
        patch.setattr("livekit.plugins.convex.journal.os.write", refuse)
        live.say("item_0")
        live.say("item_1")
        closing = asyncio.ensure_future(live.delivery.aclose(5.0))
        await live.after(5.0)
        assert await asyncio.wait_for(closing, 10) == 2

    assert live.outbox.lost == 2
    assert "outbox.lost_with_memory" in logged(caplog, logging.ERROR)


async def test_without_an_end_a_confirmed_journal_stays(live: LiveRun, outboxes: Outboxes) -> None:
    live.say("item_0")
    await live.delivery.aclose(5.0)

    assert outboxes.names() == ["run_1.confirmed", "run_1.journal"]


async def test_nothing_runs_on_after_the_end(live: LiveRun) -> None:
    await live.delivery.aclose(0.0)
    left = [task.get_name() for task in asyncio.all_tasks() if "outbox" in task.get_name()]

    assert left == []


async def test_a_close_that_is_cancelled_gives_the_journal_up_all_the_same(
    run: LiveRun, outboxes: Outboxes
) -> None:
    """A journal that stays locked is not recovered for as long as the process lives."""
    run.convex.gate = asyncio.Event()
    run.start()
    run.say("item_0")
    closing = asyncio.ensure_future(run.delivery.aclose(60.0))
    while not run.convex.batches:  # noqa: ASYNC110
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(closing, 10)

    assert [task for task in asyncio.all_tasks() if "outbox" in task.get_name()] == []
    outboxes.adopt(run.outbox.journal.path).close()
    assert await run.delivery.aclose(60.0) == 1


async def test_closes_at_once_are_one(run: LiveRun, outboxes: Outboxes) -> None:
    run.convex.gate = asyncio.Event()
    run.start()
    run.say("item_0")

    early = asyncio.gather(run.delivery.aclose(0.0), run.delivery.aclose(0.0))
    late = asyncio.ensure_future(run.delivery.aclose(1.0))

    assert list(await asyncio.wait_for(early, 10)) == [1, 1]
    await run.after(2.0)
    assert await asyncio.wait_for(late, 10) == 1
    outboxes.adopt(run.outbox.journal.path).close()


async def test_a_journal_that_the_disk_does_not_let_go_is_left_to_recovery(
    run: LiveRun,
    outboxes: Outboxes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(run.outbox.journal, "delete", refuse)
    run.start()
    run.end()

    assert await run.delivery.aclose(5.0) == 0
    assert logged(caplog, logging.ERROR) == ["outbox.journal_stays"]
    outboxes.adopt(run.outbox.journal.path).close()
