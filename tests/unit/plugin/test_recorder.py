"""What an AgentSession's events become, and that nothing here ever reaches the lesson."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, JobContext, ToolError, function_tool
from livekit.agents.llm import AgentHandoff, ChatMessage, FunctionCall, FunctionCallOutput, LLMError
from livekit.agents.metrics import AgentSessionUsage, LLMModelUsage
from livekit.agents.testing import fake_job_context
from livekit.agents.voice.events import (
    CloseEvent,
    CloseReason,
    ConversationItemAddedEvent,
    ErrorEvent,
    FunctionToolsExecutedEvent,
    SessionUsageUpdatedEvent,
    UserInputTranscribedEvent,
)

from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    Record,
    SessionIdentity,
    SessionRecorder,
)
from livekit.plugins.convex.testing import FakeConvex
from tests.support.scripted_llm import ScriptedLLM, call

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex

METADATA = '{"student_id": "k57", "lesson_id": "l1", "session_key": "s1"}'


class SlideShown(Record, tag="slideShown", frozen=True, kw_only=True):
    slide: int


@pytest.fixture
async def server(convex: FakeConvex, folding: FoldingConvex) -> FakeConvex:
    def record(args: dict[str, Any]) -> Any:
        return {"seq": folding._fold(int(args["version"]), args["runId"], args["records"])}

    convex.on("sessions:record", record)
    convex.on("sessions:recordVersions", lambda _: [1])
    return convex


@pytest.fixture
async def client(server: FakeConvex) -> AsyncIterator[AsyncConvexClient]:
    token = AgentToken(AgentKey.generate(), subject="worker")
    async with AsyncConvexClient(server.url, token=token) as client:
        yield client


@pytest.fixture
async def room() -> rtc.Room:
    return rtc.Room()


@pytest.fixture
def ctx(room: rtc.Room) -> Iterator[JobContext]:
    with fake_job_context(room=room, job_id="AJ_1", job_metadata=METADATA) as ctx:
        yield ctx


@pytest.fixture
async def session() -> AsyncIterator[AgentSession[Any]]:
    yield AgentSession(vad=None, turn_handling={"turn_detection": "manual"})


@pytest.fixture
def attach(
    ctx: JobContext, client: AsyncConvexClient, session: AgentSession[Any], tmp_path: Path
) -> Callable[..., SessionRecorder]:
    def attach(**options: Any) -> SessionRecorder:
        options = {"ctx": ctx, "client": client, "outbox_dir": tmp_path / "outbox", **options}
        return SessionRecorder.attach(session, **options)

    return attach


@pytest.fixture
def shutdowns(ctx: JobContext, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reasons `ctx.shutdown` was called with."""
    reasons: list[str] = []
    monkeypatch.setattr(ctx, "shutdown", reasons.append)
    return reasons


def said(role: str, text: str, **fields: Any) -> ConversationItemAddedEvent:
    return ConversationItemAddedEvent(item=ChatMessage(role=role, content=[text], **fields))


def kinds(folding: FoldingConvex) -> list[str]:
    return [record["kind"] for record in folding.folded]


async def test_one_line_records_a_whole_session(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    server: FakeConvex,
    tmp_path: Path,
) -> None:
    recorder = attach()
    session.emit(
        "user_input_transcribed",
        UserInputTranscribedEvent(transcript="I goed", is_final=False, language="en"),
    )
    session.emit(
        "user_input_transcribed",
        UserInputTranscribedEvent(transcript="I goed home", is_final=True, language="en"),
    )
    session.emit("conversation_item_added", said("user", "I goed home", id="item_1"))
    asked = FunctionCall(call_id="c1", name="look_up", arguments='{"word":"go"}')
    output = FunctionCallOutput(call_id="c1", name="look_up", output="went", is_error=False)
    session.emit(
        "function_tools_executed",
        FunctionToolsExecutedEvent(function_calls=[asked], function_call_outputs=[output]),
    )
    session.emit(
        "conversation_item_added",
        said("assistant", "You went home?", id="item_2", interrupted=True),
    )
    usage = AgentSessionUsage(model_usage=[LLMModelUsage(provider="p", model="m", input_tokens=1)])
    session.emit("session_usage_updated", SessionUsageUpdatedEvent(usage=usage))
    session.emit("close", CloseEvent(reason=CloseReason.PARTICIPANT_DISCONNECTED))

    assert await recorder.aclose(timeout_s=10.0) == 0

    assert kinds(folding) == [
        "sessionStarted",
        "transcript",
        "message",
        "toolCall",
        "message",
        "usage",
        "sessionEnded",
        "runEnded",
    ]
    started, transcript, user, tool, assistant, _, ended, _ = folding.folded
    assert {key: started[key] for key in ("sessionKey", "jobId", "lessonId", "room")} == {
        "sessionKey": "s1",
        "jobId": "AJ_1",
        "lessonId": "l1",
        "room": "fake-room",
    }
    assert (transcript["text"], transcript["language"]) == ("I goed home", "en")
    assert (user["itemId"], user["role"], user["language"]) == ("item_1", "user", "en")
    assert (tool["callId"], tool["output"], tool["isError"]) == ("c1", "went", False)
    assert (assistant["interrupted"], "language" in assistant) == (True, False)
    assert ended["reason"] == "participant_disconnected"
    assert list((tmp_path / "outbox").iterdir()) == []
    assert recorder.stats.delivered == recorder.stats.appended == 8


