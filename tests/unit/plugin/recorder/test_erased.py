"""The student is erased while their lesson is being held."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import AgentSession

from convex import ConvexError
from livekit.plugins.convex import SessionRecorder
from livekit.plugins.convex.testing import FakeConvex
from tests.support.logged import logged
from tests.support.session_events import said


def erased(args: object) -> None:
    raise ConvexError("", {"code": "erased", "message": "The student was erased."})


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def test_the_lesson_goes_on_and_nothing_of_it_is_kept(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    server: FakeConvex,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = attach()
    session.emit("conversation_item_added", said("user", "Good morning"))
    assert await recorder.flush(5.0) == 0
    server.on("sessions:record", erased)
    session.emit("conversation_item_added", said("user", "private words"))
    assert await recorder.flush(5.0) == 0
    heard: list[object] = []
    session.on("conversation_item_added", heard.append)

    for _ in range(3):
        session.emit("conversation_item_added", said("user", "private words"))

    assert len(heard) == 3
    assert (recorder.stats.dropped, recorder.stats.lost, recorder.stats.pending) == (3, 0, 0)
    assert await recorder.aclose() == 0
    assert files_in(tmp_path) == []
    assert logged(caplog, logging.WARNING) == ["outbox.journal_erased"]
    assert "private" not in str([record.__dict__ for record in caplog.records])
