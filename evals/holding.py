"""Holds one learner's lesson with the real Emma, and says what came of it.

What Convex would answer comes from a stand-in on loopback; the records stay on disk, in a journal of
their own, and are read back from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from livekit.agents import AgentSession, APIError, ConversationItemAddedEvent, RunResult, llm
from livekit.agents.testing import fake_job_context

from emma_agent.ending import Ending
from emma_agent.lesson import LessonState
from emma_agent.listening import HELP_AFTER_S
from emma_agent.logs import configure_logging
from emma_agent.patience import CONNECTING
from emma_agent.summary_writer import summarise
from emma_agent.tutor import Tutor
from evals import lessons
from evals.scenario import Scenario, Turn
from evals.stand_ins import Listener, ScriptedModel, SilentVoice
from livekit.plugins.convex import AgentKey, SessionRecorder
from livekit.plugins.convex.inspection import journals, lines
from livekit.plugins.convex.testing import FakeConvex

__all__ = ["Held", "context_of", "hold"]

Session = AgentSession[LessonState]

# Of no importance: when the student's earlier lessons were.
_EARLIER_MS: Final = 1_760_000_000_000.0
_CONTEXT_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 5.0
_SUMMARY_TIMEOUT_S: Final = 60.0


@dataclass(slots=True)
class Held:
    """What came of a lesson.

    Attributes:
        records: the journal, as it would have gone to Convex, with its fields as Python has them.
        conversation: all that was said, called and handed over.
        told: what Emma was told, once for each of her answers; of a scripted model alone.
        troubles: what kept the lesson from being held as the file says, a sentence each.
    """

    scenario: Scenario
    scripted: bool
    records: list[dict[str, Any]] = field(default_factory=list)
    conversation: llm.ChatContext = field(default_factory=llm.ChatContext)
    told: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


async def hold(scenario: Scenario, model: llm.LLM[Any], *, turn_timeout_s: float) -> Held:
    """Hold the lesson.

    Args:
        model: a `ScriptedModel` follows the file; any other answers by itself.
        turn_timeout_s: for each turn; after it the lesson is broken off.
    """
    held = Held(scenario, scripted=isinstance(model, ScriptedModel))
    with _errors_of_ours(held), tempfile.TemporaryDirectory(prefix="emma-eval-") as directory:
        async with _in_session(scenario, model, Path(directory)) as (session, listener, nobody):
            talk = _Talk(session, listener, model, held, turn_timeout_s, nobody)
            try:
                await talk.begin()
                for number, turn in enumerate(scenario.turns):
                    await talk.take(number, turn)
                await talk.end()
            except TimeoutError:
                held.troubles.append(f"{talk.where}: not over after {turn_timeout_s:.0f} s")
            except APIError as error:
                held.troubles.append(f"{talk.where}: the model failed ({type(error).__name__})")
            held.conversation = session.history
        held.records = [*_read(Path(directory))]
    if isinstance(model, ScriptedModel):
        held.told = model.told
    return held


def context_of(scenario: Scenario) -> dict[str, Any]:
    """What `students:tutoringContext` answers for this learner."""
    student, likes, last = scenario.student, scenario.preferences, scenario.last_lesson
    context: dict[str, Any] = {
        "student": {
            "studentId": f"student_{scenario.name}",
            "name": student.name,
            "level": student.level,
            "nativeLanguage": student.native_language,
            "targetLanguage": student.target_language,
            "timeZone": "Europe/Madrid",
            "goals": [*student.goals],
            "interests": [*student.interests],
        },
        "preferences": {
            "speechRate": likes.speech_rate,
            "nativeLanguageHelp": likes.native_language_help,
            "correctionStyle": likes.correction_style,
        },
        "avatar": lessons.avatar(),
        "progress": {"lessonsCompleted": float(last is not None)},
        "wordsDue": [
            {"language": student.target_language, **due.model_dump(exclude_none=True)}
            for due in scenario.words_due
        ],
        "recurringErrors": [
            {
                "errorType": error.error_type,
                "count": error.times,
                "sessions": 1,
                "repaired": 0,
                "lastSeenAt": _EARLIER_MS,
                "examples": [{"said": error.said, "target": error.target}],
            }
            for error in scenario.recurring_errors
        ],
    }
    if scenario.lesson is not None:
        context["lesson"] = lessons.lesson(scenario.lesson)
    if last is not None:
        context["lastSession"] = {
            "sessionKey": "earlier",
            "startedAt": _EARLIER_MS,
            "endedAt": _EARLIER_MS,
            "messageCount": 20,
            "lessonTitle": last.title,
            **({"summary": last.summary} if last.summary else {}),
        }
    return context


@contextlib.contextmanager
def _errors_of_ours(held: Held) -> Iterator[None]:
    """What the tutor or the plugin logs as an error is a trouble of the lesson."""

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            held.troubles.append(f"an error was logged: {record.getMessage()}")

    configure_logging()
    handler = Kept(logging.ERROR)
    loggers = [logging.getLogger(name) for name in ("emma_agent", "livekit.plugins.convex")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextlib.asynccontextmanager
async def _in_session(
    scenario: Scenario, model: llm.LLM[Any], directory: Path
) -> AsyncIterator[tuple[Session, Listener, asyncio.Event]]:
    """A session of this learner that is recorded and has not begun, and when nobody speaks any more."""
    context = context_of(scenario)
    metadata = {"student_id": context["student"]["studentId"], "session_key": scenario.name}
    if scenario.lesson is not None:
        metadata["lesson_id"] = scenario.lesson
    async with FakeConvex() as convex:
        convex.on("students:tutoringContext", lambda _: context)
        convex.on("sessions:resumable", lambda _: None)
        plan = {
            name: context[name] for name in ("preferences", "lesson", "avatar") if name in context
        }
        await convex.set_value("sessions:plan", plan)
        lesson = LessonState.open(
            json.dumps(metadata), url=convex.url, key=AgentKey.generate(), outbox_dir=directory
        )
        await lesson.ready(_CONTEXT_TIMEOUT_S)
        listener = Listener()
        session = Session(
            userdata=lesson,
            llm=model,
            tts=SilentVoice(listener),
            vad=None,
            turn_handling={"turn_detection": "manual"},
            user_away_timeout=HELP_AFTER_S,
            conn_options=CONNECTING,
        )
        session.output.audio = listener
        with fake_job_context(job_metadata=json.dumps(metadata)) as ctx:
            lesson.recorder = SessionRecorder.attach(
                session,
                ctx=ctx,
                client=lesson.client,
                identity=lesson.identity,
                outbox_dir=directory,
                agent_name="emma",
                # So the journal stays, for us to read.
                deployment="",
            )
            ctx.delete_room = _no_room  # type: ignore[method-assign]
            nobody_speaks = asyncio.Event()

            async def until_then(_seconds: float) -> None:
                await nobody_speaks.wait()

            Ending(lesson, session, ctx, sleep=until_then)
            lesson.follow_plan()
            try:
                async with session:
                    yield session, listener, nobody_speaks
                writer = None if isinstance(model, ScriptedModel) else model
                await summarise(ctx, lesson, writer, timeout_s=_SUMMARY_TIMEOUT_S)
            finally:
                await lesson.recorder.aclose(_CLOSE_TIMEOUT_S)
                await lesson.aclose()


def _no_room(room_name: str | None = None) -> asyncio.Future[Any]:
    """What is to be deleted is not there."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def _read(directory: Path) -> Iterator[dict[str, Any]]:
    """The records of the one journal there."""
    [journal] = journals(directory)
    header = True
    for line in lines(journal.path):
        if line is not None and not header:
            yield {_snake_case(name): value for name, value in line.items()}
        header = False


