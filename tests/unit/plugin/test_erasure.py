"""A student who was erased: what lies here of them goes, and their lesson is not disturbed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from convex import ConvexError
from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    ErasedError,
    ErasedHere,
    Recovery,
    SweepReport,
    erase_journals,
)
from livekit.plugins.convex.journal import Journal
from livekit.plugins.convex.testing import FakeConvex
from tests.support.logged import logged

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FakeClock, LiveRun, Outboxes


def erased(record: dict[str, Any]) -> tuple[str, str]:
    return "erased", ""


def side_files(path: Path) -> None:
    """What a run's journal may have beside it."""
    journal = Journal.adopt(path)
    journal.bury({"seq": 0, "code": "text_too_long", "field": "text", "at": 1.0, "record": {}})
    journal.close()
    path.with_suffix(".damaged").write_bytes(path.read_bytes())
    path.with_suffix(".confirmed").write_bytes(b"")


# A lesson that is being held


async def test_a_live_run_leaves_nothing_and_goes_on(
    live: LiveRun, outboxes: Outboxes, caplog: pytest.LogCaptureFixture
) -> None:
    live.say("item_0", text="private words")
    await live.after(0.0)
    live.outbox.journal.bury({"seq": 0, "code": "x", "field": "", "at": 1.0, "record": {}})
    assert outboxes.names() == ["run_1.confirmed", "run_1.dead", "run_1.journal"]

    live.convex.refuse = erased
    live.say("item_1", text="private words")
    await live.after(0.0)

    assert outboxes.names() == []
    assert live.delivery.sender.erased
    assert (live.delivery.pending, live.delivery.sender.held) == (0, None)
    assert logged(caplog) == ["outbox.journal_erased"]
    assert "private" not in str([record.__dict__ for record in caplog.records])


async def test_later_records_of_it_are_dropped_and_counted(
    live: LiveRun, outboxes: Outboxes
) -> None:
    live.convex.refuse = erased
    live.say("item_0")
    await live.after(0.0)
    calls = len(live.convex.batches)

    for n in range(3):
        with pytest.raises(ErasedError):
            live.say(f"later_{n}")
    await live.after(60.0)

    assert (live.outbox.dropped, live.outbox.lost) == (3, 0)
    assert len(live.convex.batches) == calls
    assert outboxes.names() == []
    assert await live.delivery.flush(1.0) == 0
    assert await live.delivery.aclose(1.0) == 0
    assert outboxes.names() == []


async def test_a_flush_that_waits_ends_with_it(live: LiveRun) -> None:
    live.convex.gate = asyncio.Event()
    live.convex.refuse = erased
    live.say("item_0")
    flushing = asyncio.create_task(live.delivery.flush(30.0))
    await live.after(0.0)
    live.convex.gate.set()

    assert await asyncio.wait_for(flushing, 5) == 0


