"""Tutor: Emma as a LiveKit agent, one for each part of the lesson.

The next part is entered by a hand-over: `next_step` answers LiveKit with the Tutor of that part, who
takes the conversation along and begins. The part is on the record, so that another worker goes on
there; so is the hand-over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from livekit.agents import (
    NOT_GIVEN,
    Agent,
    ErrorEvent,
    FlushSentinel,
    ModelSettings,
    RunContext,
    ToolError,
    UserStateChangedEvent,
    function_tool,
    llm,
    stt,
)

from emma_agent.lesson import LessonState, report_failure
from emma_agent.patience import answer_patiently, sentences_in
from emma_agent.prompt import after_silence, assemble, entry
from emma_agent.speech import until_written
from emma_agent.tools import TOOLS
from emma_agent.tools.described import described

__all__ = ["Tutor"]


class Tutor(Agent):
    """Emma, in the part of the lesson that is on. She begins it, and follows what changes.

    Attributes:
        step: the part that she leads through.
    """

    def __init__(
        self,
        lesson: LessonState,
        *,
        chat_ctx: llm.ChatContext | None = None,
        resumed: bool = False,
    ) -> None:
        """Emma in `lesson.step`.

        Args:
            chat_ctx: what was said before.
            resumed: the lesson was interrupted in this part, and goes on.
        """
        super().__init__(
            id=f"tutor_{lesson.step}",
            instructions=assemble(lesson.snapshot()),
            tools=[*TOOLS],
            chat_ctx=NOT_GIVEN if chat_ctx is None else chat_ctx,
        )
        self.step = lesson.step
        self._resumed = resumed
        self._lesson = lesson
        self._seen = lesson.version
        self._following: asyncio.Task[None] | None = None

    async def on_enter(self) -> None:
        """Begin this part of the lesson, or go on with it; the first begins with a greeting."""
        self._following = asyncio.create_task(self._follow_lesson(), name="tutor.follow_lesson")
        self._following.add_done_callback(report_failure)
        self.session.on("user_state_changed", self._on_user_state)
        self.session.on("error", self._on_error)
        self.session.generate_reply(instructions=entry(self.step, resumed=self._resumed))

    async def on_exit(self) -> None:
        """Stop following the lesson."""
        self.session.off("user_state_changed", self._on_user_state)
        self.session.off("error", self._on_error)
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self.session.current_agent is self:
            # The end, and no hand-over: what comes later is lost.
            await until_written(self.session)

    def _on_error(self, event: ErrorEvent) -> None:
        """Ask for what was said and could not be written down; the session counts the failure."""
        if isinstance(event.error, stt.STTError) and not event.error.recoverable:
            self.session.say(sentences_in(self._lesson.language).again)

    def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[llm.Tool], model_settings: ModelSettings
    ) -> AsyncGenerator[llm.ChatChunk | str | FlushSentinel, None]:
        """Answer; whatever becomes of the model, no turn ends in silence."""
        return answer_patiently(
            self, chat_ctx, described(tools), model_settings, language=self._lesson.language
        )

    @function_tool(flags=llm.ToolFlag.IGNORE_ON_ENTER)
    async def next_step(self, context: RunContext[LessonState]) -> Agent:
        """Go on to the next part of the lesson, once the part that is on is done."""
        lesson = context.userdata
        if lesson.step != self.step:
            # A model may call a tool several times in one answer.
            raise ToolError("You are on the way to the next part already.")
        following = lesson.next_step
        if following is None:
            raise ToolError("This is the last part of the lesson; say goodbye.")
        lesson.enter_step(following)
        return Tutor(lesson, chat_ctx=self.chat_ctx.copy(exclude_instructions=True))

    def _on_user_state(self, event: UserStateChangedEvent) -> None:
        """Help a student who has fallen silent: once, since LiveKit's next "away" is a later one.

        After the goodbye nobody has to say anything, and while the student's network is gone nobody
        would hear it.
        """
        if event.new_state == "away" and self.step != "farewell" and not self._alone():
            self.session.generate_reply(instructions=after_silence(), tool_choice="none")

    def _alone(self) -> bool:
        """Whether there is a room and the student is not in it."""
        try:
            return self.session.room_io.linked_participant is None
        except RuntimeError:
            return False  # in writing, without a room

    async def _follow_lesson(self) -> None:
        """Tell the model what has become known, from its next answer on."""
        while True:
            self._seen = await self._lesson.changed_since(self._seen)
            if self._lesson.step == self.step:
                await self.update_instructions(assemble(self._lesson.snapshot()))
