"""A session, its job and the deployment that it is recorded in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession, JobContext
from livekit.agents.testing import fake_job_context

from livekit.plugins.convex import AgentKey, AgentToken, AsyncConvexClient, SessionRecorder
from livekit.plugins.convex.testing import FakeConvex

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex

METADATA = '{"student_id": "k57", "lesson_id": "l1", "session_key": "s1"}'


@pytest.fixture
async def server(convex: FakeConvex, folding: FoldingConvex) -> FakeConvex:
    def record(args: dict[str, Any]) -> Any:
        return {"seq": folding._fold(int(args["version"]), args["runId"], args["records"])}

    convex.on("sessions:record", record)
    convex.on("sessions:recordVersions", lambda _: [1])
    return convex


@pytest.fixture
async def client(server: FakeConvex) -> AsyncIterator[AsyncConvexClient]:
    token = AgentToken(AgentKey.generate(), subject="worker")
    async with AsyncConvexClient(server.url, token=token) as client:
        yield client


@pytest.fixture
async def room() -> rtc.Room:
    return rtc.Room()


@pytest.fixture
def ctx(room: rtc.Room) -> Iterator[JobContext]:
    with fake_job_context(room=room, job_id="AJ_1", job_metadata=METADATA) as ctx:
        yield ctx


@pytest.fixture
async def session() -> AsyncIterator[AgentSession[Any]]:
    yield AgentSession(vad=None, turn_handling={"turn_detection": "manual"})


@pytest.fixture
def attach(
    ctx: JobContext, client: AsyncConvexClient, session: AgentSession[Any], tmp_path: Path
) -> Callable[..., SessionRecorder]:
    def attach(**options: Any) -> SessionRecorder:
        options = {"ctx": ctx, "client": client, "outbox_dir": tmp_path / "outbox", **options}
        return SessionRecorder.attach(session, **options)

    return attach


@pytest.fixture
def shutdowns(ctx: JobContext, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reasons `ctx.shutdown` was called with."""
    reasons: list[str] = []
    monkeypatch.setattr(ctx, "shutdown", reasons.append)
    return reasons
