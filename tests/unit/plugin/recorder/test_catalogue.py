"""Every event of LiveKit's AgentSession, and what becomes of it.

A LiveKit that adds, renames or drops an event fails here, before it fails in a lesson: read what the
event says, decide, and complete the table.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import pytest
from livekit.agents import AgentSession
from livekit.agents.llm import AgentHandoff, ChatMessage
from livekit.agents.voice import events
from pydantic import BaseModel

from livekit.plugins.convex import SessionRecorder
from livekit.plugins.convex.records import RECORD_TYPES, kind_of

# Recorded: the kinds of record that the event becomes.
RECORDED: dict[str, set[str]] = {
    # What was said, or played until it was interrupted, and who speaks for the agent.
    "conversation_item_added": {"message", "handoff"},
    # Finals alone, until the message comes that contains them.
    "user_input_transcribed": {"transcript"},
    "function_tools_executed": {"toolCall"},
    # The result of a tool that had only reported, and calls that the session's end cut off.
    "tool_execution_updated": {"toolCall"},
    "session_usage_updated": {"usage"},
    "error": {"error"},
    "close": {"sessionEnded"},
}
# Recorded with `attach(..., record_states=True)`.
IF_ASKED_FOR: dict[str, set[str]] = {
    "user_state_changed": {"stateChanged"},
    "agent_state_changed": {"stateChanged"},
}
NOT_RECORDED: dict[str, str] = {
    "user_transcription_timeout": "somebody spoke and no words came of it; LiveKit is silent about "
    "it unless asked (transcription_timeout), and it changes nothing that was said",
    "agent_false_interruption": "the agent went on: its message says in the end what was played, "
    "and reading the event's own message logs a warning",
    "overlapping_speech": "a guess of the interruption detector; what came of it is the message's "
    "`interrupted`",
    "speech_created": "comes before any text: what is said becomes a message, and what `say` keeps "
    "out of the conversation (add_to_chat_ctx=False) is meant to be in no record",
    "metrics_collected": "deprecated, listening logs a warning; turns have their latencies on the "
    "message, sums come with session_usage_updated",
    "debug_message": "LiveKit's own, for its debugger",
}
# Of the module, but emitted to nobody who listens to a session.
NO_SESSION_EVENT: dict[str, str] = {
    "EotPredictionEvent": "of the turn detector, to the activity",
    "UserTurnExceededEvent": "an argument of Agent.on_user_turn_exceeded",
}
# How `tool_execution_updated` goes on.
TOOL_UPDATES: dict[str, str] = {
    "tool_call_started": "remembered: name and arguments for what follows",
    "tool_call_updated": "a report on the way: the first is the call's output until its result is",
    "tool_call_ended": "the result",
    "tool_reply_updated": "how the result was voiced is a message",
}


def test_every_event_has_its_place_in_the_table() -> None:
    decided = {*RECORDED, *IF_ASKED_FOR, *NOT_RECORDED}
    assert decided == set(typing.get_args(events.EventTypes))
    assert len(decided) == len(RECORDED) + len(IF_ASKED_FOR) + len(NOT_RECORDED)


def test_every_event_class_of_livekit_is_one_of_them() -> None:
    """An event may also come as a class before it comes into the list of names."""
    classes = {
        name: cls
        for name, cls in vars(events).items()
        if inspect.isclass(cls)
        and issubclass(cls, BaseModel)
        and name.endswith("Event")
        and not name.startswith("_")
    }
    of_sessions = {
        typing.get_args(cls.model_fields["type"].annotation)[0]
        for name, cls in classes.items()
        if name not in NO_SESSION_EVENT
    }
    assert set(NO_SESSION_EVENT) < set(classes)
    # `debug_message` is a protobuf and has no class here.
    assert of_sessions | {"debug_message"} == {*RECORDED, *IF_ASKED_FOR, *NOT_RECORDED}


def test_every_stage_of_a_tool_call_is_known() -> None:
    annotation = events.ToolExecutionUpdatedEvent.model_fields["update"].annotation
    stages = {
        typing.get_args(cls.model_fields["type"].annotation)[0]
        for cls in typing.get_args(annotation)
    }
    assert stages == set(TOOL_UPDATES)


def test_every_kind_of_item_that_is_announced_is_known() -> None:
    annotation = events.ConversationItemAddedEvent.model_fields["item"].annotation
    announced = {cls for cls in typing.get_args(annotation) if not cls.__name__.startswith("_")}
    assert announced == {ChatMessage, AgentHandoff}


@pytest.mark.parametrize("states", [True, False])
async def test_the_recorder_listens_to_what_the_table_says(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    monkeypatch: pytest.MonkeyPatch,
    states: bool,
) -> None:
    heard: list[str] = []
    on = session.on

    def listen(event: Any, listener: Any) -> Any:
        heard.append(event)
        return on(event, listener)

    monkeypatch.setattr(session, "on", listen)
    recorder = attach(record_states=states)
    await recorder.aclose()

    assert sorted(heard) == sorted([*RECORDED, *(IF_ASKED_FOR if states else ())])
    assert not any(session._events.values())


def test_every_kind_of_record_comes_from_somewhere() -> None:
    of_events = {kind for kinds in (*RECORDED.values(), *IF_ASKED_FOR.values()) for kind in kinds}
    # Of the run itself, and of what became of its journal.
    of_runs = {"sessionStarted", "sessionResumed", "runEnded", "lost", "setAside"}
    assert of_events | of_runs == {kind_of(record) for record in RECORD_TYPES}
