"""A job that starts: what its student's former runs left is delivered first, or read from disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from convex import ConvexError
from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    SweepReport,
    deliver_dead_journals,
)
from livekit.plugins.convex.journal import Journal
from livekit.plugins.convex.testing import FakeConvex
from tests.support.damage import flip
from tests.support.former_job import FormerJob
from tests.support.logged import logged

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex, Outboxes

SUBJECT = "student:k57"
# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"
# Long enough for any machine: no test waits for it.
LONG_S = 60.0

Deliver = Callable[..., Awaitable[SweepReport]]


@pytest.fixture
async def deliver(server: FakeConvex, outboxes: Outboxes) -> AsyncIterator[Deliver]:
    """`deliver_dead_journals` for the student of `dead_run`."""
    token = AgentToken(AgentKey.generate(), subject=SUBJECT, student_id="k57")

    async with AsyncConvexClient(server.url, token=token) as client:

        async def deliver(timeout_s: float = LONG_S, subject: str = SUBJECT) -> SweepReport:
            return await deliver_dead_journals(
                client, outboxes.directory, subject=subject, timeout_s=timeout_s
            )

        yield deliver


@pytest.fixture
def held_journal(dead_run: Callable[..., Path]) -> Iterator[Journal]:
    """A journal of the student that somebody else holds, `run_held`."""
    journal = Journal.adopt(dead_run("run_held", "item_0"))
    yield journal
    journal.close()


async def test_what_a_dead_run_left_is_delivered_and_given_an_end(
    deliver: Deliver, dead_run: Callable[..., Path], folding: FoldingConvex, outboxes: Outboxes
) -> None:
    dead_run("run_1", "item_0", "item_1")
    dead_run("run_2", "item_2", end=True)

    assert await deliver() == SweepReport(delivered=2, records=5, runs_lost=1)

    assert sorted(folding.item_ids()) == ["item_0", "item_1", "item_2"]
    assert [row["reason"] for row in folding.rows["run_1"][-1:]] == ["run_lost"]
    assert outboxes.names() == []


async def test_journals_of_others_are_neither_delivered_nor_counted_nor_locked(
    deliver: Deliver,
    dead_run: Callable[..., Path],
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n in range(600):
        dead_run(f"run_{n}", subject=f"student:k{n + 1000}", student_id=f"k{n + 1000}")
    dead_run("mine", end=True)
    adopted: list[str] = []
    adopt = Journal.adopt

    def watched(path: Path) -> Journal:
        adopted.append(path.name)
        return adopt(path)

    monkeypatch.setattr(Journal, "adopt", watched)

    assert await deliver() == SweepReport(delivered=1, records=1)
    assert list(folding.rows) == ["mine"]
    assert adopted == ["mine.journal"]


async def test_of_a_foreign_journal_no_more_than_the_header_is_read(
    deliver: Deliver, dead_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dead_run("run_1", "item_0", subject="student:other", student_id="other")
    with path.open("ab") as journal:
        journal.truncate(200_000_000)
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        data = pread(fd, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)

    assert await deliver() == SweepReport()
    assert 0 < sum(read) <= 4096


async def test_a_long_header_is_read_whole(deliver: Deliver, dead_run: Callable[..., Path]) -> None:
    dead_run("run_1", session_key="s" * 1000, student_id="k" * 1000, end=True)

    assert (await deliver()).delivered == 1


async def test_another_deployments_journal_is_left_alone(
    deliver: Deliver, dead_run: Callable[..., Path]
) -> None:
    path = dead_run("run_1", "item_0", deployment="https://elsewhere.convex.cloud")
    before = path.read_bytes()

    assert await deliver() == SweepReport(foreign=1)
    assert path.read_bytes() == before


async def test_without_a_journal_nothing_is_asked(deliver: Deliver, server: FakeConvex) -> None:
    assert await deliver() == SweepReport()
    assert server.calls == []


async def test_a_run_of_this_process_is_not_waited_for(
    deliver: Deliver, outboxes: Outboxes
) -> None:
    """The job's own, if its recorder is there already; also when it was looked at meanwhile."""
    outbox = outboxes.open("mine")
    Journal.look(outbox.journal.path).close()
    async with asyncio.timeout(30):
        assert await deliver() == SweepReport()
    outbox.append(outboxes.message("item_0"))