async def test_a_lesson_that_really_runs_is_recorded_as_livekit_remembers_it(
    ctx: JobContext, client: AsyncConvexClient, folding: FoldingConvex, tmp_path: Path
) -> None:
    """A real AgentSession with a scripted model, a tool, an error and a greeting."""

    class Tutor(Agent):
        def __init__(self) -> None:
            super().__init__(instructions="Be kind.")

        async def on_enter(self) -> None:
            self.session.generate_reply()

        @function_tool
        async def look_up(self, word: str) -> str:
            """Look a word up."""
            return f"{word} is a word"

        @function_tool
        async def fail(self) -> str:
            """Fail."""
            raise ToolError("not today")

    model = ScriptedLLM(
        "Hello!",
        call("look_up", '{"word": "went"}'),
        "It is a word.",
        call("fail"),
        "Another time.",
    )
    async with AgentSession[None](
        llm=model, vad=None, turn_handling={"turn_detection": "manual"}
    ) as session:
        recorder = SessionRecorder.attach(session, ctx=ctx, client=client, outbox_dir=tmp_path)
        await session.start(Tutor(), capture_run=True)
        await session.run(user_input="What is went?")
        await session.run(user_input="Do the other.")
        history = session.history.items
    await recorder.aclose(timeout_s=10.0)

    said = [(item.id, item.role, item.text_content) for item in history if item.type == "message"]
    recorded = [r for r in folding.folded if r["kind"] == "message"]
    assert [(r["itemId"], r["role"], r["text"]) for r in recorded] == said
    assert len(said) == 5
    by_time = sorted(recorded, key=lambda r: (r["createdAt"], r["seq"]))
    assert [r["itemId"] for r in by_time] == [item_id for item_id, _, _ in said]
    outputs = [
        (item.call_id, item.output, item.is_error)
        for item in history
        if item.type == "function_call_output"
    ]
    tools = [r for r in folding.folded if r["kind"] == "toolCall"]
    assert [(r["callId"], r["output"], r["isError"]) for r in tools] == outputs
    assert [output for _, output, _ in outputs] == ["went is a word", "not today"]
    assert [r["kind"] for r in folding.folded][-2:] == ["sessionEnded", "runEnded"]
    assert recorder.stats.lost == 0


async def test_the_run_is_bound_to_the_student_of_the_metadata(
    attach: Callable[..., SessionRecorder], server: FakeConvex
) -> None:
    import jwt

    recorder = attach()
    await recorder.aclose()

    token = next(call.token for call in server.calls if call.function == "sessions:record")
    assert token is not None
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["student_id"]) == ("student:k57", "k57")


@pytest.mark.parametrize("metadata", ["", "not json", '{"student_id": 7}'])
async def test_metadata_that_cannot_be_read_makes_a_guest_with_one_warning(
    session: AgentSession[Any],
    client: AsyncConvexClient,
    folding: FoldingConvex,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    metadata: str,
) -> None:
    with fake_job_context(job_metadata=metadata) as ctx:
        recorder = SessionRecorder.attach(session, ctx=ctx, client=client, outbox_dir=tmp_path)
        await recorder.aclose()

    warnings = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == ["recorder.guest_session"]
    assert recorder.identity.subject == f"guest:{recorder.run_id}"
    assert folding.folded[0]["sessionKey"] == recorder.run_id


async def test_an_identity_that_is_given_counts(attach: Callable[..., SessionRecorder]) -> None:
    recorder = attach(identity=SessionIdentity(student_id="other", session_key="s9"))
    await recorder.aclose()

    assert recorder.identity == SessionIdentity(student_id="other", session_key="s9")