async def test_what_waits_in_memory_goes_as_well(
    live: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk took nothing: the words are in the tail."""

    def refuse(line: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(live.outbox.journal, "append", refuse)
    live.convex.refuse = erased
    live.say("item_0")
    await live.after(0.0)

    assert live.outbox.waiting_in_memory == 0
    assert await live.delivery.aclose(1.0) == 0
    assert live.outbox.lost == 0


async def test_a_disk_that_refuses_is_tried_again(
    live: LiveRun, outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink
    refusals = [OSError(errno.EIO, os.strerror(errno.EIO))] * 2

    def failing(path: Path, *, missing_ok: bool = False) -> None:
        if refusals and path.suffix == ".journal":
            raise refusals.pop()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", failing)
    live.convex.refuse = erased
    live.say("item_0")
    await live.after(0.0)
    assert outboxes.names() == ["run_1.journal"]
    assert not live.delivery.sender.erased

    await live.after(60.0)

    assert outboxes.names() == []
    assert live.delivery.sender.erased


# Recovery


@pytest.fixture
async def server(convex: FakeConvex) -> FakeConvex:
    """A deployment that has erased everybody."""

    def record(args: dict[str, Any]) -> None:
        raise ConvexError("", {"code": "erased", "message": "The student was erased."})

    convex.on("sessions:record", record)
    return convex


@pytest.fixture
async def recovery(
    server: FakeConvex, outboxes: Outboxes, clock: FakeClock
) -> AsyncIterator[Recovery]:
    token = AgentToken(AgentKey.generate(), subject="worker")
    async with AsyncConvexClient(server.url, token=token) as client:
        recovery = Recovery(client, directory=outboxes.directory, sleep=clock.sleep)
        yield recovery
        await recovery.aclose()


def abandoned(outboxes: Outboxes, run_id: str, *items: str, **header: Any) -> Path:
    journal = Journal.create(outboxes.directory, outboxes.header(run_id, **header))
    from livekit.plugins.convex.outbox import Outbox

    outbox = Outbox(journal)
    for item in items:
        outbox.append(outboxes.message(item))
    journal.close()
    return journal.path


@pytest.mark.parametrize("items", [("item_0", "item_1"), ()])
async def test_recovery_deletes_the_journal_and_what_is_beside_it(
    recovery: Recovery,
    server: FakeConvex,
    outboxes: Outboxes,
    items: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    side_files(abandoned(outboxes, "run_1", *items, deployment=server.url))

    assert await recovery.sweep() == SweepReport(erased=1, runs_lost=int(not items))

    assert outboxes.names() == []
    assert "outbox.journal_erased" in logged(caplog)
    assert await recovery.sweep() == SweepReport()


async def test_recovery_asks_about_what_is_kept_and_leaves_other_deployments_alone(
    recovery: Recovery, server: FakeConvex, outboxes: Outboxes
) -> None:
    for run_id, url in [("run_1", server.url), ("run_2", "https://other.invalid"), ("run_3", "")]:
        path = abandoned(outboxes, run_id, deployment=url)
        side_files(path)
        path.unlink()
        path.with_suffix(".confirmed").unlink()

    assert await recovery.sweep() == SweepReport(erased=4)

    assert outboxes.names() == ["run_2.damaged", "run_2.dead"]
    assert [call.args["records"] for call in server.calls] == [[]] * 4


async def test_what_is_kept_of_others_stays(
    recovery: Recovery, server: FakeConvex, outboxes: Outboxes
) -> None:
    server.on("sessions:record", lambda args: {"seq": 4.0})
    path = abandoned(outboxes, "run_1", deployment=server.url)
    side_files(path)
    path.unlink()

    assert await recovery.sweep() == SweepReport()
    assert await recovery.sweep() == SweepReport()

    assert outboxes.names() == ["run_1.confirmed", "run_1.damaged", "run_1.dead"]
    assert server.call_count() == 2  # one for each file, once an hour and not with each sweep


# The operator's own machine


def test_erasing_deletes_the_students_files_and_no_others(outboxes: Outboxes) -> None:
    url = "http://127.0.0.1:3210"
    side_files(abandoned(outboxes, "run_1", "item_0"))
    abandoned(outboxes, "run_2", "item_0", deployment="")
    abandoned(outboxes, "other_student", "item_0", student_id="k58")
    abandoned(outboxes, "other_deployment", "item_0", deployment="https://other.invalid")
    abandoned(outboxes, "a_guest", "item_0", student_id=None)
    kept = abandoned(outboxes, "run_3", "item_0")
    side_files(kept)
    kept.unlink()
    (outboxes.directory / "broken.journal").write_bytes(b"no header\n")

    found = erase_journals(outboxes.directory, student_id="k57", deployment=url)

    assert found == ErasedHere(deleted=4)
    assert outboxes.names() == [
        "a_guest.journal",
        "broken.journal",
        "other_deployment.journal",
        "other_student.journal",
        "run_3.confirmed",
    ]
    assert erase_journals(outboxes.directory, student_id="k57", deployment=url) == ErasedHere()


def test_a_journal_that_a_run_holds_is_left_to_it(outboxes: Outboxes) -> None:
    outbox = outboxes.open("run_1")

    found = erase_journals(outboxes.directory, student_id="k57", deployment="http://127.0.0.1:3210")

    assert found == ErasedHere(held=1)
    outbox.append(outboxes.message("item_0"))


def test_a_directory_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert erase_journals(tmp_path / "none", student_id="k57", deployment="") == ErasedHere()
