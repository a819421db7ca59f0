"""A job process that records a lesson until it is killed; run by test_kill.py.

Its witness stands beside the recorder: a second listener, called when the recorder's has returned,
writes each item's id into a pipe that the test holds. What the pipe has, the journal must have.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.llm import ChatMessage
from livekit.agents.testing import fake_job_context
from livekit.agents.voice.events import ConversationItemAddedEvent

from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    SessionIdentity,
    SessionRecorder,
)


async def main(url: str, key_file: str, directory: str, session_key: str) -> None:
    key = AgentKey.from_pem(await asyncio.to_thread(Path(key_file).read_text))
    client = AsyncConvexClient(url, token=AgentToken(key, subject="worker"))
    session: AgentSession[Any] = AgentSession(vad=None, turn_handling={"turn_detection": "manual"})
    with fake_job_context(room=rtc.Room()) as ctx:
        SessionRecorder.attach(
            session,
            ctx=ctx,
            client=client,
            identity=SessionIdentity(session_key=session_key),
            outbox_dir=directory,
        )
        session.on("conversation_item_added", witness)
        for n in itertools.count():
            role = "user" if n % 2 == 0 else "assistant"
            item = ChatMessage(id=f"item_{n}", role=role, content=[f"Sentence {n}. " * (n % 40)])
            session.emit("conversation_item_added", ConversationItemAddedEvent(item=item))
            # Back to back most of the time, so that the kill comes in the middle of a write.
            if n % 7 == 0:
                await asyncio.sleep(0)


def witness(event: ConversationItemAddedEvent) -> None:
    os.write(1, f"{event.item.id}\n".encode())  # type: ignore[union-attr]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
