"""What an AgentSession's events become."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents import Agent, AgentSession, JobContext, ToolError, function_tool
from livekit.agents.llm import AgentHandoff, FunctionCall, FunctionCallOutput, LLMError
from livekit.agents.metrics import AgentSessionUsage, LLMModelUsage
from livekit.agents.voice.events import (
    AgentStateChangedEvent,
    CloseEvent,
    CloseReason,
    ConversationItemAddedEvent,
    ErrorEvent,
    FunctionToolsExecutedEvent,
    SessionUsageUpdatedEvent,
    UserInputTranscribedEvent,
    UserStateChangedEvent,
)

from livekit.plugins.convex import AsyncConvexClient, SessionRecorder
from livekit.plugins.convex.records import (
    AT_ONCE_S,
    WITH_THE_NEXT_S,
    ErrorRecord,
    HandoffRecord,
    MessageRecord,
    StateChangedRecord,
    ToolCallRecord,
    UsageRecord,
)
from livekit.plugins.convex.testing import FakeConvex
from tests.support.scripted_llm import ScriptedLLM, call
from tests.support.session_events import said

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex


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

    assert folding.kinds() == [
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


async def test_records_are_looked_at_once_when_they_are_stored(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looking at a batch again before it is sent would stop the audio for 2 ms."""
    looked_at: list[str] = []

    def encode_args(function: str, args: Any) -> Any:
        looked_at.append(function)
        return args

    monkeypatch.setattr("livekit.plugins.convex.values.encode_args", encode_args)
    recorder = attach()
    session.emit("conversation_item_added", said("user", "Hello"))
    await recorder.aclose(timeout_s=10.0)

    assert folding.kinds() == ["sessionStarted", "message", "runEnded"]
    assert "sessions:record" not in looked_at


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


async def test_a_handoff_is_kept_with_both_agents_and_the_first_with_one(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], folding: FoldingConvex
) -> None:
    recorder = attach()
    for old, new in ((None, "tutor"), ("tutor", "examiner")):
        handoff = AgentHandoff(old_agent_id=old, new_agent_id=new)
        session.emit("conversation_item_added", ConversationItemAddedEvent(item=handoff))
    await recorder.aclose()

    assert folding.kinds() == ["sessionStarted", "handoff", "handoff", "runEnded"]
    first, second = folding.folded[1:3]
    assert (first.get("oldAgent"), first["newAgent"]) == (None, "tutor")
    assert (second["oldAgent"], second["newAgent"]) == ("tutor", "examiner")
    assert second["itemId"] == handoff.id
    assert second["createdAt"] == pytest.approx(handoff.created_at * 1000)


async def test_system_messages_and_empty_transcripts_are_not_recorded(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], folding: FoldingConvex
) -> None:
    recorder = attach()
    session.emit("conversation_item_added", said("system", "be kind"))
    session.emit("user_input_transcribed", UserInputTranscribedEvent(transcript="", is_final=True))
    await recorder.aclose()

    assert folding.kinds() == ["sessionStarted", "runEnded"]
    assert recorder.stats.lost == 0


@pytest.mark.parametrize("asked_for", [True, False])
async def test_states_are_recorded_if_asked_for(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    asked_for: bool,
) -> None:
    recorder = attach(record_states=asked_for)
    user = UserStateChangedEvent(old_state="listening", new_state="away", created_at=time.time())
    session.emit("user_state_changed", user)
    agent = AgentStateChangedEvent(old_state="listening", new_state="thinking")
    session.emit("agent_state_changed", agent)
    await recorder.aclose()
    session.emit("user_state_changed", user)

    states = [r for r in folding.folded if r["kind"] == "stateChanged"]
    assert [(r["who"], r["state"], r["createdAt"]) for r in states] == (
        [
            ("user", "away", pytest.approx(user.created_at * 1000)),
            ("agent", "thinking", pytest.approx(agent.created_at * 1000)),
        ]
        if asked_for
        else []
    )
    assert recorder.stats.lost == 0


def test_what_rides_along_makes_no_request_of_its_own() -> None:
    """Else a lesson's states alone would be more requests than its messages."""
    for kind in (ToolCallRecord, HandoffRecord, StateChangedRecord, UsageRecord, ErrorRecord):
        assert kind.deliver_within_s == WITH_THE_NEXT_S
    assert MessageRecord.deliver_within_s == AT_ONCE_S


async def test_a_realtime_models_late_item_keeps_the_time_of_its_turn(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], folding: FoldingConvex
) -> None:
    """The transcript of what was said comes when the answer to it has been spoken."""
    recorder = attach()
    now = time.time()
    session.emit("conversation_item_added", said("assistant", "Fine!", id="a", created_at=now - 2))
    session.emit(
        "user_input_transcribed",
        UserInputTranscribedEvent(transcript="How are you?", is_final=True, item_id="u"),
    )
    session.emit(
        "conversation_item_added", said("user", "How are you?", id="u", created_at=now - 5)
    )
    await recorder.aclose()

    messages = [r for r in folding.folded if r["kind"] == "message"]
    assert [r["itemId"] for r in messages] == ["a", "u"]
    in_order = sorted(messages, key=lambda r: (r["createdAt"], r["seq"]))
    assert [r["itemId"] for r in in_order] == ["u", "a"]
    transcript = next(r for r in folding.folded if r["kind"] == "transcript")
    assert transcript["itemId"] == "u"


async def test_a_repeated_final_is_a_further_snapshot_of_its_item(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], folding: FoldingConvex
) -> None:
    """LiveKit emits the item again, and leaves both in its history; the fold keeps one."""
    recorder = attach()
    for text in ("I goed", "I goed home"):
        session.emit(
            "user_input_transcribed",
            UserInputTranscribedEvent(transcript=text, is_final=True, item_id="u"),
        )
        session.emit("conversation_item_added", said("user", text, id="u"))
    await recorder.aclose()

    messages = [r for r in folding.folded if r["kind"] == "message"]
    assert [(r["itemId"], r["text"]) for r in messages] == [("u", "I goed"), ("u", "I goed home")]


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
