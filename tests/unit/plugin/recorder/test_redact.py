"""The `redact` hook sees everything before the disk does, and fails closed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from livekit.agents import AgentSession
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
)

from livekit.plugins.convex import MessageRecord, Record, SessionRecorder
from livekit.plugins.convex.records import (
    RECORD_TYPES,
    LostRecord,
    SessionResumedRecord,
    SetAsideRecord,
    kind_of,
)
from livekit.plugins.convex.testing import FakeConvex
from tests.support.logged import logged
from tests.support.session_events import said

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex

SECRET = "my name is Ana"


class Noted(Record, tag="noted", frozen=True, kw_only=True):
    note: str


def everything(session: AgentSession[Any], recorder: SessionRecorder) -> None:
    """One of each event that is recorded, and a record of the app's own."""
    transcribed = UserInputTranscribedEvent(transcript=SECRET, is_final=True)
    session.emit("user_input_transcribed", transcribed)
    session.emit("conversation_item_added", said("user", SECRET))
    call = FunctionCall(call_id="c1", name="look_up", arguments=f'{{"word":"{SECRET}"}}')
    output = FunctionCallOutput(call_id="c1", output=SECRET, is_error=False)
    session.emit(
        "function_tools_executed",
        FunctionToolsExecutedEvent(function_calls=[call], function_call_outputs=[output]),
    )
    handoff = AgentHandoff(old_agent_id=None, new_agent_id="tutor")
    session.emit("conversation_item_added", ConversationItemAddedEvent(item=handoff))
    session.emit(
        "agent_state_changed",
        AgentStateChangedEvent(old_state="listening", new_state="thinking"),
    )
    usage = AgentSessionUsage(model_usage=[LLMModelUsage(provider="p", model="m", input_tokens=1)])
    session.emit("session_usage_updated", SessionUsageUpdatedEvent(usage=usage))
    error = LLMError(timestamp=1.0, label="llm", error=ConnectionError(), recoverable=True)
    session.emit("error", ErrorEvent(error=error, source=object()))
    recorder.record(Noted(created_at=1.8e9, note=SECRET))
    session.emit("close", CloseEvent(reason=CloseReason.USER_INITIATED))


async def test_the_hook_sees_every_kind_that_a_recorder_writes(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], shutdowns: list[str]
) -> None:
    seen: set[type[Record]] = set()

    def look(record: Record) -> Record:
        seen.add(type(record))
        return record

    recorder = attach(redact=look, record_states=True)
    everything(session, recorder)
    await recorder.aclose()

    # What became of a journal is no record of a recorder, and says nothing of the talk.
    others = {SessionResumedRecord, LostRecord, SetAsideRecord}
    assert seen == {*RECORD_TYPES, Noted} - others


@pytest.mark.parametrize("answer", ["none", "raises"])
async def test_nothing_of_what_was_said_reaches_the_disk(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    server: FakeConvex,
    folding: FoldingConvex,
    shutdowns: list[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    answer: str,
) -> None:
    await server.stop()

    def drop(record: Record) -> None:
        if answer == "raises":
            raise ValueError(SECRET)

    recorder = attach(redact=drop, record_states=True)
    everything(session, recorder)

    [journal] = (tmp_path / "outbox").glob("*.journal")
    written = journal.read_text("utf-8")
    assert SECRET not in written
    assert written.count("[redacted]") == 5
    assert 'kind":"handoff' in written
    assert SECRET not in str([record.__dict__ for record in caplog.records])
    failed = [r for r in caplog.records if r.message == "recorder.redact_failed"]
    assert len(failed) == (1 if answer == "raises" else 0)
    assert recorder.stats.lost == 0

    await server.start()
    assert await recorder.aclose(timeout_s=10.0) == 0
    kinds = [kind_of(t) for t in RECORD_TYPES if kind_of(t) in folding.kinds()]
    assert len(kinds) == 10
    assert logged(caplog, logging.ERROR) == [r.message for r in failed]


async def test_the_hook_decides_what_is_stored(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], folding: FoldingConvex
) -> None:
    """As the README shows it."""

    def hide_names(record: Record) -> Record:
        if isinstance(record, MessageRecord):
            return msgspec.structs.replace(record, text=record.text.replace("Ana", "…"))
        return record

    recorder = attach(redact=hide_names)
    session.emit("conversation_item_added", said("user", SECRET, id="item_1"))
    await recorder.aclose()

    message = next(r for r in folding.folded if r["kind"] == "message")
    assert (message["text"], message["itemId"]) == ("my name is …", "item_1")
