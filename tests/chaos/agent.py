"""An agent as somebody else would write it, with the plugin's recorder and a witness beside it.

    python -m tests.chaos.agent start

The lesson needs no student: the job asks itself, turn by turn, as its metadata says (`Lesson`).
The witness is a second listener, called when the recorder's has returned: it tells the parent, over
a socket, what was given to the recorder. What the parent has read, the journal must have.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import time
from dataclasses import asdict, dataclass
from typing import Any

from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    JobContext,
    JobExecutorType,
    JobProcess,
    cli,
    function_tool,
    room_io,
)
from livekit.agents.llm import ChatMessage
from livekit.agents.voice.events import ConversationItemAddedEvent, FunctionToolsExecutedEvent

from livekit.plugins.convex import AsyncConvexClient, Recovery, SessionRecorder
from tests.support.scripted_llm import Answer, ScriptedLLM, call

AGENT_NAME = "chaos"
WITNESS_VARIABLE = "CHAOS_WITNESS"
TOOL_EVERY_TURNS = 5


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one job does; travels as the job's metadata.

    Attributes:
        turns: exchanges, then the job ends by itself.
        pace_s: pause between two of them.
        burst: messages before them, one after the other, that no model has made.
        block_s: the event loop stands still for so long in the middle.
        disk_bytes: the most that any file of the job may hold from the first turn on.
    """

    session_key: str
    student_id: str
    turns: int
    pace_s: float = 0.1
    burst: int = 0
    block_s: float = 0.0
    disk_bytes: int = 0

    def metadata(self) -> str:
        return json.dumps(asdict(self))


class Witness:
    """Says to the parent what happened; each word is with the kernel when a call returns."""

    def __init__(self, lesson: Lesson) -> None:
        host, port = os.environ[WITNESS_VARIABLE].split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._session_key = lesson.session_key
        self.say("began", str(os.getpid()))

    def say(self, what: str, value: str) -> None:
        line = json.dumps({"session_key": self._session_key, "what": what, "value": value})
        self._socket.sendall(line.encode() + b"\n")

    def listen(self, session: AgentSession[Any]) -> None:
        session.on("conversation_item_added", self._on_item)
        session.on("function_tools_executed", self._on_tools)

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if isinstance(event.item, ChatMessage) and event.item.role in ("user", "assistant"):
            self.say("message", event.item.id)

    def _on_tools(self, event: FunctionToolsExecutedEvent) -> None:
        for fn_call, _ in event.zipped():
            self.say("tool", fn_call.call_id)


class Speaker(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Answer.")

    @function_tool
    async def look_up(self) -> str:
        """Look something up."""
        return "found"


def set_up_process(process: JobProcess) -> None:
    if process.executor_type is JobExecutorType.PROCESS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


server = AgentServer(
    setup_fnc=set_up_process,
    num_idle_processes=2,
    load_fnc=lambda: 0.0,
    host="127.0.0.1",
    port=0,
)
Recovery.attach(server, client=AsyncConvexClient)


@server.rtc_session(agent_name=AGENT_NAME)
async def entrypoint(ctx: JobContext) -> None:
    lesson = Lesson(**json.loads(ctx.job.metadata))
    session: AgentSession[None] = AgentSession(
        llm=ScriptedLLM(*answers(lesson.turns)),
        vad=None,
        turn_handling={"turn_detection": "manual"},
    )
    client = AsyncConvexClient()
    SessionRecorder.attach(session, ctx=ctx, client=client)
    witness = await asyncio.to_thread(Witness, lesson)
    witness.listen(session)
    await session.start(
        Speaker(),
        room=ctx.room,
        room_options=room_io.RoomOptions(
            audio_input=False, audio_output=False, text_input=False, text_output=False
        ),
    )
    if lesson.disk_bytes:
        # Python ignores SIGXFSZ, so a write beyond it comes up short, as on a full disk.
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (lesson.disk_bytes, hard))
    for number in range(lesson.burst):
        item = ChatMessage(id=f"burst_{number}", role="user", content=[f"Sentence {number}."])
        session.emit("conversation_item_added", ConversationItemAddedEvent(item=item))
        if number % 20 == 0:
            await asyncio.sleep(0)
    for turn in range(lesson.turns):
        await session.run(user_input=f"Sentence number {turn}.")
        if lesson.block_s and turn == lesson.turns // 2:
            time.sleep(lesson.block_s)  # noqa: ASYNC251  this is what the scenario is about
        await asyncio.sleep(lesson.pace_s)
    ctx.shutdown("lesson over")


def answers(turns: int) -> list[Answer]:
    """The model's answers, with a call of the tool before some of them."""
    given: list[Answer] = []
    for turn in range(turns):
        if turn % TOOL_EVERY_TURNS == 0:
            given.append(call("look_up"))
        given.append(f"Answer number {turn}.")
    return given


if __name__ == "__main__":
    from tests.chaos import agent

    # By its own name: jobs import the module again and look the functions up in it.
    cli.run_app(agent.server)
