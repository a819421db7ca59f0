"""When the school calls Emma, against a LiveKit that is three lists."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import api

from emma_agent.demo.school_backend import bring_back, ensure_emma

NOW = 1_795_525_600.0
METADATA = {"student_id": "s", "session_key": "k"}
STUDENT = api.ParticipantInfo.Kind.STANDARD
AGENT = api.ParticipantInfo.Kind.AGENT


class LiveKit:
    """As much of `livekit.api.LiveKitAPI` as is called."""

    def __init__(self, *present: int, called_s_ago: float | None = 60.0) -> None:
        self.present = list(present)
        self.dispatches = []
        if called_s_ago is not None:
            state = SimpleNamespace(created_at=int((NOW - called_s_ago) * 1e9))
            self.dispatches.append(SimpleNamespace(agent_name="emma", state=state))
        self.calls: list[Any] = []
        self.room = self.agent_dispatch = self

    async def list_participants(self, _asked: object) -> SimpleNamespace:
        return SimpleNamespace(participants=[SimpleNamespace(kind=kind) for kind in self.present])

    async def list_dispatch(self, _room: str) -> list[SimpleNamespace]:
        return self.dispatches

    async def create_dispatch(self, call: Any) -> None:
        self.calls.append(call)


async def ensured(livekit: Any) -> bool:
    return await ensure_emma(livekit, "room", METADATA, now=lambda: NOW)


async def test_a_student_without_emma_gets_her_with_the_lessons_metadata() -> None:
    livekit = LiveKit(STUDENT)

    assert await ensured(livekit)

    (call,) = livekit.calls
    assert (call.room, call.agent_name, json.loads(call.metadata)) == ("room", "emma", METADATA)


@pytest.mark.parametrize(
    "livekit",
    [
        LiveKit(STUDENT, AGENT),
        LiveKit(),
        LiveKit(STUDENT, called_s_ago=1.0),
    ],
    ids=["she is there", "nobody is there", "she is on her way"],
)
async def test_nobody_is_called_twice(livekit: LiveKit) -> None:
    assert not await ensured(livekit)
    assert livekit.calls == []


async def test_who_was_killed_is_waited_for() -> None:
    livekit: Any = LiveKit(STUDENT, AGENT, called_s_ago=None)

    with pytest.raises(TimeoutError):
        await bring_back(livekit, "room", METADATA, timeout_s=0.01)
    assert livekit.calls == []
    livekit.present.remove(AGENT)
    await bring_back(livekit, "room", METADATA, timeout_s=5.0)

    assert len(livekit.calls) == 1
