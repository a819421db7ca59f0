"""Looking at an outbox directory: what is there, told without a touch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.convex import Recovery
from livekit.plugins.convex.errors import OutboxError
from livekit.plugins.convex.inspection import dead_records, is_held, journals, lines
from livekit.plugins.convex.journal import Confirmed, Journal
from livekit.plugins.convex.testing import FakeConvex
from tests.support.damage import flip

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex, Outboxes


def test_a_dead_runs_journal_waits(dead_run: Callable[..., Path], server: FakeConvex) -> None:
    path = dead_run("run_1", "item_0", "item_1", end=True)
    (found,) = journals(path.parent)

    assert (found.run_id, found.live, found.kept, found.ended) == ("run_1", False, False, True)
    assert (found.records, found.confirmed, found.pending, found.damaged_lines) == (3, 0, 3, 0)
    assert found.size == path.stat().st_size
    assert found.header is not None and found.header.deployment == server.url


def test_what_convex_has_confirmed_does_not_wait(dead_run: Callable[..., Path]) -> None:
    path = dead_run("run_1", "item_0", "item_1")
    journal = Journal.adopt(path)
    first_end = next(journal.lines(journal.body_offset))[1]
    journal.confirm(Confirmed(seq=0, offset=first_end))
    journal.close()
    (found,) = journals(path.parent)

    assert (found.records, found.confirmed, found.pending) == (2, 1, 1)


def test_a_live_run_is_seen_and_not_disturbed(outboxes: Outboxes) -> None:
    outbox = outboxes.open("run_1")
    outbox.append(outboxes.message("item_0"))
    before = outbox.journal.path.read_bytes()
    (found,) = journals(outboxes.directory)

    assert (found.live, found.pending) == (True, 1)
    assert is_held(outbox.journal.path)
    outbox.append(outboxes.message("item_1"))
    assert outbox.journal.path.read_bytes().startswith(before)


async def test_damage_is_counted_before_and_after_delivery(
    recovery: Recovery, dead_run: Callable[..., Path], outboxes: Outboxes
) -> None:
    flip(dead_run("run_1", "item_0", "item_1", end=True), b"item_0")
    (found,) = journals(outboxes.directory)
    assert (found.damaged_lines, found.kept, found.pending) == (1, False, 3)
    await recovery.sweep()
    (found,) = journals(outboxes.directory)

    assert (found.damaged_lines, found.kept, found.pending) == (1, True, 0)
    assert found.path.name == "run_1.damaged"


@pytest.mark.parametrize("size", [0, 20])
def test_a_header_that_cannot_be_read_is_a_finding(
    dead_run: Callable[..., Path], size: int
) -> None:
    path = dead_run("run_1", "item_0")
    os.truncate(path, size)
    (found,) = journals(path.parent)

    assert (found.header, found.records) == (None, 0)
    assert found.problem == "run_1.journal has no readable header"


def test_a_newer_format_is_a_finding(dead_run: Callable[..., Path]) -> None:
    path = dead_run("run_1", "item_0", format=99)
    (found,) = journals(path.parent)

    assert found.header is None
    assert found.problem is not None and "written by a newer version" in found.problem


def test_the_oldest_run_comes_first(dead_run: Callable[..., Path]) -> None:
    dead_run("run_1", "item_0", started_at_ms=3_000.0)
    path = dead_run("run_2", "item_0", started_at_ms=2_000.0)

    assert [journal.run_id for journal in journals(path.parent)] == ["run_2", "run_1"]


def test_a_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    for look in (journals, dead_records):
        with pytest.raises(FileNotFoundError):
            look(tmp_path / "nowhere")


def test_lines_are_the_header_and_the_records_as_they_were_written(
    dead_run: Callable[..., Path],
) -> None:
    path = dead_run("run_1", "item_0", "item_1", end=True)
    flip(path, b"item_1")
    header, first, damaged, last = lines(path)

    assert header is not None and (header["kind"], header["runId"]) == ("journal", "run_1")
    assert first is not None and (first["seq"], first["itemId"]) == (0, "item_0")
    assert damaged is None
    assert last is not None and last["kind"] == "runEnded"
    os.truncate(path, 0)
    with pytest.raises(OutboxError):
        list(lines(path))


async def test_what_was_set_aside_is_told_with_its_reason(
    recovery: Recovery, dead_run: Callable[..., Path], folding: FoldingConvex, outboxes: Outboxes
) -> None:
    folding.refuse = lambda record: (
        ("text_too_long", "text") if record.get("itemId") == "item_1" else None
    )
    dead_run("run_2", "item_0", "item_1", end=True)
    dead_run("run_1", "item_1", end=True)
    await recovery.sweep()

    found = dead_records(outboxes.directory)
    assert [(one.run_id, one.seq, one.kind, one.code, one.field) for one in found] == [
        ("run_1", 0, "message", "text_too_long", "text"),
        ("run_2", 1, "message", "text_too_long", "text"),
    ]
    assert found[0].header is not None and found[0].header.session_key == "lesson_1"
    assert found[1].record["itemId"] == "item_1"
    assert [one.run_id for one in dead_records(outboxes.directory, "run_2")] == ["run_2"]
