"""SessionRecorder: what happens in an AgentSession, as records in the run's outbox."""

from __future__ import annotations

import functools
import logging
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from livekit.agents import AgentSession, JobContext
from livekit.agents.llm import AgentHandoff, ChatMessage
from livekit.agents.voice.events import (
    AgentStateChangedEvent,
    CloseEvent,
    CloseReason,
    ConversationItemAddedEvent,
    ErrorEvent,
    FunctionToolsExecutedEvent,
    SessionUsageUpdatedEvent,
    ToolExecutionUpdatedEvent,
    UserInputTranscribedEvent,
    UserStateChangedEvent,
)

from .auth import AgentToken
from .clock import RunClock
from .delivery import Delivery
from .encoding import RecordError
from .errors import ErasedError, OutboxError, OutboxFullError
from .identity import SessionIdentity
from .journal import FORMAT, Header, Journal, default_directory
from .limits import RECORD_VERSION
from .log import logger
from .outbox import Outbox
from .records import (
    ErrorRecord,
    HandoffRecord,
    MessageRecord,
    Record,
    RunEndedRecord,
    SessionEndedRecord,
    SessionResumedRecord,
    SessionStartedRecord,
    StateChangedRecord,
    TranscriptRecord,
    UsageRecord,
    error_type,
    kind_of,
)
from .redaction import Redact, Redaction
from .tool_calls import ToolCalls

if TYPE_CHECKING:
    from livekit.agents.metrics import AgentSessionUsage
    from livekit.agents.voice.events import EventTypes

    from .client import AsyncConvexClient

USAGE_EVERY_S = 15.0
# LiveKit kills a job whose shutdown callbacks run past 10 s
# (ServerOptions.shutdown_process_timeout). What is left stays on disk.
DRAIN_TIMEOUT_S = 7.0
# Where no disk can be had, what waits for Convex is held in memory.
_MAX_MEMORY_BYTES = 16 * 1024 * 1024

_E = TypeVar("_E")
# An AgentSession is recorded once: a second run would hold everything twice.
_ATTACHED: weakref.WeakSet[AgentSession[Any]] = weakref.WeakSet()


def _contained(
    listener: Callable[[SessionRecorder, _E], None],
) -> Callable[[SessionRecorder, _E], None]:
    """Let no exception out of a listener: a TypeError that leaves one silences the tutor."""

    @functools.wraps(listener)
    def contained(self: SessionRecorder, event: _E) -> None:
        try:
            listener(self, event)
        except Exception as error:  # noqa: BLE001
            self._not_recorded(listener.__name__.removeprefix("_on_"), error)

    return contained


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """What became of a run's records so far.

    Attributes:
        appended: records on disk when `append` returned.
        delivered: of these, confirmed by Convex.
        pending: of these, not confirmed yet.
        set_aside: refused by Convex for good; they are in the dead file.
        lost: could not be stored at all; each loss was logged.
        dropped: not kept, because the student was erased while the lesson was being held.
    """

    appended: int
    delivered: int
    pending: int
    set_aside: int
    lost: int
    dropped: int


