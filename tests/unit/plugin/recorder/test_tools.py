"""A tool call is recorded once, with what came of it in the end, in whatever order LiveKit tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pytest
from livekit.agents import AgentSession
from livekit.agents.llm import FunctionCall, FunctionCallOutput
from livekit.agents.voice.events import (
    CloseEvent,
    CloseReason,
    FunctionToolsExecutedEvent,
    ToolCallEnded,
    ToolCallStarted,
    ToolCallUpdated,
    ToolExecutionUpdatedEvent,
    ToolReplyUpdated,
)

from livekit.plugins.convex import SessionRecorder

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex

Status = Literal["done", "error", "cancelled"]


class Tools:
    """Emits what LiveKit does when a model calls tools."""

    def __init__(self, session: AgentSession[Any]) -> None:
        self._session = session
        self.calls: dict[str, FunctionCall] = {}

    def start(self, call_id: str) -> None:
        call = FunctionCall(call_id=call_id, name="look_up", arguments='{"word":"go"}')
        self.calls[call_id] = call
        self._updated(ToolCallStarted(function_call=call))

    def report(self, call_id: str, message: str) -> None:
        self._updated(ToolCallUpdated(id=call_id, call_id=call_id, message=message))

    def end(self, call_id: str, status: Status = "done", message: str | None = None) -> None:
        self._updated(ToolCallEnded(id=call_id, call_id=call_id, status=status, message=message))

    def end_late(self, call_id: str, output: str | None, status: Status = "done") -> None:
        """As LiveKit: into the history, then the event, which has the exception's own words."""
        entry = f"{call_id}_final"
        if output is not None:
            call = FunctionCall(call_id=entry, name="look_up", arguments="{}")
            is_error = status == "error"
            out = FunctionCallOutput(call_id=entry, output=output, is_error=is_error)
            self._session.history.insert([call, out])
        message = "private words" if status == "error" else output
        self._updated(ToolCallEnded(id=entry, call_id=call_id, status=status, message=message))

    def batch(self, *outputs: tuple[str, str]) -> None:
        self._session.emit(
            "function_tools_executed",
            FunctionToolsExecutedEvent(
                function_calls=[self.calls[call_id] for call_id, _ in outputs],
                function_call_outputs=[
                    FunctionCallOutput(call_id=call_id, output=output, is_error=False)
                    for call_id, output in outputs
                ],
            ),
        )

    def _updated(self, update: Any) -> None:
        event = ToolExecutionUpdatedEvent(update=update)
        self._session.emit("tool_execution_updated", event)


@pytest.fixture
def tools(session: AgentSession[Any]) -> Tools:
    return Tools(session)


def recorded(folding: FoldingConvex) -> list[tuple[str, str | None, bool, int | None]]:
    """Call, output, error and whose result, of each record of a tool call."""
    return [
        (r["callId"], r.get("output"), r["isError"], r.get("resultOf"))
        for r in folding.folded
        if r["kind"] == "toolCall"
    ]


async def test_a_call_that_is_answered_at_once_is_one_record(
    attach: Callable[..., SessionRecorder], tools: Tools, folding: FoldingConvex
) -> None:
    recorder = attach()
    tools.start("a")
    tools.start("b")
    tools.end("b")
    tools.end("a")
    tools.batch(("a", "A"), ("b", "B"))
    await recorder.aclose()

    assert recorded(folding) == [("a", "A", False, None), ("b", "B", False, None)]
    assert recorder._tool_calls._calls == {}


async def test_a_call_that_ends_after_its_batch_is_one_record_too(
    attach: Callable[..., SessionRecorder], tools: Tools, folding: FoldingConvex
) -> None:
    recorder = attach()
    tools.start("a")
    tools.batch(("a", "A"))
    tools.end("a")
    await recorder.aclose()

    assert recorded(folding) == [("a", "A", False, None)]
    assert recorder._tool_calls._calls == {}


async def test_a_late_result_is_a_record_that_names_the_calls_own(
    attach: Callable[..., SessionRecorder], tools: Tools, folding: FoldingConvex
) -> None:
    recorder = attach()
    tools.start("a")
    tools.report("a", "searching")
    tools.batch(("a", "searching"))
    tools.end_late("a", "went")
    await recorder.aclose()

    assert recorded(folding) == [("a", "searching", False, None), ("a", "went", False, 1)]
    call, result = (r for r in folding.folded if r["kind"] == "toolCall")
    assert (result["name"], result["arguments"]) == ("look_up", '{"word":"go"}')
    assert call["createdAt"] <= result["createdAt"] <= time.time() * 1000


