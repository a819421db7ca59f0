"""What a session writes: one type per kind of record, and how each becomes bytes.

In Python a field whose name ends in `_at` is an instant in Unix seconds and one that ends in `_s`
is a duration in seconds. On the wire both are milliseconds (`createdAt`, `transcriptionDelayMs`).
`encoding.py` converts, and nothing else does.

An app writes records of its own by subclassing `Record`:

    class SlideShown(Record, tag="slideShown", frozen=True, kw_only=True):
        slide: int

    recorder.record(SlideShown(created_at=time.time(), slide=3))

Its functions must know the kind: `sessions:record` holds a journal with a kind it cannot check.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .encoding import RecordError, Wire
from .limits import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from livekit.agents.llm import AgentHandoff, ChatMessage, FunctionCall, FunctionCallOutput
    from livekit.agents.metrics import AgentSessionUsage
    from livekit.agents.voice.events import ErrorEvent

# How long a record may wait for company before it is sent on its own.
# What follows a message in the same moment is the request to the model for its answer, and that goes
# first: to encode and send a batch takes 1 ms of the loop.
AT_ONCE_S = 0.01
# A final transcript is soon followed by the message that absorbs it.
SOON_S = 2.0
WITH_THE_NEXT_S = 15.0

_MAX_TEXT_LOOKED_AT = 4 * MAX_TEXT_BYTES


class TurnMetrics(Wire, frozen=True, kw_only=True):
    """Latencies of one turn, in seconds; which of them exist depends on role and models."""

    transcription_delay_s: float | None = None
    end_of_turn_delay_s: float | None = None
    turn_completed_delay_s: float | None = None
    e2e_latency_s: float | None = None
    llm_ttft_s: float | None = None
    tts_ttfb_s: float | None = None
    playback_latency_s: float | None = None


class ModelUsage(Wire, frozen=True, kw_only=True):
    """What one model has used since the session began."""

    type: str
    provider: str
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    characters: int | None = None
    audio_s: float | None = None


class Record(Wire, tag_field="kind", frozen=True, kw_only=True):
    """One line of a run's journal. `seq` is given by the outbox.

    Attributes:
        created_at: Unix seconds.
    """

    deliver_within_s: ClassVar[float] = AT_ONCE_S
    """Seconds this kind may wait on disk for others to share its request."""

    created_at: float


class RunStart(Record, frozen=True, kw_only=True):
    """What the first record of a run says, whether it begins a session or carries one on."""

    session_key: str
    room: str
    job_id: str
    agent_name: str
    lesson_id: str | None = None
    participant_identity: str | None = None


class SessionStartedRecord(RunStart, tag="sessionStarted", frozen=True, kw_only=True):
    """The first record of a run."""


class SessionResumedRecord(RunStart, tag="sessionResumed", frozen=True, kw_only=True):
    """The first record of a run that carries on a session begun by another run.

    Attributes:
        last_seen_at: the last that is known of the session, in Unix seconds. Longer before
            `created_at` than the grace period, this run becomes a session of its own.
    """

    last_seen_at: float | None = None


class MessageRecord(Record, tag="message", frozen=True, kw_only=True):
    """One chat item as LiveKit committed it: what was said, or played until it was interrupted."""

    item_id: str
    role: Literal["user", "assistant"]
    text: str
    interrupted: bool
    language: str | None = None
    transcript_confidence: float | None = None
    started_speaking_at: float | None = None
    stopped_speaking_at: float | None = None
    metrics: TurnMetrics | None = None

    @classmethod
    def from_item(
        cls, item: ChatMessage, *, created_at: float, language: str | None = None
    ) -> MessageRecord:
        """The record of a user's or assistant's item.

        Args:
            created_at: Unix seconds; the item's own, guarded against jumps of the clock.
            language: of the last final transcript, which is where LiveKit reports it.
        """
        if item.role not in ("user", "assistant"):
            raise RecordError("message", "role", "is neither user nor assistant")
        said = item.metrics
        shift_s = created_at - item.created_at
        return cls(
            created_at=created_at,
            item_id=item.id,
            role=item.role,
            text=(item.text_content if item.role == "user" else _answer_in(item)) or "",
            interrupted=item.interrupted,
            # "" and 0 are what LiveKit has where the recogniser does not tell.
            language=language or None,
            transcript_confidence=item.transcript_confidence or None,
            started_speaking_at=_shifted(said.get("started_speaking_at"), shift_s),
            stopped_speaking_at=_shifted(said.get("stopped_speaking_at"), shift_s),
            metrics=_turn_metrics(said) if said else None,
        )


class TranscriptRecord(Record, tag="transcript", frozen=True, kw_only=True):
    """A final transcript: on disk before the turn is committed, and the only trace if it never is."""

    deliver_within_s: ClassVar[float] = SOON_S

    text: str
    item_id: str | None = None
    language: str | None = None
    speaker_id: str | None = None


class ToolCallRecord(Record, tag="toolCall", frozen=True, kw_only=True):
    """One call of a function tool and what came of it. `arguments` is JSON text.

    A tool that reports before it is done is recorded twice: with what it reported, then with its
    result, which takes the place of the report.

    Attributes:
        result_of: `seq` of this run's record of the same call that this one replaces. Not the
            `call_id`, which some models give to every call.
    """

    deliver_within_s: ClassVar[float] = WITH_THE_NEXT_S

    call_id: str
    name: str
    arguments: str
    is_error: bool
    output: str | None = None
    result_of: int | None = None

    @classmethod
    def from_call(
        cls,
        call: FunctionCall,
        output: FunctionCallOutput | None,
        *,
        created_at: float,
        result_of: int | None = None,
        failed: bool = False,
    ) -> ToolCallRecord:
        """The record of a call and, unless the tool gave none, its output.

        Args:
            failed: it came to nothing; counts where there is no output to say so.
        """
        return cls(
            created_at=created_at,
            call_id=call.call_id,
            name=call.name,
            arguments=call.arguments,
            output=None if output is None else output.output,
            is_error=failed if output is None else output.is_error,
            result_of=result_of,
        )


class HandoffRecord(Record, tag="handoff", frozen=True, kw_only=True):
    """Another agent has taken over, or, without `old_agent`, the first one has begun."""

    deliver_within_s: ClassVar[float] = WITH_THE_NEXT_S

    item_id: str
    new_agent: str
    old_agent: str | None = None

    @classmethod
    def from_item(cls, item: AgentHandoff, *, created_at: float) -> HandoffRecord:
        """The record of a handoff; agents are named by their ids."""
        return cls(
            created_at=created_at,
            item_id=item.id,
            new_agent=item.new_agent_id,
            old_agent=item.old_agent_id,
        )


class StateChangedRecord(Record, tag="stateChanged", frozen=True, kw_only=True):
    """The user began to speak, the agent to think: LiveKit's `user_state` and `agent_state`.

    Only written where it was asked for: a lesson has more of these than of all else together.
    """

    deliver_within_s: ClassVar[float] = WITH_THE_NEXT_S

    who: Literal["user", "agent"]
    state: str


class UsageRecord(Record, tag="usage", frozen=True, kw_only=True):
    """What the models have used since the session began: a snapshot, the last one counts."""

    deliver_within_s: ClassVar[float] = WITH_THE_NEXT_S

    models: tuple[ModelUsage, ...]

    @classmethod
    def from_usage(cls, usage: AgentSessionUsage, *, created_at: float) -> UsageRecord:
        """The record of LiveKit's cumulative usage."""
        return cls(
            created_at=created_at,
            models=tuple(
                ModelUsage(
                    type=entry.type.removesuffix("_usage"),
                    provider=entry.provider,
                    model=entry.model,
                    input_tokens=getattr(entry, "input_tokens", None),
                    output_tokens=getattr(entry, "output_tokens", None),
                    characters=getattr(entry, "characters_count", None),
                    audio_s=getattr(entry, "audio_duration", None),
                )
                for entry in usage.model_usage
            ),
        )