async def test_handoffs_and_system_messages_are_not_messages(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], folding: FoldingConvex
) -> None:
    recorder = attach()
    handoff = AgentHandoff(old_agent_id=None, new_agent_id="tutor")
    session.emit("conversation_item_added", ConversationItemAddedEvent(item=handoff))
    session.emit("conversation_item_added", said("system", "be kind"))
    session.emit("user_input_transcribed", UserInputTranscribedEvent(transcript="", is_final=True))
    await recorder.aclose()

    assert kinds(folding) == ["sessionStarted", "runEnded"]
    assert recorder.stats.lost == 0


async def test_an_error_is_kept_by_its_types_alone(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], folding: FoldingConvex
) -> None:
    recorder = attach()
    error = LLMError(
        timestamp=1.0, label="llm", error=ConnectionError("private words"), recoverable=True
    )
    session.emit("error", ErrorEvent(error=error, source=object()))
    session.emit("close", CloseEvent(reason=CloseReason.ERROR, error=error))
    await recorder.aclose()

    kept, ended = folding.folded[1], folding.folded[2]
    assert (kept["source"], kept["errorType"], kept["recoverable"]) == (
        "object",
        "ConnectionError",
        True,
    )
    assert (ended["reason"], ended["errorType"]) == ("error", "ConnectionError")
    assert "private" not in str(folding.folded)


