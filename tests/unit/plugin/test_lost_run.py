"""A run that died without an end: the sweeper gives it one, once, and only when all else is there."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from livekit.plugins.convex import Recovery, SweepReport
from livekit.plugins.convex.journal import Journal
from livekit.plugins.convex.testing import FakeConvex
from tests.support.damage import flip

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex, Outboxes

NOW_MS = 1_795_474_184_500.0


def ends(folding: FoldingConvex) -> list[tuple[int, str, float]]:
    """`seq`, reason and instant of each end that Convex got."""
    return [
        (record["seq"], record["reason"], record["createdAt"])
        for record in folding.folded
        if record["kind"] == "runEnded"
    ]


async def test_it_ends_when_it_was_last_heard_of(
    recovery: Recovery, outboxes: Outboxes, server: FakeConvex, folding: FoldingConvex
) -> None:
    journal = Journal.create(outboxes.directory, outboxes.header(deployment=server.url))
    for n in range(3):
        record = outboxes.message(f"item_{n}", created_at=NOW_MS / 1000 + 60 * n)
        outboxes.write(journal, n, record)
    journal.close()

    assert await recovery.sweep() == SweepReport(delivered=1, records=4, runs_lost=1)

    assert ends(folding) == [(3, "run_lost", NOW_MS + 120_000)]
    assert outboxes.names() == []
    assert await recovery.sweep() == SweepReport()


async def test_a_run_with_an_end_gets_no_other(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex
) -> None:
    dead_run("run_1", "item_0", end=True)
    await recovery.sweep()

    assert ends(folding) == [(1, "done", NOW_MS)]


async def test_while_convex_is_away_the_journal_stays_as_the_run_left_it(
    recovery: Recovery, dead_run: Callable[..., Path], server: FakeConvex, folding: FoldingConvex
) -> None:
    path = dead_run("run_1", "item_0")
    before = path.read_bytes()
    server.fail_next(503, times=2)
    for _ in range(2):
        assert await recovery.sweep() == SweepReport(held=1)
        assert path.read_bytes() == before

    assert await recovery.sweep() == SweepReport(delivered=1, records=2, runs_lost=1)
    assert ends(folding) == [(1, "run_lost", NOW_MS)]


async def test_what_an_earlier_sweep_delivered_is_not_sent_again(
    recovery: Recovery, dead_run: Callable[..., Path], server: FakeConvex, folding: FoldingConvex
) -> None:
    """As workers of older versions left them: delivered, and waiting for an end."""
    path = dead_run("run_1", "item_0", "item_1")
    journal = Journal.adopt(path)
    await deliver_only(recovery, journal)
    journal.close()

    await recovery.sweep()

    assert folding.batches == [[0, 1], [2]]
    assert ends(folding) == [(2, "run_lost", NOW_MS)]


async def test_a_sweeper_that_dies_after_the_append_leaves_the_end_to_the_next(
    recovery: Recovery,
    dead_run: Callable[..., Path],
    server: FakeConvex,
    folding: FoldingConvex,
    outboxes: Outboxes,
) -> None:
    path = dead_run("run_1", "item_0")
    record = server._handlers["sessions:record"]
    server.on("sessions:record", until_the_end(record))
    assert await recovery.sweep() == SweepReport(held=1, records=1, runs_lost=1)
    assert path.read_bytes().count(b"run_lost") == 1
    server.on("sessions:record", record)

    again = Recovery(recovery._client, directory=outboxes.directory)
    assert await again.sweep() == SweepReport(delivered=1, records=1)

    assert ends(folding) == [(1, "run_lost", NOW_MS)]
    assert outboxes.names() == []


async def test_two_sweepers_give_one_end(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex, outboxes: Outboxes
) -> None:
    for n in range(6):
        dead_run(f"run_{n}", "item_0")
    other = Recovery(recovery._client, directory=outboxes.directory)
    reports = await asyncio.gather(recovery.sweep(), other.sweep())

    assert sum(report.runs_lost for report in reports) == 6
    assert ends(folding) == [(1, "run_lost", NOW_MS)] * 6
    assert outboxes.names() == []


@pytest.mark.parametrize("cut", [1, 30, 100])
async def test_a_torn_last_line_was_never_promised(
    recovery: Recovery,
    dead_run: Callable[..., Path],
    folding: FoldingConvex,
    outboxes: Outboxes,
    caplog: pytest.LogCaptureFixture,
    cut: int,
) -> None:
    path = dead_run("run_1", "item_0", "item_1")
    os.truncate(path, path.stat().st_size - cut)
    torn = path.read_bytes()
    await recovery.sweep()

    # Without its line end alone, the record is still whole.
    whole = cut == 1
    assert folding.item_ids() == (["item_0", "item_1"] if whole else ["item_0"])
    assert ends(folding) == [(2 if whole else 1, "run_lost", NOW_MS)]
    assert outboxes.names() == ([] if whole else ["run_1.damaged"])
    told = [record.message for record in caplog.records]
    if whole:
        assert told == ["recovery.run_lost"]
    else:
        assert told[0] == "outbox.torn_last_line"
        assert told[-1] == "outbox.journal_kept"
        assert (outboxes.directory / "run_1.damaged").read_bytes().startswith(torn)


@pytest.mark.parametrize("cut", [1, 30])
async def test_a_torn_end_is_the_same_to_a_sweeper_that_comes_later(
    recovery: Recovery,
    dead_run: Callable[..., Path],
    server: FakeConvex,
    folding: FoldingConvex,
    outboxes: Outboxes,
    cut: int,
) -> None:
    path = dead_run("run_1", "item_0", "item_1")
    os.truncate(path, path.stat().st_size - cut)
    record = server._handlers["sessions:record"]
    server.on("sessions:record", until_the_end(record))
    await recovery.sweep()
    server.on("sessions:record", record)
    await Recovery(recovery._client, directory=outboxes.directory).sweep()

    items = 2 if cut == 1 else 1
    assert folding.seqs() == list(range(items + 1))
    assert ends(folding) == [(items, "run_lost", NOW_MS)]
    assert outboxes.names() == ([] if cut == 1 else ["run_1.damaged"])


async def test_damage_in_the_middle_and_at_the_end_is_announced_before_it(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex, outboxes: Outboxes
) -> None:
    path = dead_run("run_1", *(f"item_{n}" for n in range(5)))
    flip(path, b"item_1")
    flip(path, b"item_4")
    await recovery.sweep()

    assert folding.item_ids() == ["item_0", "item_2", "item_3"]
    lost = [(r["fromSeq"], r["toSeq"]) for r in folding.folded if r["kind"] == "lost"]
    assert lost == [(1, 1), (4, 4)]
    assert ends(folding) == [(5, "run_lost", NOW_MS)]
    assert outboxes.names() == ["run_1.damaged"]


async def test_with_nothing_but_a_header_it_ends_when_it_began(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex, outboxes: Outboxes
) -> None:
    dead_run("run_1")

    assert await recovery.sweep() == SweepReport(delivered=1, records=1, runs_lost=1)
    assert ends(folding) == [(0, "run_lost", NOW_MS)]
    assert outboxes.names() == []


async def test_a_full_disk_costs_no_more_than_time(
    recovery: Recovery,
    dead_run: Callable[..., Path],
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = dead_run("run_1", "item_0")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        assert (await recovery.sweep()).held == 1
    assert path.read_bytes() == before

    assert await recovery.sweep() == SweepReport(delivered=1, records=1, runs_lost=1)
    assert folding.seqs() == [0, 1]


async def deliver_only(recovery: Recovery, journal: Journal) -> None:
    from livekit.plugins.convex.recorder import speaking_for
    from livekit.plugins.convex.sender import Sender

    client = speaking_for(recovery._client, journal.header)
    assert await Sender(journal, client).drain() is None
    await client.aclose()


def until_the_end(handler: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Folds everything but an end, at which it throws."""

    def answer(args: dict[str, Any]) -> Any:
        if any(record["kind"] == "runEnded" for record in args["records"]):
            raise RuntimeError
        return handler(args)

    return answer