class SessionRecorder:
    """Records an agent session in Convex while it happens.

        recorder = convex.SessionRecorder.attach(session, ctx=ctx, client=client)

    In the entrypoint, before `session.start()`: the first items are emitted before it returns.
    Messages, final transcripts, tool calls, handoffs, usage, errors and the end are on disk when
    LiveKit's event returns, and in Convex a moment later. Nothing here raises into the lesson, and
    nothing waits for the network but `flush` and `aclose`.

    Attributes:
        run_id: this attempt of this job; the name of its journal.
        identity: student, lesson and session key.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        client: AsyncConvexClient,
        identity: SessionIdentity,
        clock: RunClock,
        ctx: JobContext,
        end_job_on_close: bool,
        record_states: bool,
        redact: Redact | None,
    ) -> None:
        self.run_id = outbox.journal.header.run_id
        self.identity = identity
        self._outbox = outbox
        self._client = client
        self._delivery = Delivery(outbox, client)
        self._clock = clock
        self._ctx = ctx
        self._end_job_on_close = end_job_on_close
        self._record_states = record_states
        self._redaction = None if redact is None else Redaction(redact, self.run_id)
        self._tool_calls = ToolCalls(self.record, clock)
        self._session: AgentSession[Any] | None = None
        self._appended = 0
        self._not_stored = 0
        self._language: str | None = None
        self._usage: AgentSessionUsage | None = None
        self._usage_due = clock.now() + USAGE_EVERY_S
        self._ended = False
        self._end_reason: str | None = None

    @classmethod
    def attach(
        cls,
        session: AgentSession[Any],
        *,
        ctx: JobContext,
        client: AsyncConvexClient,
        identity: SessionIdentity | None = None,
        deployment: str | None = None,
        outbox_dir: Path | str | None = None,
        agent_name: str | None = None,
        end_job_on_close: bool = True,
        last_seen_at: float | None = None,
        record_states: bool = False,
        redact: Redact | None = None,
    ) -> SessionRecorder:
        """Record `session` from now until its job ends.

        Args:
            client: which deployment; its `AgentKey` signs for the student of this session. It may
                be closed at any time: the recorder holds a client of its own, on the same
                connections.
            identity: None reads the job's metadata; where that does not say who it is, a warning
                does, and the session is a guest's.
            deployment: None for the client's; "" if it is not known yet which deployment this
                session belongs to. Then `client` is not used, the records wait on disk, and
                recovery gives them to the deployment that its worker has.
            outbox_dir: a directory on a local disk; None for `CONVEX_OUTBOX_DIR`, else one under
                the user's state directory. If it cannot be used the lesson goes on, and is
                delivered from memory.
            end_job_on_close: shut the job down when the session closes. LiveKit leaves it running
                until the server ends the empty room, 17 to 20 s after the student has gone.
            last_seen_at: this job carries on the session of that key, of which this was the last, in
                Unix seconds. After more than the grace period (15 minutes) it becomes a session of
                its own. None: it begins the session, or joins it if another job has begun it.
            record_states: also record when the user and the agent begin to speak, listen, think.
            redact: sees each record of this run before it is stored, an app's own too, and returns
                what to store, such as `msgspec.structs.replace(record, text="…")`. It runs on the
                session's event loop: microseconds, no I/O. None for a record drops what it says
                and keeps that it was. A hook that raises, or returns another type, does the same,
                and is logged once (redaction.py).

        Raises:
            RuntimeError: the session has a recorder already, or no event loop is running.
            ValueError: `deployment` is another one than the client's.
        """
        if session in _ATTACHED:
            raise RuntimeError("this AgentSession is recorded already: attach once")
        if deployment is None:
            deployment = client.url
        elif deployment not in ("", client.url):
            raise ValueError("deployment is None for the client's own, or '' if it is not known")
        run_id = uuid.uuid4().hex
        identity = (identity or _identity(ctx)).named(run_id)
        clock = RunClock()
        header = Header(
            format=FORMAT,
            record_version=RECORD_VERSION,
            run_id=run_id,
            session_key=identity.session_key or run_id,
            subject=identity.subject,
            student_id=identity.student_id,
            deployment=deployment,
            started_at_ms=clock.started_at * 1000,
            steady_at_ms=clock.steady_at * 1000,
        )
        recorder = cls(
            outbox=_open_outbox(outbox_dir, header),
            client=speaking_for(client, header),
            identity=identity,
            clock=clock,
            ctx=ctx,
            end_job_on_close=end_job_on_close,
            record_states=record_states,
            redact=redact,
        )
        start: dict[str, Any] = {
            "created_at": clock.started_at,
            "session_key": header.session_key,
            "room": ctx.room.name or ctx.job.room.name,
            "job_id": ctx.job.id,
            "agent_name": ctx.job.agent_name if agent_name is None else agent_name,
            "lesson_id": identity.lesson_id,
            "participant_identity": identity.participant_identity,
        }
        recorder.record(
            SessionStartedRecord(**start)
            if last_seen_at is None
            else SessionResumedRecord(**start, last_seen_at=last_seen_at)
        )
        recorder._delivery.start()
        recorder._listen(session)
        ctx.add_shutdown_callback(recorder._on_job_shutdown)
        return recorder

    @property
    def stats(self) -> RecorderStats:
        """Counts so far, for a summary line."""
        sender = self._delivery.sender
        return RecorderStats(
            appended=self._appended,
            delivered=sender.delivered,
            pending=sender.pending,
            set_aside=sender.set_aside,
            lost=self._outbox.lost + self._not_stored,
            dropped=self._outbox.dropped,
        )

    def record(self, record: Record) -> int | None:
        """Store a record; return its `seq` once it is on disk, or None if it could not be stored.

        Costs microseconds and never raises: what is lost is counted in `stats.lost` and logged by
        kind and field. Call it on the session's event loop.
        """
        try:
            return self._append(record)
        except Exception as error:  # noqa: BLE001  no record is worth a lesson
            # A record that is none has no kind, and its type may be anything.
            self._not_recorded(kind_of(record) if isinstance(record, Record) else "?", error)
            return None

    def ends_because(self, reason: str) -> None:
        """Say why the app is about to end the session, in one name such as `lesson_over`.

        Of such an end LiveKit knows no more than `user_initiated`, which it also says when the
        network is gone. The session's end and the run's then have this reason. An end that comes
        for a reason of its own meanwhile, the user's leaving or an error, keeps that.
        """
        self._end_reason = reason

    async def flush(self, timeout_s: float) -> int:
        """Deliver what is pending, for at most `timeout_s` seconds; return what is left."""
        return await self._delivery.flush(timeout_s)

    async def aclose(self, timeout_s: float = DRAIN_TIMEOUT_S) -> int:
        """Deliver what is pending, for at most `timeout_s` seconds; return what is left.

        For `on_session_end`, where LiveKit allows most time. The run itself ends in the job's
        shutdown callback, which alone knows why the job ends; what is left then is on disk and is
        delivered by recovery. May be called twice.
        """
        if not self._ended and self._ctx.is_fake_job():
            # No shutdown callback will come (livekit.agents.testing).
            return await self._end_run(self._end_reason or "closed", timeout_s)
        return await self._delivery.flush(timeout_s)

    # What LiveKit says

    def _listen(self, session: AgentSession[Any]) -> None:
        _ATTACHED.add(session)
        self._session = session
        for event, listener in self._listeners():
            session.on(event, listener)

    def _stop_listening(self, session: AgentSession[Any]) -> None:
        for event, listener in self._listeners():
            session.off(event, listener)

    def _listeners(self) -> Iterator[tuple[EventTypes, Callable[[Any], None]]]:
        yield "conversation_item_added", self._on_item
        yield "user_input_transcribed", self._on_transcript
        yield "function_tools_executed", self._on_tools
        yield "tool_execution_updated", self._on_tool_update
        yield "session_usage_updated", self._on_usage
        yield "error", self._on_error
        yield "close", self._on_close
        if self._record_states:
            yield "user_state_changed", self._on_user_state
            yield "agent_state_changed", self._on_agent_state

    @_contained
    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        item = event.item
        if not isinstance(item, ChatMessage):
            if isinstance(item, AgentHandoff):
                created_at = self._clock.place(item.created_at)
                self._append(HandoffRecord.from_item(item, created_at=created_at))
            return
        if item.role not in ("user", "assistant"):
            return
        language, self._language = (
            (self._language, None) if item.role == "user" else (None, self._language)
        )
        created_at = self._clock.place(item.created_at)
        self._append(MessageRecord.from_item(item, created_at=created_at, language=language))

    @_contained
    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        if not event.is_final or not event.transcript:
            return
        self._language = event.language
        self._append(
            TranscriptRecord(
                created_at=self._clock.place(event.created_at),
                text=event.transcript,
                item_id=event.item_id,
                language=event.language or None,
                speaker_id=event.speaker_id,
            )
        )

    @_contained
    def _on_tools(self, event: FunctionToolsExecutedEvent) -> None:
        self._tool_calls.on_executed(event)

    @_contained
    def _on_tool_update(self, event: ToolExecutionUpdatedEvent) -> None:
        if self._session is not None:
            self._tool_calls.on_updated(event, self._session.history)

    @_contained
    def _on_user_state(self, event: UserStateChangedEvent) -> None:
        self._on_state("user", event)

    @_contained
    def _on_agent_state(self, event: AgentStateChangedEvent) -> None:
        self._on_state("agent", event)

    def _on_state(
        self, who: Literal["user", "agent"], event: UserStateChangedEvent | AgentStateChangedEvent
    ) -> None:
        created_at = self._clock.place(event.created_at)
        self._append(StateChangedRecord(created_at=created_at, who=who, state=event.new_state))

    @_contained
    def _on_usage(self, event: SessionUsageUpdatedEvent) -> None:
        self._usage = event.usage
        if self._clock.now() >= self._usage_due:
            self._append_usage()

    @_contained
    def _on_error(self, event: ErrorEvent) -> None:
        created_at = self._clock.place(event.created_at)
        self._append(ErrorRecord.from_event(event, created_at=created_at))

    @_contained
    def _on_close(self, event: CloseEvent) -> None:
        reason = event.reason.value
        if self._end_reason is not None and event.reason is CloseReason.USER_INITIATED:
            reason = self._end_reason
        try:
            self._tool_calls.on_close()
            self._append_usage()
            self._append(
                SessionEndedRecord(
                    created_at=self._clock.place(event.created_at),
                    reason=reason,
                    error_type=None if event.error is None else error_type(event.error),
                )
            )
        finally:
            if self._end_job_on_close:
                self._ctx.shutdown(reason)

    def _append_usage(self) -> None:
        usage, self._usage = self._usage, None
        self._usage_due = self._clock.now() + USAGE_EVERY_S
        if usage is not None and usage.model_usage:
            self.record(UsageRecord.from_usage(usage, created_at=self._clock.now()))

    def _append(self, record: Record) -> int:
        if self._redaction is not None:
            record = self._redaction.apply(record)
        seq = self._outbox.append(record)
        self._appended += 1
        return seq

    def _not_recorded(self, what: str, error: Exception) -> None:
        if isinstance(error, (OutboxFullError, ErasedError)):
            return  # counted and logged where it happened, once
        self._not_stored += 1
        if isinstance(error, OutboxError) and self._outbox.closed:
            logger.warning("recorder.after_the_end", extra={"run_id": self.run_id, "kind": what})
            return
        # Ours name the field and its type or what to do, never the value.
        ours = isinstance(error, (OutboxError, RecordError))
        detail = str(error) if ours else type(error).__name__
        logger.error(
            "recorder.not_recorded",
            extra={"run_id": self.run_id, "kind": what, "error": detail},
        )

    # The end

    async def _on_job_shutdown(self, reason: str) -> None:
        """LiveKit cancels the other callbacks if one raises, so this one does not."""
        try:
            await self._end_run(reason, DRAIN_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001
            logger.error(
                "recorder.close_failed",
                extra={"run_id": self.run_id, "error": type(error).__name__},
            )

    async def _end_run(self, reason: str, timeout_s: float) -> int:
        if self._ended:
            return self._delivery.pending
        self._ended = True
        started = time.monotonic()
        if self._session is not None:
            self._stop_listening(self._session)
        self._append_usage()
        self.record(RunEndedRecord(created_at=self._clock.now(), reason=reason))
        try:
            left = await self._delivery.aclose(timeout_s)
        finally:
            await self._client.aclose()
        stats = self.stats
        logger.log(
            logging.WARNING if left else logging.INFO,
            "recorder.closed",
            extra={
                "run_id": self.run_id,
                "session_key": self.identity.session_key,
                "appended": stats.appended,
                "delivered": stats.delivered,
                "pending": left,
                "set_aside": stats.set_aside,
                "lost": stats.lost,
                "dropped": stats.dropped,
                "duration_s": round(time.monotonic() - started, 3),
            },
        )
        return left


def speaking_for(client: AsyncConvexClient, header: Header) -> AsyncConvexClient:
    """A client on the same connections whose token names the student of a journal's header.

    A client without an `AgentKey` keeps the token it has.
    """
    token = client.token
    if isinstance(token, AgentToken) and (token.subject, token.student_id) != (
        header.subject,
        header.student_id,
    ):
        token = AgentToken(token.key, subject=header.subject, student_id=header.student_id)
    return client.with_token(token)


def _identity(ctx: JobContext) -> SessionIdentity:
    try:
        return SessionIdentity.from_metadata(ctx.job.metadata)
    except ValueError as error:
        logger.warning("recorder.guest_session", extra={"job_id": ctx.job.id, "error": str(error)})
        return SessionIdentity()


def _open_outbox(directory: Path | str | None, header: Header) -> Outbox:
    try:
        return Outbox.open(default_directory() if directory is None else Path(directory), header)
    except OutboxError as error:
        logger.error("outbox.disk_unavailable", extra={"error": str(error)})
        return Outbox(Journal.in_memory(header), max_bytes=_MAX_MEMORY_BYTES)