async def test_a_former_job_that_is_killed_meanwhile_is_waited_for(
    deliver: Deliver, server: FakeConvex, folding: FoldingConvex, outboxes: Outboxes
) -> None:
    directory = outboxes.directory
    async with await FormerJob.start(server.url, directory, subject=SUBJECT) as job:
        delivering = asyncio.ensure_future(deliver())
        await asyncio.sleep(0.2)
        await job.says("item_1")
        assert not delivering.done() and folding.batches == []
        await job.kill()

    assert await delivering == SweepReport(delivered=1, records=3, runs_lost=1)
    assert folding.item_ids() == ["item_0", "item_1"]
    assert outboxes.names() == []


async def test_a_journal_that_is_given_up_meanwhile_is_delivered(
    deliver: Deliver, held_journal: Journal, outboxes: Outboxes
) -> None:
    delivering = asyncio.ensure_future(deliver())
    await asyncio.sleep(0.2)
    assert not delivering.done()
    held_journal.close()

    assert await delivering == SweepReport(delivered=1, records=2, runs_lost=1)
    assert outboxes.names() == []


async def test_a_journal_that_others_deliver_is_waited_for_until_it_is_gone(
    deliver: Deliver, held_journal: Journal, folding: FoldingConvex
) -> None:
    delivering = asyncio.ensure_future(deliver())
    await asyncio.sleep(0.2)
    assert not delivering.done()
    held_journal.delete()

    assert await delivering == SweepReport()
    assert folding.batches == []


async def test_a_run_that_lives_is_left_as_it_is(
    deliver: Deliver, held_journal: Journal, folding: FoldingConvex
) -> None:
    before = held_journal.path.read_bytes()

    assert await deliver(timeout_s=1.0) == SweepReport(owned=1)
    assert held_journal.path.read_bytes() == before
    assert folding.batches == []


async def test_what_is_held_keeps_nothing_else_back(
    deliver: Deliver,
    held_journal: Journal,
    dead_run: Callable[..., Path],
    folding: FoldingConvex,
) -> None:
    for n in range(6):
        dead_run(f"run_{n}", end=True)
    delivering = asyncio.ensure_future(deliver())
    async with asyncio.timeout(30):
        while len(folding.rows) < 6:  # noqa: ASYNC110  it is met over HTTP
            await asyncio.sleep(0.01)
    assert not delivering.done()
    held_journal.delete()

    assert await delivering == SweepReport(delivered=6, records=6)


async def test_an_outage_is_told_and_nothing_is_waited_for(
    deliver: Deliver, held_journal: Journal, dead_run: Callable[..., Path], server: FakeConvex
) -> None:
    path = dead_run("run_1", "item_0")
    before = path.read_bytes()
    server.fail_next(503, times=100)
    async with asyncio.timeout(30):
        report = await deliver()

    assert report == SweepReport(held=1, owned=1)
    assert report.held_for["run_1.journal"].unreachable
    assert path.read_bytes() == before


async def test_convex_that_cannot_be_reached_is_told(
    deliver: Deliver, dead_run: Callable[..., Path], server: FakeConvex
) -> None:
    dead_run("run_1", "item_0")
    await server.stop()

    assert await deliver() == SweepReport(held=1)


async def test_when_the_time_is_up_what_was_not_taken_is_left(
    deliver: Deliver, dead_run: Callable[..., Path], server: FakeConvex, folding: FoldingConvex
) -> None:
    path = dead_run("run_1", *(f"item_{n}" for n in range(100)))
    record = server._handlers["sessions:record"]
    server.on("sessions:record", once_then_never(record))

    report = await deliver(timeout_s=2.0)

    assert report == SweepReport(held=1, records=64)
    assert report.held_for["run_1.journal"].reason == "out_of_time"
    server.on("sessions:record", record)
    assert await deliver() == SweepReport(delivered=1, records=37, runs_lost=1)
    assert folding.seqs() == list(range(101))
    assert not path.exists()