async def test_a_late_result_that_comes_before_its_batch_is_the_call_itself(
    attach: Callable[..., SessionRecorder], tools: Tools, folding: FoldingConvex
) -> None:
    """The batch is told when its slowest tool has answered, with what the others reported first."""
    recorder = attach()
    tools.start("a")
    tools.start("slow")
    tools.report("a", "searching")
    tools.end_late("a", "went")
    tools.end("slow")
    tools.batch(("a", "searching"), ("slow", "done"))
    await recorder.aclose()

    assert recorded(folding) == [("a", "went", False, None), ("slow", "done", False, None)]
    assert recorder._tool_calls._calls == {}


async def test_a_late_failure_is_told_as_the_model_was_told(
    attach: Callable[..., SessionRecorder], tools: Tools, folding: FoldingConvex
) -> None:
    """The event has the text of the exception, which may quote what somebody said."""
    recorder = attach()
    tools.start("a")
    tools.batch(("a", "searching"))
    tools.end_late("a", "An internal error occurred", "error")
    await recorder.aclose()

    assert recorded(folding)[1] == ("a", "An internal error occurred", True, 1)
    assert "private" not in str(folding.folded)


async def test_a_call_that_is_cut_off_after_its_report_has_failed(
    attach: Callable[..., SessionRecorder], tools: Tools, folding: FoldingConvex
) -> None:
    recorder = attach()
    tools.start("a")
    tools.batch(("a", "searching"))
    tools.end_late("a", None, "cancelled")
    await recorder.aclose()

    assert recorded(folding) == [("a", "searching", False, None), ("a", None, True, 1)]


async def test_calls_that_the_end_of_the_session_cuts_off_are_recorded_as_failed(
    attach: Callable[..., SessionRecorder],
    tools: Tools,
    session: AgentSession[Any],
    folding: FoldingConvex,
    shutdowns: list[str],
) -> None:
    """They are in no batch, and may have done something by then."""
    recorder = attach()
    tools.start("cancelled")
    tools.end("cancelled", "cancelled")
    tools.start("running")
    tools.start("done")
    tools.end("done")
    session.emit("close", CloseEvent(reason=CloseReason.PARTICIPANT_DISCONNECTED))
    await recorder.aclose()

    assert recorded(folding) == [
        ("cancelled", None, True, None),
        ("running", None, True, None),
        ("done", None, False, None),
    ]
    assert folding.kinds()[-2:] == ["sessionEnded", "runEnded"]


async def test_calls_of_one_id_are_calls_of_their_own(
    attach: Callable[..., SessionRecorder], tools: Tools, folding: FoldingConvex
) -> None:
    """Some servers number the calls of each answer from 0."""
    recorder = attach()
    for output in ("one", "two"):
        tools.start("call_0")
        tools.end("call_0")
        tools.batch(("call_0", output))
    tools.start("call_0")
    tools.batch(("call_0", "searching"))
    tools.end_late("call_0", "three")
    await recorder.aclose()

    assert recorded(folding) == [
        ("call_0", "one", False, None),
        ("call_0", "two", False, None),
        ("call_0", "searching", False, None),
        ("call_0", "three", False, 3),
    ]


async def test_what_livekit_refuses_before_it_begins_is_recorded(
    attach: Callable[..., SessionRecorder], tools: Tools, folding: FoldingConvex
) -> None:
    """An unknown tool, or bad arguments: the model was told, and nothing was started."""
    recorder = attach()
    tools.calls["a"] = FunctionCall(call_id="a", name="nothing", arguments="{")
    tools.batch(("a", "unknown tool"))
    await recorder.aclose()

    assert recorded(folding) == [("a", "unknown tool", False, None)]


async def test_a_result_of_a_call_that_could_not_be_stored_stands_for_itself(
    attach: Callable[..., SessionRecorder],
    tools: Tools,
    folding: FoldingConvex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = attach()
    tools.start("a")
    with monkeypatch.context() as full:
        full.setattr(recorder._outbox, "append", lambda record: 1 / 0)
        tools.batch(("a", "searching"))
    tools.end_late("a", "went")
    await recorder.aclose()

    assert recorded(folding) == [("a", "went", False, None)]
    assert recorder.stats.lost == 1


async def test_how_a_result_was_voiced_is_no_tool_call(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], folding: FoldingConvex
) -> None:
    recorder = attach()
    update = ToolReplyUpdated(update_ids=["a_final"], status="completed", speech_id="s")
    session.emit("tool_execution_updated", ToolExecutionUpdatedEvent(update=update))
    unknown = ToolCallEnded(id="a_final", call_id="a", status="done", message="went")
    session.emit("tool_execution_updated", ToolExecutionUpdatedEvent(update=unknown))
    await recorder.aclose()

    assert folding.kinds() == ["sessionStarted", "runEnded"]
    assert recorder.stats.lost == 0
