"""Presence: a student whose connection broke off, and who is back, finds the lesson going on.

LiveKit keeps the session where the student's network is gone, and links whoever comes back by the
same identity. While nobody hears her Emma does not speak; then she says where they were. A student
who leaves, or whose page is reloaded, ends the job instead, and the next one goes on (resume.py).
"""

from __future__ import annotations

from livekit import rtc
from livekit.agents import AgentSession

from emma_agent.lesson import LessonState
from emma_agent.logs import get_logger
from emma_agent.prompt import entry

__all__ = ["Presence"]

log = get_logger(__name__)


class Presence:
    """Follows who comes and goes; made before the session starts, so that it hears of it first."""

    def __init__(self, room: rtc.Room, agent_session: AgentSession[LessonState]) -> None:
        self._agent_session = agent_session
        self._gone: str | None = None
        room.on("participant_disconnected", self._on_gone)
        room.on("participant_connected", self._on_back)

    def _on_gone(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity != self._student():
            return
        self._gone = participant.identity
        try:
            self._agent_session.interrupt()
        except RuntimeError:
            return  # The session is closing.
        log.info("lesson.student_gone")

    def _on_back(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity != self._gone:
            return
        self._gone = None
        step = self._agent_session.userdata.step
        try:
            self._agent_session.generate_reply(instructions=entry(step, resumed=True))
        except RuntimeError:
            return
        log.info("lesson.student_back")

    def _student(self) -> str | None:
        """Who is linked; LiveKit forgets it after this."""
        try:
            linked = self._agent_session.room_io.linked_participant
        except RuntimeError:
            return None  # The session has not begun.
        return None if linked is None else linked.identity