class ErrorRecord(Record, tag="error", frozen=True, kw_only=True):
    """A model failed. Only types are kept: an error's text may quote what somebody said."""

    deliver_within_s: ClassVar[float] = WITH_THE_NEXT_S

    source: str
    error_type: str
    recoverable: bool

    @classmethod
    def from_event(cls, event: ErrorEvent, *, created_at: float) -> ErrorRecord:
        """The record of LiveKit's `error` event."""
        return cls(
            created_at=created_at,
            source=type(event.source).__name__,
            error_type=error_type(event.error),
            recoverable=bool(getattr(event.error, "recoverable", False)),
        )


class SessionEndedRecord(Record, tag="sessionEnded", frozen=True, kw_only=True):
    """The agent session closed; `reason` is LiveKit's `CloseReason`."""

    reason: str
    error_type: str | None = None


class RunEndedRecord(Record, tag="runEnded", frozen=True, kw_only=True):
    """The last record of a run; `reason` is why the job ended."""

    reason: str


class LostRecord(Record, tag="lost", frozen=True, kw_only=True):
    """Records `from_seq` to `to_seq` are gone. Its own `seq` is `to_seq`."""

    from_seq: int
    to_seq: int
    reason: str


class SetAsideRecord(Record, tag="setAside", frozen=True, kw_only=True):
    """Stands where a record was that Convex refused for good."""

    code: str
    of_kind: str
    field: str | None = None


