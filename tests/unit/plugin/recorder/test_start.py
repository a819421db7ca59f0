"""Attaching a recorder: whose session it is, and which deployment's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents import AgentSession
from livekit.agents.testing import fake_job_context

from livekit.plugins.convex import AsyncConvexClient, SessionIdentity, SessionRecorder
from livekit.plugins.convex.testing import FakeConvex

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


@pytest.mark.parametrize("metadata", ["", "not json", '{"student_id": 7}'])
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


async def test_a_session_is_recorded_once(attach: Callable[..., SessionRecorder]) -> None:
    recorder = attach()
    with pytest.raises(RuntimeError, match="attach once"):
        attach()
    await recorder.aclose()
