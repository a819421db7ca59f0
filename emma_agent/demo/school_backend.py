"""The school's own server, as far as a lesson needs one: it sees to it that Emma is in the room.

LiveKit starts Emma once, by the student's token. It does not start her again: not where her worker
died, nor where she left an empty room before the student came back. Whoever issued the token knows
the lesson's metadata and does it, by the same key (`session_key`), so that the lesson goes on. In a
school the webhooks `participant_left` and `participant_joined` are the moment to ask.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Final

from livekit import api

__all__ = ["bring_back", "ensure_emma"]

# The list of a dispatch's jobs lags by seconds, and a job that nobody took is not in it. A warm
# worker is in the room half a second after it was called, a cold one within these.
_ON_THE_WAY_S: Final = 10.0
_ASK_EVERY_S: Final = 0.5


async def ensure_emma(
    livekit: api.LiveKitAPI,
    room: str,
    metadata: Mapping[str, object],
    *,
    agent_name: str = "emma",
    now: Callable[[], float] = time.time,
) -> bool:
    """Dispatch Emma to `room`, unless she is there or was called a moment ago.

    An agent that was killed is in the room until LiveKit gives it up, 20 s later.

    Args:
        metadata: the job's, the same for the whole lesson: `student_id`, `lesson_id`,
            `session_key`.
        now: Unix seconds, by LiveKit's clock.

    Returns:
        Whether she was dispatched now. False where nobody waits for her either.
    """
    asked = api.ListParticipantsRequest(room=room)
    present = (await livekit.room.list_participants(asked)).participants
    agent = api.ParticipantInfo.Kind.AGENT
    if not present or any(participant.kind == agent for participant in present):
        return False
    for dispatch in await livekit.agent_dispatch.list_dispatch(room):
        called_at = dispatch.state.created_at / 1e9
        if dispatch.agent_name == agent_name and now() - called_at < _ON_THE_WAY_S:
            return False
    call = api.CreateAgentDispatchRequest(
        room=room, agent_name=agent_name, metadata=json.dumps(dict(metadata))
    )
    await livekit.agent_dispatch.create_dispatch(call)
    return True


async def bring_back(
    livekit: api.LiveKitAPI,
    room: str,
    metadata: Mapping[str, object],
    *,
    timeout_s: float,
    agent_name: str = "emma",
) -> None:
    """Dispatch Emma as soon as LiveKit has given up the one who is gone.

    Raises:
        TimeoutError: an agent was in the room all the time, or no student was.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            if await ensure_emma(livekit, room, metadata, agent_name=agent_name):
                return
            await asyncio.sleep(_ASK_EVERY_S)
