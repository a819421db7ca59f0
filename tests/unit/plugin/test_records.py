"""What each record looks like on the wire, and what is mended on the way there."""

from __future__ import annotations

import enum
import json
import math
from typing import Any, ClassVar, Literal

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from livekit.agents.llm import ChatMessage, FunctionCall, FunctionCallOutput
from livekit.agents.metrics import AgentSessionUsage, LLMModelUsage, TTSModelUsage

from livekit.plugins.convex import encoding
from livekit.plugins.convex.encoding import Mended, RecordError, decode, encode, wire_name
from livekit.plugins.convex.limits import MAX_NAME_BYTES, MAX_RECORD_BYTES, MAX_TEXT_BYTES
from livekit.plugins.convex.records import (
    ErrorRecord,
    HandoffRecord,
    LostRecord,
    MessageRecord,
    ModelUsage,
    Record,
    RunEndedRecord,
    SessionEndedRecord,
    SessionResumedRecord,
    SessionStartedRecord,
    SetAsideRecord,
    StateChangedRecord,
    ToolCallRecord,
    TranscriptRecord,
    TurnMetrics,
    UsageRecord,
)
from livekit.plugins.convex.values import encode_args

NOW = 1_795_474_184.5
NOW_MS = 1_795_474_184_500.0


class Scored(Record, tag="scored", frozen=True, kw_only=True):
    """A record as an app writes them."""

    deliver_within_s: ClassVar[float] = 15.0
    answer: Literal["right", "wrong"]
    took_s: float
    hint: Literal["first", "last"] | None = None
    details: dict[str, Any] | None = None


class Rated(Record, tag="rated", frozen=True, kw_only=True):
    """A choice among numbers."""

    rating: Literal[1, 2, 3, 4]


