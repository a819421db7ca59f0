"""The worker: what happens when LiveKit starts a lesson and when it ends. Wiring only.

Imported in the worker's main process and again in every job process, so nothing here
opens a connection, starts a thread or takes a lock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import structlog
from livekit.agents import (
    NOT_GIVEN,
    AgentServer,
    AgentSession,
    JobContext,
    JobExecutorType,
    JobProcess,
    JobRequest,
    room_io,
)
from livekit.agents.worker import ServerEnvOption

from emma_agent.avatar import keep_voice, show_talking_head
from emma_agent.closing import closing_line
from emma_agent.deployment import where_and_as_whom
from emma_agent.duties import Duties
from emma_agent.ending import Ending
from emma_agent.lesson import LessonState
from emma_agent.listening import HELP_AFTER_S, Tuning, endpointing_for, tuning_of, turn_handling
from emma_agent.logs import configure_logging, get_logger
from emma_agent.page import Page
from emma_agent.patience import CONNECTING
from emma_agent.presence import Presence
from emma_agent.settings import Settings, SettingsError, get_settings
from emma_agent.speech import Speech, build_speech
from emma_agent.summary_writer import summarise
from emma_agent.tutor import Tutor
from livekit.plugins.convex import SessionRecorder

__all__ = ["server"]

configure_logging()
log = get_logger(__name__)

# Voice lessons that one core carries while the models run elsewhere. LiveKit asks no
# more of a worker from a load of 0.7 on. CPU use, LiveKit's own measure, would leave a
# student alone in the room whenever the machine is busy with something else: a server
# does not dispatch that job again.
LESSONS_PER_CORE = 8

# After the session's start, until its plan is kept live.
PLAN_AFTER_S = 1.0

# LiveKit's hook may take 300 s; a student's last words are not worth keeping a worker
# that is told to leave. What is not delivered by then stays on disk for the next sweep.
DRAIN_TIMEOUT_S = 8.0
# Of these, so long a model may write the summary; what is pending is delivered meanwhile.
SUMMARY_TIMEOUT_S = 5.0


def load_of(worker: AgentServer) -> float:
    """The worker's load, 0 to 1: lessons held, of those it can hold."""
    return min(1.0, len(worker.active_jobs) / (LESSONS_PER_CORE * (os.cpu_count() or 1)))


def set_up_process(process: JobProcess) -> None:
    """Prepare a job process before it has a job: what is slow happens here."""
    settings = get_settings()
    process.userdata["speech"] = build_speech(settings)
    process.userdata["deployment"] = where_and_as_whom(settings)
    if process.executor_type is JobExecutorType.PROCESS:
        # A SIGTERM to the process group (systemd, `timeout`, a shell) would end lessons
        # without any hook. The main process drains them instead; see livekit/agents#7336.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def settings_or_exit() -> Settings:
    """The settings; if they cannot work, says so and ends this process with exit code 2.

    Emma's own command line has asked before it imports this module, LiveKit's has not.
    """
    try:
        return get_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


settings_at_start = settings_or_exit()
server = AgentServer(
    setup_fnc=set_up_process,
    # One is warm in `dev` too: the first takes several seconds to start, and a student waits.
    num_idle_processes=ServerEnvOption(dev_default=1, prod_default=min(4, os.cpu_count() or 1)),
    preload_modules=["emma_agent.warm_up"],
    load_fnc=load_of,
    log_level=settings_at_start.log_level
    or ServerEnvOption(dev_default="DEBUG", prod_default="INFO"),
)
duties = Duties()
server.on("worker_started", duties.begin)


async def accept(request: JobRequest) -> None:
    """Take the job as a participant of its own: the same lesson may be dispatched twice."""
    await request.accept(name="Emma", identity=f"emma-{request.id}")


async def on_session_end(ctx: JobContext) -> None:
    """Summarise the lesson, deliver what is left, and close with one line."""
    lesson, writer = (ctx.proc.userdata.pop(name, None) for name in ("lesson", "writer"))
    if not isinstance(lesson, LessonState):
        return
    _name_in_logs(ctx, lesson)
    # A student who comes back must not wait for what follows: where Emma is gone, another is called.
    # Nor must what follows wait for a network that has failed.
    leaving = asyncio.create_task(ctx.room.disconnect(), name="server.leave_room")
    undelivered, until = 0, time.monotonic() + DRAIN_TIMEOUT_S
    try:
        if lesson.recorder is not None:
            try:
                await summarise(ctx, lesson, writer, timeout_s=SUMMARY_TIMEOUT_S)
            finally:
                undelivered = await lesson.recorder.aclose(timeout_s=until - time.monotonic())
        log.info("session.closed", **closing_line(ctx, undelivered=undelivered))
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await lesson.aclose()