async def test_usage_is_kept_every_15_s_and_at_the_end_the_last_one_counting(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = attach()
    now = recorder._clock.now()
    elapsed = 0.0
    monkeypatch.setattr(recorder._clock, "now", lambda: now + elapsed)
    for elapsed in (1.0, 5.0, 15.1, 16.0, 20.0):
        model = LLMModelUsage(provider="p", model="m", input_tokens=int(elapsed))
        usage = AgentSessionUsage(model_usage=[model])
        session.emit("session_usage_updated", SessionUsageUpdatedEvent(usage=usage))
    await recorder.aclose()

    snapshots = [r["models"][0]["inputTokens"] for r in folding.folded if r["kind"] == "usage"]
    assert snapshots == [15, 20]


async def test_no_exception_leaves_a_listener(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LiveKit re-raises a TypeError into the pipeline, and the tutor falls silent."""
    recorder = attach()
    heard: list[object] = []
    session.on("conversation_item_added", heard.append)

    def fail(record: Record) -> int:
        raise TypeError("private words")

    monkeypatch.setattr(recorder._outbox, "append", fail)
    session.emit("conversation_item_added", said("user", "private words"))
    session.emit("close", CloseEvent(reason=CloseReason.USER_INITIATED))

    assert len(heard) == 1
    assert recorder.stats.lost == 2
    assert {r.message for r in caplog.records} == {"recorder.not_recorded"}
    assert "private" not in str([r.__dict__ for r in caplog.records])
    monkeypatch.undo()
    await recorder.aclose()


async def test_an_apps_record_that_cannot_be_stored_is_no_exception_either(
    attach: Callable[..., SessionRecorder], folding: FoldingConvex, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = attach()

    assert recorder.record(SlideShown(created_at=1_795_474_184.0, slide=3)) == 1
    assert recorder.record(SlideShown(created_at=1_795_474_184.0, slide="x")) is None  # type: ignore[arg-type]

    await recorder.aclose()
    assert kinds(folding) == ["sessionStarted", "slideShown", "runEnded"]
    assert recorder.stats.lost == 1
    assert caplog.records[0].error == "slideShown.slide is str, not a number"  # type: ignore[attr-defined]


async def test_a_closed_session_ends_its_job(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], shutdowns: list[str]
) -> None:
    """Else the server ends the room 17 to 20 s after the student has left."""
    recorder = attach()
    session.emit("close", CloseEvent(reason=CloseReason.PARTICIPANT_DISCONNECTED))

    assert shutdowns == ["participant_disconnected"]
    await recorder.aclose()


async def test_a_closed_session_leaves_its_job_alone_if_told_to(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], shutdowns: list[str]
) -> None:
    recorder = attach(end_job_on_close=False)
    session.emit("close", CloseEvent(reason=CloseReason.PARTICIPANT_DISCONNECTED))

    assert shutdowns == []
    await recorder.aclose()


async def test_the_shutdown_callback_keeps_the_reason_and_delivers_the_rest(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    ctx: JobContext,
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As in a real job: `aclose` in on_session_end first, the callbacks last."""
    monkeypatch.setattr(ctx, "is_fake_job", lambda: False)
    recorder = attach()
    session.emit("conversation_item_added", said("user", "Bye"))
    assert await recorder.aclose(timeout_s=10.0) == 0
    assert kinds(folding) == ["sessionStarted", "message"]

    for callback in ctx._shutdown_callbacks:
        await callback("room disconnected")

    assert kinds(folding) == ["sessionStarted", "message", "runEnded"]
    assert folding.folded[-1]["reason"] == "room disconnected"
    assert list((tmp_path / "outbox").iterdir()) == []
    assert await recorder.aclose(timeout_s=10.0) == 0


async def test_the_shutdown_callback_never_raises(
    attach: Callable[..., SessionRecorder], ctx: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does has LiveKit cancel all the others."""
    recorder = attach()
    aclose = recorder._delivery.aclose

    async def fail(timeout_s: float) -> int:
        await aclose(0.0)
        raise RuntimeError("broken")

    monkeypatch.setattr(recorder._delivery, "aclose", fail)
    for callback in ctx._shutdown_callbacks:
        await callback("done")


async def test_the_client_may_be_closed_before_the_recorder(
    attach: Callable[..., SessionRecorder], client: AsyncConvexClient, folding: FoldingConvex
) -> None:
    recorder = attach()
    await client.aclose()

    assert await recorder.aclose(timeout_s=10.0) == 0
    assert kinds(folding) == ["sessionStarted", "runEnded"]


async def test_a_session_is_recorded_once(attach: Callable[..., SessionRecorder]) -> None:
    recorder = attach()
    with pytest.raises(RuntimeError, match="attach once"):
        attach()
    await recorder.aclose()


async def test_without_a_disk_the_lesson_is_kept_in_memory_and_delivered(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    recorder = attach(outbox_dir=tmp_path / "file" / "outbox")
    session.emit("conversation_item_added", said("user", "Hello"))

    assert await recorder.aclose(timeout_s=10.0) == 0
    assert kinds(folding) == ["sessionStarted", "message", "runEnded"]
    assert "outbox.disk_unavailable" in [record.message for record in caplog.records]


async def test_convex_away_all_lesson_leaves_everything_on_disk(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    server: FakeConvex,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    await server.stop()
    recorder = attach()
    for n in range(5):
        session.emit("conversation_item_added", said("user", f"Hello {n}"))
        await asyncio.sleep(0)
    caplog.set_level(logging.INFO)

    assert await recorder.aclose(timeout_s=0.05) == 7

    assert len(list((tmp_path / "outbox").glob("*.journal"))) == 1
    closed = next(r for r in caplog.records if r.message == "recorder.closed")
    assert (closed.pending, closed.appended, closed.lost) == (7, 7, 0)  # type: ignore[attr-defined]


async def test_a_wall_clock_that_jumps_moves_no_message(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readers sort by createdAt; LiveKit stamps with the wall clock."""
    recorder = attach()
    clock = recorder._clock
    wall, elapsed = clock.started_at, 0.0
    monkeypatch.setattr(clock, "_steady", lambda: clock.steady_at + elapsed)
    monkeypatch.setattr(clock, "_wall", lambda: wall)

    for elapsed, jump in ((1.0, 0.0), (2.0, -3600.0), (3.0, -3600.0), (4.0, 86400.0)):
        wall = clock.started_at + elapsed + jump
        started = wall - 0.5
        event = said("user", "x", created_at=wall - 0.5, metrics={"started_speaking_at": started})
        session.emit("conversation_item_added", event)
    # Stamped before the jump, announced after it.
    event = said("assistant", "x", created_at=clock.started_at + 3.9)
    session.emit("conversation_item_added", event)
    await recorder.aclose()

    messages = [record for record in folding.folded if record["kind"] == "message"]
    base = clock.started_at * 1000
    offsets = [round(message["createdAt"] - base) for message in messages]
    assert offsets == [500, 1500, 2500, 3500, 3900]
    assert [round(m["startedSpeakingAt"] - base) for m in messages[:-1]] == offsets[:-1]


async def test_a_record_of_a_forked_child_is_counted_and_named(
    attach: Callable[..., SessionRecorder],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = attach()
    with monkeypatch.context() as child:
        child.setattr("os.getpid", lambda: -1)
        assert recorder.record(SlideShown(created_at=1.8e9, slide=3)) is None

    assert recorder.stats.lost == 1
    assert [r.message for r in caplog.records] == ["recorder.not_recorded"]
    await recorder.aclose()
