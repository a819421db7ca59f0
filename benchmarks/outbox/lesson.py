"""The events of a lesson of 25 minutes, as LiveKit says them.

120 turns, 2,156 events. A turn: five partial transcripts and a final, both messages, five changes of
state, and a usage snapshot for each report of a model: hearing, end of turn, language model, and the
voice once or, for a longer answer, twice. 36 turns have a tool call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from livekit.agents.llm import ChatMessage, FunctionCall, FunctionCallOutput
from livekit.agents.metrics import AgentSessionUsage
from livekit.agents.metrics.usage import LLMModelUsage, STTModelUsage, TTSModelUsage
from livekit.agents.voice.events import (
    AgentStateChangedEvent,
    ConversationItemAddedEvent,
    FunctionToolsExecutedEvent,
    SessionUsageUpdatedEvent,
    UserInputTranscribedEvent,
    UserStateChangedEvent,
)

TURNS = 120
DURATION_S = 1_500.0
PARTIALS = 5
_SAID = "I would like two kilos of apples and a loaf of bread, please, if you have any left. "
_METRICS = {"e2e_latency": 0.91, "llm_node_ttft": 0.33, "tts_node_ttfb": 0.18}

Event = tuple[str, Any]


def events() -> Iterator[Event]:
    """Name and event, in the order of a lesson."""
    for turn in range(TURNS):
        yield from _turn(turn)


def item_id(n: int) -> str:
    """The id of the message of that number."""
    return f"item_{n:06d}"


def message(n: int, role: str, text: str = _SAID) -> ConversationItemAddedEvent:
    """A committed message."""
    metrics: Any = _METRICS if role == "assistant" else {}
    item = ChatMessage(id=item_id(n), role=role, content=[text], metrics=metrics)
    return ConversationItemAddedEvent(item=item)


def _turn(turn: int) -> Iterator[Event]:
    yield _user_state("listening", "speaking")
    for part in range(PARTIALS):
        yield _transcript(_SAID[: 16 * (part + 1)], final=False)
    yield _transcript(_SAID, final=True)
    yield _usage(turn)
    yield _user_state("speaking", "listening")
    yield _usage(turn)
    yield "conversation_item_added", message(2 * turn, "user")
    yield _agent_state("listening", "thinking")
    if turn % 10 in (2, 5, 8):
        yield _tool(turn)
    yield _usage(turn)
    yield _agent_state("thinking", "speaking")
    yield _usage(turn)
    if turn % 3:
        yield _usage(turn)
    yield "conversation_item_added", message(2 * turn + 1, "assistant")
    yield _agent_state("speaking", "listening")


def _transcript(text: str, *, final: bool) -> Event:
    event = UserInputTranscribedEvent(transcript=text, is_final=final, language="en")
    return "user_input_transcribed", event


def _user_state(old: Any, new: Any) -> Event:
    return "user_state_changed", UserStateChangedEvent(old_state=old, new_state=new)


def _agent_state(old: Any, new: Any) -> Event:
    return "agent_state_changed", AgentStateChangedEvent(old_state=old, new_state=new)


def _tool(turn: int) -> Event:
    called = FunctionCall(call_id=f"call_{turn}", name="get_student_profile", arguments="{}")
    output = FunctionCallOutput(
        call_id=called.call_id, name=called.name, output=_SAID, is_error=False
    )
    event = FunctionToolsExecutedEvent(function_calls=[called], function_call_outputs=[output])
    return "function_tools_executed", event


def _usage(turn: int) -> Event:
    usage = AgentSessionUsage(
        model_usage=[
            LLMModelUsage(provider="p", model="llm", input_tokens=900 * turn, output_tokens=turn),
            TTSModelUsage(provider="p", model="tts", characters_count=80 * turn),
            STTModelUsage(provider="p", model="stt", audio_duration=4.0 * turn),
        ]
    )
    return "session_usage_updated", SessionUsageUpdatedEvent(usage=usage)