def _snake_case(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)


class _Talk:
    """The turns of one session.

    Attributes:
        where: the turn that is on, for what is said of it.
    """

    def __init__(
        self,
        session: Session,
        listener: Listener,
        model: llm.LLM[Any],
        held: Held,
        timeout_s: float,
        nobody_speaks: asyncio.Event,
    ) -> None:
        self.where = "greeting"
        self._session = session
        self._listener = listener
        self._script = model if isinstance(model, ScriptedModel) else None
        self._held = held
        self._timeout_s = timeout_s
        self._nobody_speaks = nobody_speaks
        self._closed = asyncio.Event()
        session.on("close", lambda _: self._closed.set())

    async def begin(self) -> None:
        """The greeting."""
        if self._script is not None:
            self._script.greet(self._held.scenario.greeting)
        async with asyncio.timeout(self._timeout_s):
            await self._session.start(Tutor(self._session.userdata), capture_run=True)
        self._look_at_script()

    async def take(self, number: int, turn: Turn) -> None:
        """One turn, to the end of Emma's answer, or until she is cut off."""
        self.where = f"turn {number + 1}"
        if self._script is not None:
            self._script.begin(turn.emma)
        async with asyncio.timeout(self._timeout_s):
            if turn.says is None:
                await self._fall_silent()
            else:
                await self._say(turn.says, self._held.scenario.stops_after(number))
        self._look_at_script()

    async def end(self) -> None:
        """After the farewell the lesson ends by itself; before it, the learner leaves."""
        self.where = "end"
        self._nobody_speaks.set()
        if self._session.userdata.step == "farewell":
            async with asyncio.timeout(self._timeout_s):
                await self._closed.wait()

    async def _say(self, text: str, stops_after: int | None) -> None:
        # Whoever was away is back.
        self._session.reset_away_timer()
        self._listener.stop_after(stops_after)
        result: RunResult[None] = self._session.run(user_input=text)
        if stops_after is not None:
            await _first(self._listener.hears.wait(), result)
            await self._session.interrupt()
        await result
        self._listener.stop_after(None)

    async def _fall_silent(self) -> None:
        """LiveKit's own timer, without the wait."""
        helped = asyncio.Event()

        def added(event: ConversationItemAddedEvent) -> None:
            if isinstance(event.item, llm.ChatMessage) and event.item.role == "assistant":
                helped.set()

        self._session.on("conversation_item_added", added)
        self._session.options.user_away_timeout = 0.0
        try:
            self._session.reset_away_timer()
            await helped.wait()
            await self._session.wait_for_idle()
        finally:
            self._session.options.user_away_timeout = HELP_AFTER_S
            self._session.off("conversation_item_added", added)

    def _look_at_script(self) -> None:
        if self._script is None:
            return
        if self._script.left:
            self._held.troubles.append(
                f"{self.where}: Emma did not ask for {self._script.left} of the model's answers"
            )
        if self._script.unscripted:
            self._held.troubles.append(
                f"{self.where}: Emma asked the model {self._script.unscripted} times more than the "
                "file has answers"
            )


async def _first(*waits: Any) -> None:
    """Wait for whatever is first; what is left over is cancelled where it is ours."""
    tasks = [asyncio.ensure_future(_awaited(wait)) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _awaited(wait: Any) -> None:
    await wait
