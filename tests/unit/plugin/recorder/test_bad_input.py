"""What a model gone wild sends: kept as far as it can be, named by its field, never quoted.

The sentence counts. A number that is none is left out, a text that is too long is cut, and the
warning says which field of which kind; LiveKit's listener comes back every time, and soon.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents import AgentSession
from livekit.agents.llm import FunctionCall, FunctionCallOutput
from livekit.agents.voice.events import (
    ConversationItemAddedEvent,
    FunctionToolsExecutedEvent,
    UserInputTranscribedEvent,
)

from livekit.plugins.convex import Record, SessionRecorder
from livekit.plugins.convex.limits import MAX_RECORD_BYTES, MAX_TEXT_BYTES
from tests.support.session_events import said

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex

WILD = "private words " * 800_000  # 11 MB
SURROGATE = "private \ud800 words"


class Noted(Record, tag="noted", frozen=True, kw_only=True):
    """A record as an app writes them."""

    details: Any


def item(text: str, role: str = "user", **fields: Any) -> ConversationItemAddedEvent:
    """As `said`, with what pydantic would not let in: streamed text is appended unchecked."""
    event = said(role, "", **fields)
    event.item.content = [text]  # type: ignore[union-attr]
    return event


def measured(**metrics: Any) -> ConversationItemAddedEvent:
    event = said("user", "Good morning")
    event.item.metrics = metrics  # type: ignore[union-attr]
    return event


def dated(created_at: float) -> ConversationItemAddedEvent:
    event = said("user", "Good morning")
    event.item.created_at = created_at  # type: ignore[union-attr]
    return event


def tool(arguments: str, output: str) -> FunctionToolsExecutedEvent:
    call = FunctionCall(call_id="c", name="look_up", arguments="{}")
    call.arguments = arguments
    out = FunctionCallOutput(call_id="c", output="", is_error=False)
    out.output = output
    return FunctionToolsExecutedEvent.model_construct(
        function_calls=[call], function_call_outputs=[out]
    )


def transcript(text: str) -> UserInputTranscribedEvent:
    event = UserInputTranscribedEvent(transcript="", is_final=True, language="en")
    event.transcript = text
    return event


CASES: dict[str, tuple[str, Any, dict[str, Any], list[tuple[str, str]]]] = {
    "a text of 11 MB": (
        "conversation_item_added",
        item(WILD),
        {"text": WILD[:MAX_TEXT_BYTES]},
        [("text", "truncated")],
    ),
    "an answer of 11 MB": (
        "conversation_item_added",
        item(WILD, "assistant"),
        {"text": WILD[:MAX_TEXT_BYTES]},
        [("text", "truncated")],
    ),
    "a transcript of 11 MB": (
        "user_input_transcribed",
        transcript(WILD),
        {"text": WILD[:MAX_TEXT_BYTES]},
        [("text", "truncated")],
    ),
    "a tool's output of 11 MB": (
        "function_tools_executed",
        tool("{}", WILD),
        {"arguments": "{}", "output": WILD[:MAX_TEXT_BYTES]},
        [("output", "truncated")],
    ),
    "a lone surrogate": (
        "conversation_item_added",
        item(SURROGATE),
        {"text": "private \ufffd words"},
        [("*", "replaced")],
    ),
    "a lone surrogate of a tool": (
        "function_tools_executed",
        tool(SURROGATE, SURROGATE),
        {"arguments": "private \ufffd words", "output": "private \ufffd words"},
        [("*", "replaced")],
    ),
    "a confidence that is no number": (
        "conversation_item_added",
        said("user", "Good morning", transcript_confidence=math.nan),
        {"text": "Good morning", "transcriptConfidence": None},
        [("transcript_confidence", "left_out")],
    ),
    "latencies that are no numbers": (
        "conversation_item_added",
        measured(e2e_latency=math.nan, llm_node_ttft="slow", started_speaking_at=math.inf),
        {"text": "Good morning", "startedSpeakingAt": None, "metrics": {}},
        [
            ("started_speaking_at", "left_out"),
            ("metrics.e2e_latency_s", "left_out"),
            ("metrics.llm_ttft_s", "left_out"),
        ],
    ),
    "an instant that is none": (
        "conversation_item_added",
        dated(math.nan),
        {"text": "Good morning"},
        [],
    ),
    "an instant at the end of time": (
        "conversation_item_added",
        dated(1e300),
        {"text": "Good morning", "createdAt": 4_102_444_800_000.0},
        [("created_at", "clamped")],
    ),
}


@pytest.mark.parametrize(("name", "event", "stored", "warned"), CASES.values(), ids=CASES.keys())
async def test_what_can_be_kept_of_it_is_stored_and_the_field_named(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    caplog: pytest.LogCaptureFixture,
    name: Any,
    event: Any,
    stored: dict[str, Any],
    warned: list[tuple[str, str]],
) -> None:
    caplog.set_level(logging.WARNING)
    recorder = attach()
    session.emit(name, event)
    await recorder.aclose(timeout_s=10.0)

    kept = folding.folded[1]
    assert {field: kept.get(field) for field in stored} == stored
    assert kept["createdAt"] > 1.7e12
    assert recorder.stats.lost == 0
    assert [(r.field, r.how) for r in caplog.records] == warned  # type: ignore[attr-defined]
    assert {r.message for r in caplog.records} <= {"outbox.record_mended"}
    assert "private" not in str([r.__dict__ for r in caplog.records])


@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_a_text_of_11_MB_holds_the_event_loop_for_a_moment_alone(
    attach: Callable[..., SessionRecorder], session: AgentSession[Any], role: str
) -> None:
    """Removing the markup from all of it would take 70 ms, and encoding it as long again."""
    recorder = attach()
    event = item(WILD, role)
    took_s = []
    for _ in range(5):
        started = time.perf_counter()
        session.emit("conversation_item_added", event)
        took_s.append(time.perf_counter() - started)

    # The best of them: the others may have waited for another process.
    assert min(took_s) < 0.005
    await recorder.aclose()


def deep(levels: int) -> Any:
    value: Any = "private words"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("details", "says"),
    [
        (["private words"] * 30_000, "noted.details holds 30000 items in one place, over 8192"),
        (
            ["private words " * 4_000] * 8,
            f"noted.* is 448080 bytes; the limit is {MAX_RECORD_BYTES}",
        ),
        ({"word": {math.nan}}, "noted.details holds a value of type set"),
        (object(), "noted.details holds a value of type object"),
        ([b"private words"], "noted.details holds a value of type bytes"),
        ({"word": math.nan}, "noted.details is not a finite number"),
        ({"private \n words": 1}, "noted.details has a key that is no field name of Convex"),
        (deep(70), "noted.details is nested too deeply for Convex (64 levels)"),
        (deep(100_000), "noted.details is nested too deeply for Convex (64 levels)"),
    ],
    ids=["many", "large", "set", "object", "bytes", "NaN", "key", "deep", "very deep"],
)
async def test_what_an_app_cannot_store_is_counted_and_named_and_costs_nothing_else(
    attach: Callable[..., SessionRecorder],
    session: AgentSession[Any],
    folding: FoldingConvex,
    caplog: pytest.LogCaptureFixture,
    details: Any,
    says: str,
) -> None:
    recorder = attach()
    assert recorder.record(Noted(created_at=1.8e9, details=details)) is None
    session.emit("conversation_item_added", said("user", "Hello"))
    await recorder.aclose()

    assert folding.kinds() == ["sessionStarted", "message", "runEnded"]
    assert recorder.stats.lost == 1
    [line] = [r for r in caplog.records if r.message == "recorder.not_recorded"]
    assert line.error == says  # type: ignore[attr-defined]
    assert "private" not in str(line.__dict__)


async def test_what_is_not_even_a_record_is_no_exception(
    attach: Callable[..., SessionRecorder], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = attach()
    for wrong in (None, "private words", {"kind": "message"}):
        assert recorder.record(wrong) is None  # type: ignore[arg-type]
    await asyncio.sleep(0)

    assert recorder.stats.lost == 3
    assert "private" not in str([r.__dict__ for r in caplog.records])
    await recorder.aclose()