@server.rtc_session(
    agent_name=settings_at_start.agent_name, on_request=accept, on_session_end=on_session_end
)
async def entrypoint(ctx: JobContext) -> None:
    """Hold one lesson."""
    settings = get_settings()
    url, key = ctx.proc.userdata.pop("deployment", None) or where_and_as_whom(settings)
    lesson = LessonState.open(ctx.job.metadata, url=url, key=key, outbox_dir=settings.outbox_dir)
    ctx.proc.userdata["lesson"] = lesson
    _name_in_logs(ctx, lesson)
    await ctx.connect()
    await lesson.ready()
    # A session that goes on may have another key than was asked for.
    _name_in_logs(ctx, lesson)

    speech = ctx.proc.userdata.pop("speech", None) or build_speech(settings)
    ctx.proc.userdata["writer"] = speech.writer
    agent_session = new_agent_session(lesson, speech)
    lesson.recorder = SessionRecorder.attach(
        agent_session,
        ctx=ctx,
        client=lesson.client,
        identity=lesson.identity,
        outbox_dir=settings.outbox_dir,
        agent_name=settings.agent_name,
        # "" is a deployment not known yet: the journal goes to the one that is set later.
        deployment=None if settings.deployment_url else "",
        last_seen_at=lesson.last_seen_at,
    )
    Presence(ctx.room, agent_session)
    Ending(lesson, agent_session, ctx)
    lesson.own(Page(lesson, ctx.room).follow(), "lesson.page")
    if face := await show_talking_head(lesson.plan.avatar, agent_session, ctx.room):
        lesson.own(keep_voice(face, agent_session, ctx.room), "avatar.keep_voice")
    await agent_session.start(
        Tutor(lesson, chat_ctx=lesson.conversation, resumed=lesson.resumed is not None),
        room=ctx.room,
        room_options=room_io.RoomOptions(
            # Without it the first to join is taken for the student.
            participant_identity=lesson.identity.participant_identity or NOT_GIVEN
        ),
    )
    lesson.own(keep_in_tune(lesson, agent_session, speech), "lesson.keep_in_tune")
    lesson.own(follow_plan_later(lesson), "lesson.follow_plan_later")


def new_agent_session(lesson: LessonState, speech: Speech) -> AgentSession[LessonState]:
    """LiveKit's session of this lesson."""
    tuning = tuning_of(lesson.context, lesson.plan)
    speech.tune(tuning)
    return AgentSession(
        userdata=lesson,
        stt=speech.stt,
        llm=speech.llm,
        tts=speech.tts,
        turn_handling=turn_handling(tuning, speech.turn_detection),
        user_away_timeout=HELP_AFTER_S,
        conn_options=CONNECTING,
    )


async def follow_plan_later(lesson: LessonState) -> None:
    """Keep the plan live; the greeting, which knows it as it was just now, goes first."""
    await asyncio.sleep(PLAN_AFTER_S)
    lesson.follow_plan()


async def keep_in_tune(
    lesson: LessonState, agent_session: AgentSession[LessonState], speech: Speech
) -> None:
    """Fit hearing, voice and patience to what becomes known while the lesson runs."""
    tuned: Tuning | None = None
    while True:
        version, tuning = lesson.version, tuning_of(lesson.context, lesson.plan)
        if tuning != tuned:
            tuned = tuning
            speech.tune(tuning)
            agent_session.update_options(endpointing_opts=endpointing_for(tuning))
        await lesson.changed_since(version)


def _name_in_logs(ctx: JobContext, lesson: LessonState) -> None:
    # On LiveKit's own lines too; those of other tasks do not see our context variables.
    ctx.log_context_fields = {"session_key": lesson.session_key}
    structlog.contextvars.bind_contextvars(
        room=ctx.job.room.name, job_id=ctx.job.id, session_key=lesson.session_key
    )
