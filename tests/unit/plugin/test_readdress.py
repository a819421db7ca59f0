"""Journals whose deployment was wrong or not known: where their records get to in the end."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.plugins import convex

from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    Recovery,
    SweepReport,
    readdress,
)
from livekit.plugins.convex.errors import OutboxError
from livekit.plugins.convex.journal import Confirmed, Journal
from livekit.plugins.convex.outbox import Outbox
from livekit.plugins.convex.records import RunEndedRecord
from livekit.plugins.convex.testing import FakeConvex

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex, Outboxes

WRONG = "https://wrong.convex.cloud"
DONE = RunEndedRecord(created_at=1_795_474_184.5, reason="done")


@pytest.fixture
async def server(convex: FakeConvex, folding: FoldingConvex) -> FakeConvex:
    """A deployment over HTTP whose `sessions:record` folds."""

    def record(args: dict[str, Any]) -> Any:
        folding.batches.append([int(row["seq"]) for row in args["records"]])
        return {"seq": folding._fold(int(args["version"]), args["runId"], args["records"])}

    convex.on("sessions:record", record)
    return convex


@pytest.fixture
async def recovery(server: FakeConvex, outboxes: Outboxes) -> AsyncIterator[Recovery]:
    token = AgentToken(AgentKey.generate(), subject="worker")
    async with AsyncConvexClient(server.url, token=token) as client:
        yield Recovery(client, directory=outboxes.directory)


@pytest.fixture
def held(outboxes: Outboxes) -> Callable[..., Path]:
    """Leaves the journal of a run that recorded three messages and its end."""

    def leave(run_id: str = "run_1", *, deployment: str = WRONG) -> Path:
        header = outboxes.header(run_id, deployment=deployment)
        outbox = Outbox(Journal.create(outboxes.directory, header))
        for n in range(3):
            outbox.append(outboxes.message(f"{run_id} item_{n}"))
        outbox.append(DONE)
        outbox.journal.close()
        return outbox.journal.path

    return leave


async def test_held_for_a_wrong_address_they_are_delivered_once_after_the_correction(
    held: Callable[..., Path],
    recovery: Recovery,
    server: FakeConvex,
    folding: FoldingConvex,
    outboxes: Outboxes,
) -> None:
    held("run_1")
    held("run_2")
    held("run_3", deployment="https://elsewhere.convex.cloud")
    assert (await recovery.sweep()).foreign == 3

    assert readdress(outboxes.directory, old=f"{WRONG}/", new=f"{server.url}/") == 2
    assert await recovery.sweep() == SweepReport(delivered=2, foreign=1, records=8)
    assert await recovery.sweep() == SweepReport(foreign=1)

    for run in ("run_1", "run_2"):
        items = [row["itemId"] for row in folding.rows[run][:-1]]
        assert items == [f"{run} item_{n}" for n in range(3)]
    assert folding.batches == [[0, 1, 2, 3]] * 2
    assert outboxes.names() == ["run_3.journal"]
    assert readdress(outboxes.directory, old=WRONG, new=server.url) == 0


async def test_the_foreign_line_names_the_deployment_and_the_remedy(
    held: Callable[..., Path], recovery: Recovery, caplog: pytest.LogCaptureFixture
) -> None:
    held()
    await recovery.sweep()

    (line,) = caplog.records
    assert line.message == "recovery.foreign_journal"
    assert line.deployment == WRONG  # type: ignore[attr-defined]
    assert "outbox readdress" in line.remedy  # type: ignore[attr-defined]


async def test_one_without_a_deployment_goes_to_the_sweeping_workers(
    held: Callable[..., Path], recovery: Recovery, folding: FoldingConvex, outboxes: Outboxes
) -> None:
    held(deployment="")

    assert await recovery.sweep() == SweepReport(delivered=1, records=4)
    assert folding.seqs() == [0, 1, 2, 3]
    assert outboxes.names() == []


async def test_what_the_old_deployment_has_is_sent_to_the_new_one_too(
    held: Callable[..., Path],
    recovery: Recovery,
    server: FakeConvex,
    folding: FoldingConvex,
    outboxes: Outboxes,
) -> None:
    """An address of the same length: the old offset would fit, and all would seem delivered."""
    path = held(deployment=server.url[:-1] + "x")
    journal = Journal.adopt(path)
    journal.confirm(Confirmed(seq=3, offset=journal.size, ended=True))
    journal.close()

    assert readdress(outboxes.directory, old=server.url[:-1] + "x", new=server.url) == 1
    await recovery.sweep()

    assert folding.seqs() == [0, 1, 2, 3]


async def test_damage_stays_where_it_is(
    held: Callable[..., Path],
    recovery: Recovery,
    server: FakeConvex,
    folding: FoldingConvex,
    outboxes: Outboxes,
) -> None:
    path = held()
    path.write_bytes(path.read_bytes().replace(b"item_1", b"item_x") + b"0000 a torn li")
    body = path.read_bytes().split(b"\n", 1)[1]
    readdress(outboxes.directory, old=WRONG, new=server.url)

    assert path.read_bytes().split(b"\n", 1)[1] == body
    await recovery.sweep()
    assert [row["kind"] for row in folding.folded] == ["message", "lost", "message", "runEnded"]


def test_a_live_run_keeps_its_journal(outboxes: Outboxes) -> None:
    outbox = Outbox(Journal.create(outboxes.directory, outboxes.header(deployment=WRONG)))
    before = outbox.journal.path.read_bytes()

    assert readdress(outboxes.directory, old=WRONG, new="https://right.convex.cloud") == 0
    assert outbox.journal.path.read_bytes() == before


def test_an_unreadable_journal_is_named_and_keeps_no_other_back(
    held: Callable[..., Path], outboxes: Outboxes, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(held("run_0"), 0)
    held("run_1")

    assert readdress(outboxes.directory, old=WRONG, new="https://right.convex.cloud") == 1
    assert [r.message for r in caplog.records] == ["outbox.journal_unreadable"]


@pytest.mark.parametrize("call", ["os.fsync", "Path.rename"])
def test_a_disk_that_fails_leaves_the_journal_as_it_was(
    held: Callable[..., Path], outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = held()
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"livekit.plugins.convex.journal.{call}", fail)
        with pytest.raises(OutboxError, match=r"run_1\.journal .*No space left"):
            readdress(outboxes.directory, old=WRONG, new="https://right.convex.cloud")

    assert path.read_bytes() == before
    assert outboxes.names() == ["run_1.journal"]
    assert readdress(outboxes.directory, old=WRONG, new="https://right.convex.cloud") == 1


def test_what_an_interrupted_attempt_left_is_no_obstacle(
    held: Callable[..., Path], outboxes: Outboxes
) -> None:
    path = held()
    (outboxes.directory / ".run_1.tmp").write_bytes(b"half a copy")

    assert readdress(outboxes.directory, old=WRONG, new="https://right.convex.cloud") == 1
    assert outboxes.names() == ["run_1.journal"]
    assert path.stat().st_mode & 0o777 == 0o600
    journal = outboxes.adopt(path)
    assert journal.header.deployment == "https://right.convex.cloud"
    journal.close()


def test_an_address_that_is_none_changes_nothing(
    held: Callable[..., Path], outboxes: Outboxes, caplog: pytest.LogCaptureFixture
) -> None:
    path = held()
    before = path.read_bytes()
    caplog.set_level(logging.INFO)

    with pytest.raises(convex.ConfigurationError):
        readdress(outboxes.directory, old=WRONG, new="right.convex.cloud")
    assert readdress(outboxes.directory, old=WRONG, new=f"{WRONG}/") == 0
    assert readdress(outboxes.directory / "nowhere", old=WRONG, new="https://x.convex.cloud") == 0
    assert path.read_bytes() == before