def nested(levels: int) -> dict[str, Any]:
    """Objects in objects, so many."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def wire(record: Record) -> dict[str, Any]:
    parsed = json.loads(encode(record)[0])
    assert isinstance(parsed, dict)
    return parsed


def approximately(value: Any) -> Any:
    """Equal to what it became on its way through milliseconds."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-12)
    if isinstance(value, dict):
        return {key: approximately(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(approximately(item) for item in value)
    return value


def mended(record: Record) -> list[Mended]:
    return encode(record)[1]


def message(**changes: Any) -> MessageRecord:
    fields: dict[str, Any] = {
        "created_at": NOW,
        "item_id": "item_1",
        "role": "user",
        "text": "I goed home",
        "interrupted": False,
    }
    return MessageRecord(**{**fields, **changes})


STARTED = {"session_key": "s", "room": "r", "job_id": "AJ_1", "agent_name": "emma"}

WIRE: list[tuple[Record, dict[str, Any]]] = [
    (
        SessionStartedRecord(created_at=NOW, **STARTED, lesson_id="l1", participant_identity="sam"),
        {
            "kind": "sessionStarted",
            "sessionKey": "s",
            "room": "r",
            "jobId": "AJ_1",
            "agentName": "emma",
            "lessonId": "l1",
            "participantIdentity": "sam",
        },
    ),
    (
        SessionResumedRecord(created_at=NOW, **STARTED, last_seen_at=NOW - 60),
        {
            "kind": "sessionResumed",
            "lastSeenAt": NOW_MS - 60_000,
            "sessionKey": "s",
            "room": "r",
            "jobId": "AJ_1",
            "agentName": "emma",
        },
    ),
    (
        message(
            language="en",
            transcript_confidence=0.5,
            started_speaking_at=NOW,
            stopped_speaking_at=NOW + 1,
            metrics=TurnMetrics(
                transcription_delay_s=0.25,
                end_of_turn_delay_s=0.5,
                turn_completed_delay_s=0.125,
                e2e_latency_s=1.5,
                llm_ttft_s=0.75,
                tts_ttfb_s=0.0,
                playback_latency_s=2.0,
            ),
        ),
        {
            "kind": "message",
            "itemId": "item_1",
            "role": "user",
            "text": "I goed home",
            "interrupted": False,
            "language": "en",
            "transcriptConfidence": 0.5,
            "startedSpeakingAt": NOW_MS,
            "stoppedSpeakingAt": NOW_MS + 1000,
            "metrics": {
                "transcriptionDelayMs": 250.0,
                "endOfTurnDelayMs": 500.0,
                "turnCompletedDelayMs": 125.0,
                "e2eLatencyMs": 1500.0,
                "llmTtftMs": 750.0,
                "ttsTtfbMs": 0.0,
                "playbackLatencyMs": 2000.0,
            },
        },
    ),
    (
        TranscriptRecord(created_at=NOW, text="Hi", item_id="i", language="en", speaker_id="s"),
        {"kind": "transcript", "text": "Hi", "itemId": "i", "language": "en", "speakerId": "s"},
    ),
    (
        ToolCallRecord(
            created_at=NOW, call_id="c", name="n", arguments="{}", is_error=True, output="no"
        ),
        {
            "kind": "toolCall",
            "callId": "c",
            "name": "n",
            "arguments": "{}",
            "isError": True,
            "output": "no",
        },
    ),
    (
        ToolCallRecord(
            created_at=NOW, call_id="c", name="n", arguments="{}", is_error=False, result_of=4
        ),
        {
            "kind": "toolCall",
            "callId": "c",
            "name": "n",
            "arguments": "{}",
            "isError": False,
            "resultOf": 4,
        },
    ),
    (
        HandoffRecord(created_at=NOW, item_id="i", new_agent="examiner", old_agent="tutor"),
        {"kind": "handoff", "itemId": "i", "newAgent": "examiner", "oldAgent": "tutor"},
    ),
    (
        StateChangedRecord(created_at=NOW, who="agent", state="thinking"),
        {"kind": "stateChanged", "who": "agent", "state": "thinking"},
    ),
    (
        UsageRecord(
            created_at=NOW,
            models=(
                ModelUsage(
                    type="tts",
                    provider="openai",
                    model="m",
                    input_tokens=1,
                    output_tokens=2,
                    characters=3,
                    audio_s=4.5,
                ),
            ),
        ),
        {
            "kind": "usage",
            "models": [
                {
                    "type": "tts",
                    "provider": "openai",
                    "model": "m",
                    "inputTokens": 1,
                    "outputTokens": 2,
                    "characters": 3,
                    "audioMs": 4500.0,
                }
            ],
        },
    ),
    (
        ErrorRecord(created_at=NOW, source="LLM", error_type="APIError", recoverable=False),
        {"kind": "error", "source": "LLM", "errorType": "APIError", "recoverable": False},
    ),
    (
        SessionEndedRecord(created_at=NOW, reason="error", error_type="APIError"),
        {"kind": "sessionEnded", "reason": "error", "errorType": "APIError"},
    ),
    (RunEndedRecord(created_at=NOW, reason="done"), {"kind": "runEnded", "reason": "done"}),
    (
        LostRecord(created_at=NOW, from_seq=3, to_seq=5, reason="damaged"),
        {"kind": "lost", "fromSeq": 3, "toSeq": 5, "reason": "damaged"},
    ),
    (
        SetAsideRecord(created_at=NOW, code="text_too_long", of_kind="message", field="text"),
        {"kind": "setAside", "code": "text_too_long", "ofKind": "message", "field": "text"},
    ),
]


@pytest.mark.parametrize(("record", "expected"), WIRE, ids=[str(w["kind"]) for _, w in WIRE])
def test_each_kind_goes_out_in_camel_case_and_milliseconds(
    record: Record, expected: dict[str, Any]
) -> None:
    assert wire(record) == {"createdAt": NOW_MS, **expected}
    assert mended(record) == []


@pytest.mark.parametrize("record", [r for r, _ in WIRE], ids=[str(w["kind"]) for _, w in WIRE])
def test_each_kind_is_read_back_as_it_was(record: Record) -> None:
    """In seconds, also within it; `seq` and what a later version adds are passed over."""
    stored = b'{"seq":3,"addedLater":{"a":[1]},' + encode(record)[0][1:]
    again = decode(stored, type(record))

    assert type(again) is type(record)
    assert msgspec.to_builtins(again) == approximately(msgspec.to_builtins(record))


def test_an_apps_record_is_read_back_as_it_was() -> None:
    scored = Scored(created_at=NOW, answer="wrong", took_s=1.5, details={"word": ["went", None]})
    assert decode(encode(scored)[0], Scored) == scored
    rated = Rated(created_at=NOW, rating=3)
    assert decode(encode(rated)[0], Rated) == rated


def test_a_whole_number_is_read_back_also_if_it_was_given_as_a_float() -> None:
    given: Any = 3.0
    lost = LostRecord(created_at=NOW, from_seq=given, to_seq=5, reason="damaged")
    assert decode(encode(lost)[0], LostRecord).from_seq == 3


@pytest.mark.parametrize(
    "stored",
    [
        b"{}",
        b"[]",
        b"{",
        b'{"kind":"message"}',
        b'{"kind":"message","createdAt":"now","itemId":"i","role":"user","text":"","interrupted":0}',
        b'{"kind":"runEnded","createdAt":1.0,"reason":"done"}',
    ],
)
def test_what_is_no_such_record_is_refused(stored: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(stored, MessageRecord)


def test_what_is_not_known_is_absent_and_never_null() -> None:
    assert wire(message()) == {
        "kind": "message",
        "createdAt": NOW_MS,
        "itemId": "item_1",
        "role": "user",
        "text": "I goed home",
        "interrupted": False,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_optional_number_that_is_not_finite_is_left_out(value: float) -> None:
    """Encoders make null of it in silence, and null is not what the validator takes."""
    record = message(transcript_confidence=value, metrics=TurnMetrics(e2e_latency_s=value))

    assert "transcriptConfidence" not in wire(record)
    assert wire(record)["metrics"] == {}
    assert mended(record) == [
        Mended("transcript_confidence", "left_out"),
        Mended("metrics.e2e_latency_s", "left_out"),
    ]


def test_an_optional_instant_out_of_range_is_left_out_and_created_at_clamped() -> None:
    record = message(created_at=12.0, started_speaking_at=-1.0)

    assert "startedSpeakingAt" not in wire(record)
    assert wire(record)["createdAt"] == 1_577_836_800_000
    assert {field.how for field in mended(record)} == {"clamped", "left_out"}


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (message(created_at=math.nan), "created_at"),
        (message(text=7), "text"),
        (message(item_id=None), "item_id"),
        (message(role="system"), "role"),
        (message(interrupted="yes"), "interrupted"),
        (Scored(created_at=NOW, answer="right", took_s=math.nan), "took_s"),
        (Scored(created_at=NOW, answer="right", took_s=1.0, details={"a": [math.nan]}), "details"),
        (Scored(created_at=NOW, answer="right", took_s=1.0, details={"_id": 1}), "details"),
        (Scored(created_at=NOW, answer="right", took_s=1.0, details={"a": 2**60}), "details"),
        (Scored(created_at=NOW, answer="right", took_s=1.0, details={"a": object()}), "details"),
        (Scored(created_at=NOW, answer="right", took_s=1.0, details={"a": {math.nan}}), "details"),
        (Scored(created_at=NOW, answer="right", took_s=1.0, details=nested(62)), "details"),
        (Scored(created_at=NOW, answer="right", took_s=1.0, details={"a": [0] * 8193}), "details"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_field_and_without_its_value(
    record: Record, field: str
) -> None:
    """What Convex cannot take would hold the whole journal; here it hurts one record."""
    with pytest.raises(RecordError) as caught:
        encode(record)
    assert caught.value.field == field
    assert "yes" not in str(caught.value)


def test_an_apps_value_is_stored_as_deeply_nested_as_convex_takes_it() -> None:
    record = Scored(created_at=NOW, answer="right", took_s=1.0, details=nested(61))

    encode_args("sessions:record", {"records": [{"seq": 0, **wire(record)}]})


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (message(transcript_confidence="high"), "transcript_confidence"),
        (message(transcript_confidence=True), "transcript_confidence"),
        (message(language=object()), "language"),
        (message(metrics=TurnMetrics(e2e_latency_s="slow")), "metrics.e2e_latency_s"),  # type: ignore[arg-type]
        (Scored(created_at=NOW, answer="right", took_s=1.0, hint="no"), "hint"),  # type: ignore[arg-type]
    ],
)
def test_an_optional_field_of_a_wrong_type_costs_no_more_than_itself(
    record: Record, field: str
) -> None:
    """A model's plugin that reports a latency as text must not cost the sentence."""
    assert wire_name(field.rpartition(".")[2]) not in str(wire(record))
    assert mended(record) == [Mended(field, "left_out")]


def test_metrics_that_are_no_numbers_cost_no_sentence() -> None:
    item = ChatMessage(role="user", content=["Good morning"])
    metrics: dict[str, Any] = item.metrics  # type: ignore[assignment]
    metrics.update(started_speaking_at="now", e2e_latency="slow")
    said = wire(MessageRecord.from_item(item, created_at=NOW))

    assert said["text"] == "Good morning"
    assert "startedSpeakingAt" not in said
    assert said["metrics"] == {}


def test_a_text_is_cut_at_64_KiB_by_whole_characters() -> None:
    record = message(text="é" * MAX_TEXT_BYTES)

    text = wire(record)["text"]
    assert text == "é" * (MAX_TEXT_BYTES // 2)
    assert mended(record) == [Mended("text", "truncated")]
    assert len(wire(message(text="a" + "é" * MAX_TEXT_BYTES))["text"].encode()) < MAX_TEXT_BYTES
    assert wire(message(text="x" * MAX_TEXT_BYTES))["text"] == "x" * MAX_TEXT_BYTES


def test_a_name_is_cut_at_1_KiB() -> None:
    assert wire(message(item_id="x" * 5000))["itemId"] == "x" * MAX_NAME_BYTES


class Reported(Record, tag="reported", frozen=True, kw_only=True):
    text_fields: ClassVar[frozenset[str]] = frozenset({"report"})

    report: str
    title: str


@pytest.mark.parametrize("character", ["x", "é"])
def test_an_apps_record_says_which_of_its_strings_are_texts(character: str) -> None:
    fits = character * (5000 // len(character.encode()))
    reported = Reported(created_at=NOW, report=fits, title=fits)
    assert wire(reported)["report"] == fits
    assert len(wire(reported)["title"].encode()) == MAX_NAME_BYTES
    assert mended(reported) == [Mended("title", "truncated")]


def test_a_record_that_escapes_blow_up_stays_below_256_KiB() -> None:
    record = ToolCallRecord(
        created_at=NOW,
        call_id="c",
        name="n",
        arguments="\x01" * MAX_TEXT_BYTES,
        is_error=False,
        output="\x01" * MAX_TEXT_BYTES,
    )
    assert len(encode(record)[0]) <= MAX_RECORD_BYTES
    assert Mended("output", "truncated") in mended(record)


def test_a_lone_surrogate_becomes_a_replacement_character() -> None:
    assert wire(message(text="a\ud800b"))["text"] == "a\ufffdb"
    assert wire(message(text="\ud83d\ude00"))["text"] == "😀"


def test_a_string_of_another_class_is_a_string() -> None:
    """LiveKit's LanguageCode is one, and the encoder refuses it."""

    class LanguageCode(str):
        __slots__ = ()

    assert wire(message(language=LanguageCode("en")))["language"] == "en"


def test_more_than_16_models_are_cut() -> None:
    usage = ModelUsage(type="llm", provider="p", model="m")
    assert len(wire(UsageRecord(created_at=NOW, models=(usage,) * 20))["models"]) == 16


def test_an_app_writes_records_of_its_own() -> None:
    record = Scored(
        created_at=NOW, answer="wrong", took_s=1.5, hint="last", details={"word": "went"}
    )

    assert wire(record) == {
        "kind": "scored",
        "createdAt": NOW_MS,
        "answer": "wrong",
        "tookMs": 1500.0,
        "hint": "last",
        "details": {"word": "went"},
    }


class Rating(enum.Enum):
    """Equal to no number."""

    GOOD = 3


class NumberedRating(enum.IntEnum):
    """Equal to its number."""

    GOOD = 3


@pytest.mark.parametrize("rating", [3, 3.0, NumberedRating.GOOD])
def test_a_choice_among_numbers_is_stored_as_that_number(rating: Any) -> None:
    assert encode(Rated(created_at=NOW, rating=rating))[0].endswith(b'"rating":3}')


@pytest.mark.parametrize("rating", [0, 5, 2.5, True, "3", math.nan, None, Rating.GOOD])
def test_what_is_none_of_the_numbers_is_refused(rating: Any) -> None:
    """True equals 1; Convex would refuse it with an opaque error, and hold the journal."""
    with pytest.raises(RecordError) as caught:
        encode(Rated(created_at=NOW, rating=rating))
    assert caught.value.field == "rating"


@given(
    created_at=st.floats(1.6e9, 4e9) | st.just(0.0),
    text=st.text(max_size=40),
    confidence=st.none() | st.floats() | st.integers(),
    instant=st.none() | st.floats(1.6e9, 4e9),
    delay=st.none() | st.floats(),
)
@settings(max_examples=200, deadline=None)
def test_the_quick_way_and_the_careful_way_agree(
    created_at: float, text: str, confidence: float | None, instant: float | None, delay: float
) -> None:
    record = message(
        created_at=created_at,
        text=text,
        transcript_confidence=confidence,
        started_speaking_at=instant,
        metrics=TurnMetrics(llm_ttft_s=delay),
    )
    careful = encoding._encode(record, [], MAX_TEXT_BYTES)
    assert encode(record)[0] == careful


def test_a_message_is_made_from_livekits_item() -> None:
    item = ChatMessage(
        id="item_9",
        role="assistant",
        content=["Hello ", "you"],
        interrupted=True,
        transcript_confidence=0.9,
        created_at=NOW - 10,
        metrics={"started_speaking_at": NOW - 9, "llm_node_ttft": 0.5, "e2e_latency": 1.0},
    )

    assert MessageRecord.from_item(item, created_at=NOW, language="en") == MessageRecord(
        created_at=NOW,
        item_id="item_9",
        role="assistant",
        text="Hello \nyou",
        interrupted=True,
        language="en",
        transcript_confidence=0.9,
        started_speaking_at=NOW + 1,
        metrics=TurnMetrics(llm_ttft_s=0.5, e2e_latency_s=1.0),
    )


def test_what_a_recogniser_does_not_tell_is_left_out() -> None:
    """LiveKit has "" and 0 there, which would be no language and no trust at all."""
    item = ChatMessage(role="user", content=["Hello"], transcript_confidence=0.0)

    record = MessageRecord.from_item(item, created_at=NOW, language="")

    assert not {"language", "transcriptConfidence"} & set(wire(record))


def test_a_tool_call_is_made_with_and_without_its_output() -> None:
    call = FunctionCall(call_id="c1", name="look_up", arguments='{"word":"go"}')
    output = FunctionCallOutput(call_id="c1", name="look_up", output="went", is_error=False)

    with_output = ToolCallRecord.from_call(call, output, created_at=NOW)
    assert (with_output.output, with_output.is_error) == ("went", False)
    assert ToolCallRecord.from_call(call, None, created_at=NOW).output is None


def test_usage_is_made_from_livekits_snapshot() -> None:
    usage = AgentSessionUsage(
        model_usage=[
            LLMModelUsage(provider="openai", model="gpt", input_tokens=5, output_tokens=7),
            TTSModelUsage(provider="openai", model="tts", characters_count=9, audio_duration=1.5),
        ]
    )
    models = wire(UsageRecord.from_usage(usage, created_at=NOW))["models"]

    assert models == [
        {"type": "llm", "provider": "openai", "model": "gpt", "inputTokens": 5, "outputTokens": 7},
        {
            "type": "tts",
            "provider": "openai",
            "model": "tts",
            "inputTokens": 0,
            "outputTokens": 0,
            "characters": 9,
            "audioMs": 1500.0,
        },
    ]
