"""What a journal says to a job that carries its conversation on, whatever state it is in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents.llm import ChatMessage

from livekit.plugins.convex import (
    AsyncConvexClient,
    MessageRecord,
    Record,
    RunEndedRecord,
    SessionIdentity,
    SessionResumedRecord,
    SessionStartedRecord,
    TurnMetrics,
    UsageRecord,
    read_journals,
)
from livekit.plugins.convex.journal import Journal, encode_line
from livekit.plugins.convex.outbox import Outbox
from livekit.plugins.convex.testing import FakeConvex
from tests.support.damage import flip
from tests.typing import readme_resume

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex, Outboxes

NOW = 1_795_474_184.5
SUBJECT = "student:k57"


class SlideTurned(Record, tag="slideTurned", frozen=True, kw_only=True):
    """A record as an app writes them."""

    slide: int
    took_s: float | None = None


@pytest.fixture
def begun(outboxes: Outboxes) -> Callable[..., Outbox]:
    """Begins a run of the student; it lives until its journal is closed."""

    def begin(run_id: str, **header: Any) -> Outbox:
        return Outbox(Journal.create(outboxes.directory, outboxes.header(run_id, **header)))

    return begin


def item_ids(directory: Path, **which: Any) -> list[list[str]]:
    """Of each run, the items of its messages."""
    runs = read_journals(directory, subject=SUBJECT, types=[MessageRecord], **which)
    return [[record.item_id for record in run.records] for run in runs]


def test_runs_come_oldest_first_with_the_kinds_that_were_asked_for(
    begun: Callable[..., Outbox], outboxes: Outboxes
) -> None:
    start = {"session_key": "lesson_1", "room": "r", "job_id": "j", "agent_name": "emma"}
    dead = begun("run_b", started_at_ms=1000.0)
    dead.append(SessionStartedRecord(created_at=NOW, **start))
    said = outboxes.message("item_0")
    dead.append(said)
    dead.append(SlideTurned(created_at=NOW + 1, slide=3, took_s=2.5))
    dead.append(UsageRecord(created_at=NOW, models=()))
    dead.journal.close()
    resumed = SessionResumedRecord(created_at=NOW + 9, **start, last_seen_at=NOW)
    begun("run_a", started_at_ms=2000.0).append(resumed)

    first, second = read_journals(
        outboxes.directory,
        subject=SUBJECT,
        types=(MessageRecord, SlideTurned, SessionResumedRecord),
    )

    assert (first.run_id, first.session_key, first.started_at) == ("run_b", "lesson_1", 1.0)
    assert first.records == (said, SlideTurned(created_at=NOW + 1, slide=3, took_s=2.5))
    assert (second.run_id, second.records) == ("run_a", (resumed,))


def test_instants_and_durations_are_seconds_again(
    begun: Callable[..., Outbox], outboxes: Outboxes
) -> None:
    said = MessageRecord(
        created_at=NOW,
        item_id="item_0",
        role="assistant",
        text="Guten Morgen",
        interrupted=True,
        started_speaking_at=NOW + 0.5,
        metrics=TurnMetrics(llm_ttft_s=0.25),
    )
    begun("run_1").append(said)
    [run] = read_journals(outboxes.directory, subject=SUBJECT, types=[MessageRecord])

    assert run.records == (said,)


def test_what_is_not_this_students_is_not_read(
    begun: Callable[..., Outbox], outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(20):
        begun(f"run_{n}", subject=f"student:k{n}").append(outboxes.message("item_0"))
    looked: list[str] = []
    look = Journal.look

    def watched(path: Path) -> Journal:
        looked.append(path.name)
        return look(path)

    monkeypatch.setattr(Journal, "look", watched)
    begun("mine").append(outboxes.message("item_1"))

    assert item_ids(outboxes.directory) == [["item_1"]]
    assert looked == ["mine.journal"]


@pytest.mark.parametrize(
    ("which", "items"),
    [
        ({}, [["item_0"], ["item_1"], ["item_2"]]),
        ({"session_key": "lesson_1"}, [["item_0"], ["item_2"]]),
        ({"session_key": "lesson_9"}, []),
        ({"deployment": "https://a.invalid"}, [["item_0"], ["item_2"]]),
        ({"deployment": "https://b.invalid", "session_key": "lesson_2"}, [["item_1"]]),
    ],
)
def test_a_session_or_a_deployment_can_be_chosen(
    begun: Callable[..., Outbox], outboxes: Outboxes, which: dict[str, str], items: list[list[str]]
) -> None:
    """A journal without an address belongs to whichever deployment the worker has."""
    for n, (key, url) in enumerate(
        [("lesson_1", "https://a.invalid"), ("lesson_2", "https://b.invalid"), ("lesson_1", "")]
    ):
        run = begun(f"run_{n}", session_key=key, deployment=url, started_at_ms=float(n))
        run.append(outboxes.message(f"item_{n}"))

    assert item_ids(outboxes.directory, **which) == items


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_torn_last_line_was_never_said(
    dead_run: Callable[..., Path], outboxes: Outboxes, cut: int
) -> None:
    path = dead_run("run_1", "item_0", "item_1")
    os.truncate(path, path.stat().st_size - cut)

    # Without its line end alone, the record is still whole.
    assert item_ids(outboxes.directory) == [["item_0", "item_1"] if cut == 1 else ["item_0"]]


def test_damaged_lines_are_passed_over(dead_run: Callable[..., Path], outboxes: Outboxes) -> None:
    path = dead_run("run_1", *(f"item_{n}" for n in range(4)))
    flip(path, b"item_1")
    with path.open("ab") as journal:
        journal.write(encode_line(b"[1]") + encode_line(b"{") + encode_line(b'{"seq":9}'))
        journal.write(encode_line(b'{"seq":4,"kind":"message"}') + b"\n" + bytes(1_000_000) + b"\n")
        journal.write(encode_line(b'{"seq":0,"kind":"runEnded","createdAt":1.0,"reason":"late"}'))
    [run] = read_journals(
        outboxes.directory, subject=SUBJECT, types=[MessageRecord, RunEndedRecord]
    )

    assert [getattr(record, "item_id", "end") for record in run.records] == [
        "item_0",
        "item_2",
        "item_3",
    ]


def test_a_journal_that_is_delivered_meanwhile_is_left_out(
    dead_run: Callable[..., Path], outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_run("run_1", "item_0")
    dead_run("run_2", "item_1")
    look = Journal.look

    def once_gone(path: Path) -> Journal:
        if path.stem == "run_1":
            path.unlink()
        return look(path)

    monkeypatch.setattr(Journal, "look", once_gone)

    assert item_ids(outboxes.directory) == [["item_1"]]


def test_a_journal_without_a_header_is_passed_over(
    dead_run: Callable[..., Path], outboxes: Outboxes
) -> None:
    os.truncate(dead_run("run_1", "item_0"), 20)
    dead_run("run_2", "item_1")

    assert item_ids(outboxes.directory) == [["item_1"]]


def test_a_run_is_read_while_it_is_written(
    begun: Callable[..., Outbox], outboxes: Outboxes
) -> None:
    run = begun("run_1")
    for n in range(3):
        run.append(outboxes.message(f"item_{n}"))
        assert item_ids(outboxes.directory) == [[f"item_{i}" for i in range(n + 1)]]


def test_a_directory_that_is_not_there_is_empty_and_one_that_is_none_an_error(
    outboxes: Outboxes,
) -> None:
    assert item_ids(outboxes.directory) == []
    outboxes.directory.touch()
    with pytest.raises(OSError, match="Not a directory"):
        item_ids(outboxes.directory)


# The README's example


@pytest.fixture
def who(outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch) -> SessionIdentity:
    monkeypatch.setenv("CONVEX_OUTBOX_DIR", str(outboxes.directory))
    return SessionIdentity(student_id="k57", session_key="lesson_1")


def words(context: Any) -> list[tuple[str, str | None]]:
    return [(i.role, i.text_content) for i in context.items if isinstance(i, ChatMessage)]


async def test_the_example_delivers_and_asks(
    server: FakeConvex, dead_run: Callable[..., Path], who: SessionIdentity, folding: FoldingConvex
) -> None:
    dead_run("run_1", "item_0")
    server.on("talks:latest", lambda args: [row for row in folding.folded if "role" in row])
    async with AsyncConvexClient(server.url, token=None) as client:
        said = await readme_resume.said_before(client, who)

    assert words(said) == [("user", "Good morning")]
    assert folding.kinds() == ["message", "runEnded"]


async def test_the_example_reads_the_journals_while_convex_is_away(
    server: FakeConvex, begun: Callable[..., Outbox], outboxes: Outboxes, who: SessionIdentity
) -> None:
    run = begun("run_1", deployment=server.url)
    run.append(outboxes.message("item_0", "Good mor"))
    run.append(outboxes.message("item_1", "Morning", created_at=NOW + 1))
    run.append(outboxes.message("item_0", "Good morning"))
    run.journal.close()
    await server.stop()
    async with AsyncConvexClient(server.url, token=None) as client:
        said = await readme_resume.said_before(client, who)

    assert words(said) == [("user", "Good morning"), ("user", "Morning")]
