"""Attaching a recorder: whose session it is, and which deployment's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents import AgentSession
from livekit.agents.testing import fake_job_context

from livekit.plugins.convex import (
    AsyncConvexClient,
    Recovery,
    SessionIdentity,
    SessionRecorder,
)
from livekit.plugins.convex.testing import FakeConvex
from tests.support.logged import logged
from tests.support.session_events import said

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex


async def test_the_run_is_bound_to_the_student_of_the_metadata(
    attach: Callable[..., SessionRecorder], server: FakeConvex
) -> None:
    import jwt

    recorder = attach()
    await recorder.aclose()

    token = next(call.token for call in server.calls if call.function == "sessions:record")
    assert token is not None
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["student_id"]) == ("student:k57", "k57")


async def test_a_job_that_carries_on_a_session_says_when_it_was_last_seen(
    attach: Callable[..., SessionRecorder], folding: FoldingConvex
) -> None:
    """Convex decides by it whether the session goes on or a new one begins."""
    recorder = attach(last_seen_at=1_795_474_000.5)
    await recorder.aclose()

    first = folding.folded[0]
    assert (first["kind"], first["lastSeenAt"]) == ("sessionResumed", 1_795_474_000_500.0)
    assert first["sessionKey"] == recorder.identity.session_key


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "not json",
        '{"student_id": 7}',
        pytest.param("[" * 50_000, id="nested"),
        r'{"session_key": "\ud800"}',
    ],
)
async def test_metadata_that_cannot_be_read_makes_a_guest_with_one_warning(
    session: AgentSession[Any],
    client: AsyncConvexClient,
    folding: FoldingConvex,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    metadata: str,
) -> None:
    with fake_job_context(job_metadata=metadata) as ctx:
        recorder = SessionRecorder.attach(session, ctx=ctx, client=client, outbox_dir=tmp_path)
        await recorder.aclose()

    warnings = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == ["recorder.guest_session"]
    assert recorder.identity.subject == f"guest:{recorder.run_id}"
    assert folding.folded[0]["sessionKey"] == recorder.run_id


async def test_an_identity_that_is_given_counts(attach: Callable[..., SessionRecorder]) -> None:
    recorder = attach(identity=SessionIdentity(student_id="other", session_key="s9"))
    await recorder.aclose()

    assert recorder.identity == SessionIdentity(student_id="other", session_key="s9")


async def test_who_in_the_room_is_the_student_is_recorded(
    session: AgentSession[Any], client: AsyncConvexClient, folding: FoldingConvex, tmp_path: Path
) -> None:
    with fake_job_context(job_metadata='{"participant_identity": "sam"}') as ctx:
        recorder = SessionRecorder.attach(session, ctx=ctx, client=client, outbox_dir=tmp_path)
        await recorder.aclose()

    assert folding.folded[0]["participantIdentity"] == "sam"


async def test_while_the_deployment_is_not_known_records_wait_for_recovery(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    client: AsyncConvexClient,
    server: FakeConvex,
    folding: FoldingConvex,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    recorder = attach(deployment="")
    session.emit("conversation_item_added", said("user", "Hello"))

    assert await recorder.flush(60.0) == 2
    assert await recorder.aclose(timeout_s=60.0) == 3
    assert server.calls == []
    assert logged(caplog, logging.WARNING) == ["outbox.deployment_unknown", "recorder.closed"]
    assert "CONVEX_URL" in caplog.records[0].remedy  # type: ignore[attr-defined]

    await Recovery(client, directory=tmp_path / "outbox").sweep()
    assert folding.kinds() == ["sessionStarted", "message", "runEnded"]
    assert list((tmp_path / "outbox").iterdir()) == []


async def test_a_deployment_that_is_not_the_clients_is_refused(
    attach: Callable[..., SessionRecorder], client: AsyncConvexClient, tmp_path: Path
) -> None:
    """Its records would be sent to the client's."""
    with pytest.raises(ValueError, match="the client's own"):
        attach(deployment="https://other.convex.cloud")
    assert not (tmp_path / "outbox").exists()

    recorder = attach(deployment=client.url)
    assert await recorder.aclose() == 0


async def test_a_session_is_recorded_once(attach: Callable[..., SessionRecorder]) -> None:
    recorder = attach()
    with pytest.raises(RuntimeError, match="attach once"):
        attach()
    await recorder.aclose()
