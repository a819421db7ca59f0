"""LessonState: what lies in `RunContext.userdata` while a lesson is held.

Tools and prompts read it and never wait. What it knows of the student is fetched while
the job connects (`students:tutoringContext`), and so is what an earlier run of the same session
left (`sessions:resumable`); what a teacher may change meanwhile is kept live by one subscription
(`sessions:plan`). Without an answer the lesson goes on with what Convex last knew of the student, as
it was kept here, or else as a guest's; marked degraded, and completed when the answer comes.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from livekit.agents import llm

from emma_agent import known_context
from emma_agent.context import TutoringContext, parse_context, parse_plan
from emma_agent.known_context import KnownContext
from emma_agent.logs import get_logger
from emma_agent.look_back import LookBack
from emma_agent.resume import LessonSoFar, conversation, goes_on
from emma_agent.teaching import Teaching
from emma_agent.wire import ContextError
from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    ConvexClientError,
    FunctionError,
    SessionIdentity,
)
from livekit.plugins.convex.journal import default_directory

__all__ = ["PREFETCH_TIMEOUT_S", "LessonState", "identify", "report_failure"]

log = get_logger(__name__)

# How long a student who has joined waits for their own context before Emma greets them
# without it. The query itself goes on.
PREFETCH_TIMEOUT_S = 2.0
_QUERY_TIMEOUT_S: Final = 10.0
# A disk answers in milliseconds, or not at all.
_RECALL_TIMEOUT_S: Final = 0.5
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 30.0

Sleep = Callable[[float], Awaitable[None]]


def identify(metadata: str) -> SessionIdentity:
    """Who this job is for, as its dispatcher said; one log line and a guest if unreadable.

    Args:
        metadata: JSON with `student_id`, `lesson_id`, `session_key` and
            `participant_identity`, each optional. It travels inside a token that only
            the project's own backend can sign.
    """
    # Known from here on, so that a guest's token can name the session.
    session_key = f"session_{uuid.uuid4().hex}"
    try:
        return SessionIdentity.from_metadata(metadata).named(session_key)
    except ValueError as error:
        log.warning(
            "lesson.metadata_unusable",
            error=str(error),
            remedy="the lesson goes on as a guest's; dispatch the job with metadata such as "
            '{"student_id": "…", "lesson_id": "…"}',
        )
        return SessionIdentity(session_key=session_key)


class LessonState(Teaching):
    """Everything Emma knows in one lesson: `Teaching`, fetched from Convex and kept live.

    Attributes:
        identity: who the lesson is for.
        client: for tools that need a real call, with a deadline.
        degraded: there is a student, but Convex has not answered yet.
        resumed: what earlier runs left, if this one goes on with it.
        last_seen_at: when the session was last heard of, in Unix seconds; None: this run begins it.
    """

    def __init__(
        self,
        identity: SessionIdentity,
        client: AsyncConvexClient,
        *,
        named: bool = True,
        fresh: bool = False,
        outbox_dir: Path | str | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """A lesson of which nothing is known yet.

        Args:
            named: the dispatcher named the session, and did not leave that to this job.
            fresh: begin anew, even if the session was interrupted a moment ago.
            outbox_dir: where earlier runs on this host left their journals, and what was known
                of the student; None for the recorder's default.
        """
        super().__init__()
        self.identity = identity
        self.client = client
        self.degraded = False
        self.resumed: LessonSoFar | None = None
        self.last_seen_at: float | None = None
        self._asked_key = identity.session_key if named else None
        self._fresh = fresh
        self._directory = default_directory() if outbox_dir is None else Path(outbox_dir)
        self._past = LookBack(
            client, identity, asked_key=self._asked_key, directory=self._directory
        )
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []
        self._first_answer = asyncio.Event()
        self._asked_at = 0.0

    @classmethod
    def open(
        cls, metadata: str, *, url: str, key: AgentKey, outbox_dir: Path | str | None = None
    ) -> LessonState:
        """Identify the student and start fetching what is known of them; do not wait.

        Args:
            metadata: as for `identify`; with `"fresh": true` nothing is resumed.
        """
        identity = identify(metadata)
        token = AgentToken(key, subject=identity.subject, student_id=identity.student_id)
        said = _said(metadata)
        lesson = cls(
            identity,
            AsyncConvexClient(url=url, token=token),
            named=said.get("session_key") == identity.session_key,
            fresh=said.get("fresh") is True,
            outbox_dir=outbox_dir,
        )
        lesson.prefetch()
        return lesson

    @property
    def session_key(self) -> str:
        """Our own name for this session."""
        return str(self.identity.session_key)

    @property
    def conversation(self) -> llm.ChatContext | None:
        """What was said before this run, as the model's own memory; None: nothing was."""
        return None if self.resumed is None else conversation(self.resumed)

    def prefetch(self) -> None:
        """Start `sessions:resumable` and `students:tutoringContext`.

        Of a guest nothing is known, but the session that their key names.
        """
        self._asked_at = asyncio.get_running_loop().time()
        guest = self.identity.student_id is None
        if guest and self._asked_key is None:
            self._past.skip()
        else:
            self.own(self._past.find(), "lesson.look_back")
        if guest:
            self._first_answer.set()
        else:
            self.own(self._load_context(), "lesson.load_context")

    async def ready(self, timeout_s: float | None = None) -> None:
        """Wait for the first answers of Convex, good or bad; then it is settled what is resumed.

        Where it has not told of the student, what it last told of them holds until it does.

        Args:
            timeout_s: seconds since it was asked, not since this call: connecting to the
                room takes its time beside it. None: `PREFETCH_TIMEOUT_S`.
        """
        timeout_s = PREFETCH_TIMEOUT_S if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout_at(self._asked_at + timeout_s):
                await self._past.ended.wait()
                await self._first_answer.wait()
        except TimeoutError:
            self.degraded = not self._first_answer.is_set()
            log.warning(
                "lesson.context_late",
                function="students:tutoringContext" if self.degraded else "sessions:resumable",
                wait_s=timeout_s,
                remedy="the lesson starts with what is known here, and is completed when Convex "
                "answers",
            )
        self._go_on()
        if self.degraded:
            await self._use_last_known()

    def learn(self, context: TutoringContext, *, recalled: bool = False) -> None:
        """Take over what Convex knows of the student; what happened meanwhile stays."""
        last = context.last_session
        if last is not None and last.session_key == self.session_key:
            # It is this one, of which nobody knew when Convex was asked that it would go on.
            context = replace(context, last_session=None)
        super().learn(context, recalled=recalled)

    def follow_plan(self) -> None:
        """Keep `plan` live from now on."""
        if self.identity.student_id is not None:
            self.own(self._follow_plan(), "lesson.follow_plan")

    async def aclose(self) -> None:
        """Stop following and close the client; safe to call twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.aclose()

    def _go_on(self) -> None:
        found = self._past.found
        if found is None:
            return
        resuming = goes_on(found, fresh=self._fresh, now=time.time())
        if resuming or self._asked_key is not None:
            self.last_seen_at = found.last_seen_at
            if self.identity.student_id is not None:
                # A guest is nobody but their key.
                self.identity = replace(self.identity, session_key=found.session_key)
        if resuming:
            self.resumed = found
            self.resume_at(found)
            log.info(
                "lesson.resumed",
                step=self.step,
                messages=len(found.messages),
                away_s=round(time.time() - found.last_seen_at, 1),
            )
        if self.context is not None:
            self.learn(self.context)

    async def _use_last_known(self) -> None:
        """Go on with what Convex last knew of the student, as it was kept here."""
        try:
            async with asyncio.timeout(_RECALL_TIMEOUT_S):
                known = await asyncio.to_thread(
                    known_context.recall,
                    self._directory,
                    student_id=str(self.identity.student_id),
                    deployment=self.client.url,
                )
        except (OSError, TimeoutError) as error:
            log.warning(
                "lesson.context_unreadable",
                error=type(error).__name__,
                remedy="see that this user may read EMMA_OUTBOX_DIR (doctor)",
            )
            return
        # The answer may have come meanwhile.
        if known is None or not self.degraded:
            return
        try:
            context = known.for_job(lesson_id=self.identity.lesson_id, session_key=self.session_key)
        except ContextError:
            return  # of functions that this worker does not know
        self.learn(context, recalled=True)
        log.info(
            "lesson.context_recalled",
            age_s=round(time.time() - known.kept_at, 1),
            same_lesson=known.lesson_id == self.identity.lesson_id,
        )

    async def _keep_answer(self, answer: object) -> None:
        """Keep what Convex knows of the student for a lesson in which it does not answer."""
        identity = self.identity
        known = KnownContext(
            deployment=self.client.url,
            student_id=str(identity.student_id),
            lesson_id=identity.lesson_id,
            session_key=self.session_key,
            kept_at=time.time(),
            context=answer,
        )
        try:
            await asyncio.to_thread(known_context.keep, self._directory, known)
        except (OSError, ValueError) as error:
            log.warning(
                "lesson.context_not_kept",
                error=type(error).__name__,
                remedy="nothing is wrong with this lesson; without Convex the next one is a guest's. "
                "See that there is room in EMMA_OUTBOX_DIR (doctor)",
            )

    async def _forget(self) -> None:
        """Leave nothing here of a student whom Convex does not know."""
        if self.recalled:
            self.unlearn()
        try:
            await asyncio.to_thread(
                known_context.forget, self._directory, student_id=str(self.identity.student_id)
            )
        except OSError as error:
            log.warning(
                "lesson.context_not_removed",
                error=type(error).__name__,
                remedy="see that this user may write EMMA_OUTBOX_DIR (doctor); it is not used, and "
                "the worker removes it within a week",
            )

    async def _load_context(self) -> None:
        await self._past.delivered.wait()
        wait_s = _FIRST_RETRY_S
        while not await self._try_load_context(retry_in_s=wait_s):
            self._first_answer.set()
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_RETRY_S)
        self._first_answer.set()

    async def _try_load_context(self, *, retry_in_s: float) -> bool:
        """Whether the question is answered for good."""
        try:
            answer = await self.client.query(
                "students:tutoringContext",
                self._lesson_arg() | {"sessionKey": self.session_key},
                timeout_s=_QUERY_TIMEOUT_S,
            )
            context = parse_context(answer)
        except (ConvexClientError, ContextError) as error:
            unknown = isinstance(error, FunctionError) and error.code == "student_unknown"
            if unknown:
                self.degraded = False
                log.warning(
                    "lesson.student_unknown",
                    function="students:tutoringContext",
                    error="student_unknown",
                    remedy="the lesson goes on as a guest's; correct student_id where the job "
                    "is dispatched, or CONVEX_URL if it names another deployment",
                )
                await self._forget()
            elif not self.degraded or not self._first_answer.is_set():
                self.degraded = True
                log.warning(
                    "lesson.context_failed",
                    function="students:tutoringContext",
                    error=type(error).__name__,
                    reason=str(error),
                    wait_s=retry_in_s,
                    remedy="the lesson goes on with what was last known of the student, else as a "
                    "guest's, and is completed when Convex answers",
                )
            return unknown
        was_late, self.degraded = self.degraded, False
        self.learn(context)
        self.own(self._keep_answer(answer), "lesson.keep_context")
        if was_late:
            log.info("lesson.context_refreshed", function="students:tutoringContext")
        return True

    async def _follow_plan(self) -> None:
        wait_s = _FIRST_RETRY_S
        while True:
            outcome = await self._follow_plan_once()
            if outcome == "over":
                return
            wait_s = _FIRST_RETRY_S if outcome == "heard" else min(2 * wait_s, _LAST_RETRY_S)
            await self._sleep(wait_s)

    async def _follow_plan_once(self) -> Literal["heard", "silent", "over"]:
        heard: Literal["heard", "silent"] = "silent"
        try:
            async with self.client.subscribe("sessions:plan", self._lesson_arg()) as updates:
                async for value in updates:
                    heard = "heard"
                    if self.change_plan(parse_plan(value)):
                        log.info("lesson.plan_changed", function="sessions:plan")
        except (ConvexClientError, ContextError) as error:
            if isinstance(error, FunctionError) and error.code == "student_unknown":
                await self._forget()
                return "over"
            log.warning(
                "lesson.plan_unfollowed",
                function="sessions:plan",
                error=type(error).__name__,
                reason=str(error),
                remedy="the plan stays as it was last known; trying again",
            )
        return heard

    def _lesson_arg(self) -> dict[str, str]:
        lesson_id = self.identity.lesson_id
        return {} if lesson_id is None else {"lessonId": lesson_id}

    def own(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run `work` beside the lesson, until it ends or `aclose` is called."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(report_failure)
        self._tasks.append(task)


def report_failure(task: asyncio.Task[None]) -> None:
    """Log what ended a task that nobody awaits; a done callback."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("lesson.task_failed", task=task.get_name(), error=type(error).__name__)


def _said(metadata: str) -> dict[str, object]:
    """What a dispatcher said; nothing if it cannot be read, which `identify` has said."""
    try:
        said = json.loads(metadata)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
