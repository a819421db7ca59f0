"""Nothing that goes wrong while recording reaches the lesson."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents import AgentSession
from livekit.agents.voice.events import CloseEvent, CloseReason

from livekit.plugins.convex import Record, SessionRecorder
from livekit.plugins.convex.testing import FakeConvex
from tests.support.session_events import said

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex


class SlideShown(Record, tag="slideShown", frozen=True, kw_only=True):
    slide: int


async def test_no_exception_leaves_a_listener(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LiveKit re-raises a TypeError into the pipeline, and the tutor falls silent."""
    recorder = attach()
    heard: list[object] = []
    session.on("conversation_item_added", heard.append)

    def fail(record: Record) -> int:
        raise TypeError("private words")

    monkeypatch.setattr(recorder._outbox, "append", fail)
    session.emit("conversation_item_added", said("user", "private words"))
    session.emit("close", CloseEvent(reason=CloseReason.USER_INITIATED))

    assert len(heard) == 1
    assert recorder.stats.lost == 2
    assert {r.message for r in caplog.records} == {"recorder.not_recorded"}
    assert "private" not in str([r.__dict__ for r in caplog.records])
    monkeypatch.undo()
    await recorder.aclose()


async def test_an_apps_record_that_cannot_be_stored_is_no_exception_either(
    attach: Callable[..., SessionRecorder], folding: FoldingConvex, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = attach()

    assert recorder.record(SlideShown(created_at=1_795_474_184.0, slide=3)) == 1
    assert recorder.record(SlideShown(created_at=1_795_474_184.0, slide="x")) is None  # type: ignore[arg-type]

    await recorder.aclose()
    assert folding.kinds() == ["sessionStarted", "slideShown", "runEnded"]
    assert recorder.stats.lost == 1
    assert caplog.records[0].error == "slideShown.slide is str, not a number"  # type: ignore[attr-defined]


async def test_a_record_of_a_forked_child_is_counted_and_named(
    attach: Callable[..., SessionRecorder],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = attach()
    with monkeypatch.context() as child:
        child.setattr("os.getpid", lambda: -1)
        assert recorder.record(SlideShown(created_at=1.8e9, slide=3)) is None

    assert recorder.stats.lost == 1
    assert [r.message for r in caplog.records] == ["recorder.not_recorded"]
    await recorder.aclose()


async def test_without_a_disk_the_lesson_is_kept_in_memory_and_delivered(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    recorder = attach(outbox_dir=tmp_path / "file" / "outbox")
    session.emit("conversation_item_added", said("user", "Hello"))

    assert await recorder.aclose(timeout_s=10.0) == 0
    assert folding.kinds() == ["sessionStarted", "message", "runEnded"]
    assert "outbox.disk_unavailable" in [record.message for record in caplog.records]


async def test_convex_away_all_lesson_leaves_everything_on_disk(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    server: FakeConvex,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    await server.stop()
    recorder = attach()
    for n in range(5):
        session.emit("conversation_item_added", said("user", f"Hello {n}"))
        await asyncio.sleep(0)
    caplog.set_level(logging.INFO)

    assert await recorder.aclose(timeout_s=0.05) == 7

    assert len(list((tmp_path / "outbox").glob("*.journal"))) == 1
    closed = next(r for r in caplog.records if r.message == "recorder.closed")
    assert (closed.pending, closed.appended, closed.lost) == (7, 7, 0)  # type: ignore[attr-defined]
