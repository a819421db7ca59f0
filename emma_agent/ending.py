"""The end of a lesson, which she makes herself: after the farewell the room ends.

The goodbye is heard whole: she ends nothing while somebody speaks, and waits for a silence after her
last word. A student who goes on talking is answered, and the wait begins anew. When the lesson is over
its session and its run end for the reason `lesson_over`, and the room is deleted, which tells the page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from livekit.agents import (
    AgentSession,
    AgentStateChangedEvent,
    CloseEvent,
    ConversationItemAddedEvent,
    JobContext,
    UserStateChangedEvent,
    llm,
)

from emma_agent.lesson import LessonState, report_failure
from emma_agent.logs import get_logger

__all__ = ["LESSON_OVER", "Ending"]

log = get_logger(__name__)

LESSON_OVER: Final = "lesson_over"
"""The reason on the record of a session that ended so, and of its run."""

# Seconds of silence after her last word. When she has asked for the end (`end_lesson`): until the
# sound has reached the student, who may still say "wait".
_ASKED_S: Final = 2.0
# When the student has answered the farewell, and she them: longer than a beginner's pause, after
# which a turn would be over (docs/turn-taking.md).
_ANSWERED_S: Final = 10.0
# When the student says nothing to the farewell: as long as in the lesson she would wait to help.
_SILENT_S: Final = 15.0


class Ending:
    """Follows the farewell; made before the session starts."""

    def __init__(
        self,
        lesson: LessonState,
        agent_session: AgentSession[LessonState],
        ctx: JobContext,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._lesson = lesson
        self._agent_session = agent_session
        self._ctx = ctx
        self._sleep = sleep
        self._said_goodbye = False
        self._answered = False
        self._over = False
        self._silence: asyncio.Task[None] | None = None
        agent_session.on("conversation_item_added", self._on_item)
        agent_session.on("agent_state_changed", self._on_agent_state)
        agent_session.on("user_state_changed", self._on_user_state)
        agent_session.on("close", self._on_close)

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        message = event.item
        if self._lesson.step != "farewell" or not isinstance(message, llm.ChatMessage):
            return
        if message.role == "assistant":
            self._said_goodbye = self._said_goodbye or not message.interrupted
        else:
            self._lesson.end_wanted = False
            self._answered = self._said_goodbye
        self._wait_anew()

    def _on_agent_state(self, _event: AgentStateChangedEvent) -> None:
        self._wait_anew()

    def _on_user_state(self, event: UserStateChangedEvent) -> None:
        if event.new_state == "speaking":
            self._lesson.end_wanted = False
        # Who is away has been silent all the while.
        if event.new_state != "away":
            self._wait_anew()

    def _wait_anew(self) -> None:
        self._stop_waiting()
        session = self._agent_session
        if (
            self._said_goodbye
            and self._lesson.step == "farewell"
            and session.agent_state == "listening"
            and session.user_state != "speaking"
            and not self._over
        ):
            self._silence = asyncio.create_task(self._end_after_silence(), name="ending.silence")
            self._silence.add_done_callback(report_failure)

    async def _end_after_silence(self) -> None:
        wanted = self._lesson.end_wanted
        await self._sleep(_ASKED_S if wanted else _ANSWERED_S if self._answered else _SILENT_S)
        self._over = True
        log.info("lesson.over", wanted=wanted, answered=self._answered)
        if self._lesson.recorder is not None:
            self._lesson.recorder.ends_because(LESSON_OVER)
        self._agent_session.shutdown()

    def _on_close(self, _event: CloseEvent) -> None:
        self._stop_waiting()
        if self._over:
            # The recorder has told the job its reason before: it listened first.
            self._ctx.delete_room()

    def _stop_waiting(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
