"""Journals as earlier versions wrote them: kept for ever, read and delivered by every later one.

A journal may lie on a disk for weeks before it is delivered. If what this version writes has to
change, give it a new format or record version and a golden journal of its own beside the old ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit.plugins.convex.journal import Journal
from livekit.plugins.convex.outbox import Outbox
from livekit.plugins.convex.records import (
    RECORD_TYPES,
    ErrorRecord,
    HandoffRecord,
    LostRecord,
    MessageRecord,
    ModelUsage,
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
from livekit.plugins.convex.sender import Sender

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex, Outboxes

GOLDEN = Path(__file__).parents[2] / "golden"
AT = 1_795_474_184.5

# What is in journal-v1.journal: each kind of record version 1, once with all its fields.
RECORDS_V1 = (
    SessionStartedRecord(
        created_at=AT,
        session_key="session_golden",
        room="room-golden",
        job_id="AJ_golden",
        agent_name="emma",
        lesson_id="lesson_golden",
        participant_identity="sam",
    ),
    TranscriptRecord(
        created_at=AT + 2, text="I goed home.", item_id="item_1", language="en", speaker_id="S1"
    ),
    MessageRecord(
        created_at=AT + 2.5,
        item_id="item_1",
        role="user",
        text='I "goed" home 😀\n\u2028è vero',
        interrupted=False,
        language="en",
        transcript_confidence=0.75,
        started_speaking_at=AT + 1,
        stopped_speaking_at=AT + 2,
        metrics=TurnMetrics(
            transcription_delay_s=0.25, end_of_turn_delay_s=0.5, turn_completed_delay_s=0.0625
        ),
    ),
    ToolCallRecord(
        created_at=AT + 3,
        call_id="call_1",
        name="remember_correction",
        arguments='{"said":"goed","target":"went"}',
        is_error=False,
        output="noted",
    ),
    MessageRecord(
        created_at=AT + 4,
        item_id="item_2",
        role="assistant",
        text="You went home?",
        interrupted=True,
        started_speaking_at=AT + 4,
        stopped_speaking_at=AT + 6,
        metrics=TurnMetrics(
            e2e_latency_s=1.5, llm_ttft_s=0.5, tts_ttfb_s=0.25, playback_latency_s=0.125
        ),
    ),
    UsageRecord(
        created_at=AT + 5,
        models=(
            ModelUsage(
                type="llm", provider="openai", model="gpt", input_tokens=11, output_tokens=7
            ),
            ModelUsage(type="tts", provider="openai", model="tts", characters=14, audio_s=2.5),
        ),
    ),
    ErrorRecord(created_at=AT + 6, source="STT", error_type="APITimeoutError", recoverable=True),
    SetAsideRecord(created_at=AT + 7, code="text_too_long", of_kind="message", field="text"),
    SessionResumedRecord(
        created_at=AT + 8,
        session_key="session_golden",
        room="room-golden",
        job_id="AJ_golden",
        agent_name="emma",
        lesson_id="lesson_golden",
        participant_identity="sam",
    ),
    LostRecord(created_at=AT + 9, from_seq=9, to_seq=9, reason="outbox_full"),
    HandoffRecord(created_at=AT + 10, item_id="item_3", old_agent="tutor", new_agent="examiner"),
    StateChangedRecord(created_at=AT + 11, who="agent", state="thinking"),
    ToolCallRecord(
        created_at=AT + 12,
        call_id="call_1",
        name="remember_correction",
        arguments='{"said":"goed","target":"went"}',
        is_error=True,
        output="not today",
        result_of=3,
    ),
    SessionEndedRecord(created_at=AT + 13, reason="error", error_type="APIError"),
    RunEndedRecord(created_at=AT + 14, reason="room disconnected"),
)


def write_v1(outboxes: Outboxes) -> bytes:
    header = outboxes.header(
        "run_golden_v1", session_key="session_golden", started_at_ms=AT * 1000, steady_at_ms=1234.5
    )
    outbox = Outbox.open(outboxes.directory, header)
    for record in RECORDS_V1:
        outbox.append(record)
    outbox.journal.close()
    return outbox.journal.path.read_bytes()


def test_this_version_writes_format_1_to_the_byte(outboxes: Outboxes) -> None:
    assert write_v1(outboxes) == (GOLDEN / "journal-v1.journal").read_bytes()


def test_every_kind_of_record_is_in_the_newest_golden_journal() -> None:
    assert {type(record) for record in RECORDS_V1} == set(RECORD_TYPES)


@pytest.mark.parametrize("name", ["journal-v1"])
async def test_a_golden_journal_is_delivered_as_it_always_was(
    name: str, tmp_path: Path, folding: FoldingConvex
) -> None:
    path = tmp_path / f"{name}.journal"
    shutil.copy(GOLDEN / path.name, path)
    sender = Sender(Journal.adopt(path), folding)

    assert await sender.drain() is None
    assert sender.finish()

    expected = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    assert folding.rows == {expected["runId"]: expected["records"]}
    assert not path.exists()