async def test_without_time_nothing_is_done(
    deliver: Deliver, dead_run: Callable[..., Path]
) -> None:
    dead_run("run_1", "item_0")

    assert await deliver(timeout_s=0.0) == SweepReport()


async def test_a_bad_journal_raises_nothing_and_keeps_no_other_back(
    deliver: Deliver,
    dead_run: Callable[..., Path],
    folding: FoldingConvex,
    outboxes: Outboxes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    os.truncate(dead_run("empty"), 0)
    flip(dead_run("headless"), b"sessionKey")
    flip(dead_run("damaged", "item_0", "item_1", end=True), b"item_0")
    dead_run("nobodys", subject="", student_id=None)
    (outboxes.directory / "folder.journal").mkdir()
    dead_run("good", "item_2", end=True)

    assert await deliver() == SweepReport(delivered=2, records=4)

    assert sorted(folding.item_ids()) == ["item_1", "item_2"]
    assert outboxes.names() == [
        "damaged.damaged",
        "empty.journal",
        "folder.journal",
        "headless.journal",
        "nobodys.journal",
    ]
    caplog.clear()
    # Nobody can sign for it.
    assert await deliver(subject="") == SweepReport(held=1)
    assert logged(caplog) == ["recovery.journal_failed"]


async def test_a_directory_that_is_none_is_told(
    deliver: Deliver, outboxes: Outboxes, caplog: pytest.LogCaptureFixture
) -> None:
    outboxes.directory.touch()

    assert await deliver() == SweepReport()
    assert logged(caplog) == ["recovery.directory_unreadable"]


async def test_an_erased_student_is_told_and_gone_here(
    deliver: Deliver, dead_run: Callable[..., Path], server: FakeConvex, outboxes: Outboxes
) -> None:
    dead_run("run_1", "item_0")
    dead_run("run_2", "item_0", end=True)

    def erased(_: dict[str, Any]) -> None:
        raise ConvexError("erased", {"code": "erased", "message": ""})

    server.on("sessions:record", erased)

    assert await deliver() == SweepReport(erased=2)
    assert outboxes.names() == []


async def test_two_jobs_at_once_deliver_each_thing_once_and_both_wait_for_it(
    deliver: Deliver, dead_run: Callable[..., Path], server: FakeConvex, folding: FoldingConvex
) -> None:
    for n in range(6):
        dead_run(f"run_{n}", "item_0")
    server.delay_next(0.2, "sessions:record", times=4)
    reports = await asyncio.gather(deliver(), deliver())

    assert sum(report.delivered for report in reports) == 6
    assert all(report.owned == report.held == 0 for report in reports)
    assert sorted(map(len, folding.rows.values())) == [2] * 6
    assert len(folding.batches) == 12  # a record, then its run's end: none of it twice


def test_a_run_of_this_process_is_anothers_in_a_forked_child(outboxes: Outboxes) -> None:
    outbox = outboxes.open("mine")
    child = os.fork()
    if child == 0:  # pragma: no cover
        report = asyncio.run(deliver_to_nowhere(outboxes.directory))
        os._exit(report.owned)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 1
    assert asyncio.run(deliver_to_nowhere(outboxes.directory)).owned == 0
    outbox.close()


async def deliver_to_nowhere(directory: Path) -> SweepReport:
    async with AsyncConvexClient(NOWHERE, token=None) as client:
        return await deliver_dead_journals(client, directory, subject=SUBJECT, timeout_s=1.0)


def once_then_never(handler: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Answers one call, and never the others."""
    calls = iter([handler])

    async def answer(args: dict[str, Any]) -> Any:
        if (call := next(calls, None)) is None:
            await asyncio.Event().wait()
        else:
            return call(args)
        return None

    return answer
