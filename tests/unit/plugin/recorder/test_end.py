"""The end of a recorded session, and of its job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents import AgentSession, JobContext
from livekit.agents.voice.events import CloseEvent, CloseReason

from livekit.plugins.convex import AsyncConvexClient, SessionRecorder
from tests.support.session_events import said

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex


async def test_a_closed_session_ends_its_job(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], shutdowns: list[str]
) -> None:
    """Else the server ends the room 17 to 20 s after the student has left."""
    recorder = attach()
    session.emit("close", CloseEvent(reason=CloseReason.PARTICIPANT_DISCONNECTED))

    assert shutdowns == ["participant_disconnected"]
    await recorder.aclose()


async def test_a_closed_session_leaves_its_job_alone_if_told_to(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], shutdowns: list[str]
) -> None:
    recorder = attach(end_job_on_close=False)
    session.emit("close", CloseEvent(reason=CloseReason.PARTICIPANT_DISCONNECTED))

    assert shutdowns == []
    await recorder.aclose()


@pytest.mark.parametrize(
    ("close", "kept"),
    [
        (CloseReason.USER_INITIATED, "lesson_over"),
        (CloseReason.PARTICIPANT_DISCONNECTED, "participant_disconnected"),
        (CloseReason.ERROR, "error"),
    ],
)
async def test_an_end_that_the_app_makes_has_its_reason(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    shutdowns: list[str],
    folding: FoldingConvex,
    close: CloseReason,
    kept: str,
) -> None:
    recorder = attach()
    recorder.ends_because("lesson_over")
    session.emit("close", CloseEvent(reason=close))

    assert shutdowns == [kept]
    await recorder.aclose()
    [ended] = [record for record in folding.folded if record["kind"] == "sessionEnded"]
    assert ended["reason"] == kept


async def test_the_shutdown_callback_keeps_the_reason_and_delivers_the_rest(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    ctx: JobContext,
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As in a real job: `aclose` in on_session_end first, the callbacks last."""
    monkeypatch.setattr(ctx, "is_fake_job", lambda: False)
    recorder = attach()
    session.emit("conversation_item_added", said("user", "Bye"))
    assert await recorder.aclose(timeout_s=10.0) == 0
    assert folding.kinds() == ["sessionStarted", "message"]

    for callback in ctx._shutdown_callbacks:
        await callback("room disconnected")

    assert folding.kinds() == ["sessionStarted", "message", "runEnded"]
    assert folding.folded[-1]["reason"] == "room disconnected"
    assert list((tmp_path / "outbox").iterdir()) == []
    assert await recorder.aclose(timeout_s=10.0) == 0


async def test_the_shutdown_callback_never_raises(
    attach: Callable[..., SessionRecorder], ctx: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does has LiveKit cancel all the others."""
    recorder = attach()
    aclose = recorder._delivery.aclose

    async def fail(timeout_s: float) -> int:
        await aclose(0.0)
        raise RuntimeError("broken")

    monkeypatch.setattr(recorder._delivery, "aclose", fail)
    for callback in ctx._shutdown_callbacks:
        await callback("done")


async def test_the_client_may_be_closed_before_the_recorder(
    attach: Callable[..., SessionRecorder], client: AsyncConvexClient, folding: FoldingConvex
) -> None:
    recorder = attach()
    await client.aclose()

    assert await recorder.aclose(timeout_s=10.0) == 0
    assert folding.kinds() == ["sessionStarted", "runEnded"]