RECORD_TYPES: tuple[type[Record], ...] = (
    SessionStartedRecord,
    SessionResumedRecord,
    MessageRecord,
    TranscriptRecord,
    ToolCallRecord,
    HandoffRecord,
    StateChangedRecord,
    UsageRecord,
    ErrorRecord,
    SessionEndedRecord,
    RunEndedRecord,
    LostRecord,
    SetAsideRecord,
)


def kind_of(record: Record | type[Record]) -> str:
    """The `kind` on the wire."""
    return str(record.__struct_config__.tag)


def error_type(error: object) -> str:
    """The type of the exception within one of LiveKit's errors, or of the error itself."""
    inner = getattr(error, "error", None)
    return type(inner if isinstance(inner, BaseException) else error).__name__


def _answer_in(item: ChatMessage) -> str | None:
    """What the assistant said; of a model gone wild, somewhat more than is kept of it.

    LiveKit takes the markup out of an answer, which takes longer than the write where there is none,
    and 6 ms per MB where there is much.
    """
    content = item.content
    if len(content) == 1 and isinstance(text := content[0], str) and "<" not in text:
        return text
    for part in content:
        if isinstance(part, str) and len(part) > _MAX_TEXT_LOOKED_AT:
            raw = item.raw_text_content or ""
            item = item.model_copy(update={"content": [raw[:_MAX_TEXT_LOOKED_AT]]})
            break
    return item.text_content


def _shifted(instant: Any, shift_s: float) -> Any:
    # The metrics are a plain dict that any model's plugin fills: what is no number there is left
    # out by the encoder, which names it.
    return instant + shift_s if isinstance(instant, (int, float)) else instant


def _turn_metrics(said: Mapping[str, Any]) -> TurnMetrics | None:
    metrics = TurnMetrics(
        transcription_delay_s=said.get("transcription_delay"),
        end_of_turn_delay_s=said.get("end_of_turn_delay"),
        turn_completed_delay_s=said.get("on_user_turn_completed_delay"),
        e2e_latency_s=said.get("e2e_latency"),
        llm_ttft_s=said.get("llm_node_ttft"),
        tts_ttfb_s=said.get("tts_node_ttfb"),
        playback_latency_s=said.get("playback_latency"),
    )
    return metrics if metrics != TurnMetrics() else None
