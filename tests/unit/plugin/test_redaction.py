"""What is stored in place of a record that the `redact` hook dropped, or failed on."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

import pytest

from livekit.plugins.convex import MessageRecord, ModelUsage, Record, RecordError
from livekit.plugins.convex.encoding import encode, fields_of
from livekit.plugins.convex.records import RECORD_TYPES, kind_of
from livekit.plugins.convex.redaction import Redaction, placeholder
from tests.unit.plugin.test_golden_journal import RECORDS_V1

NOW = 1_795_474_184.5

# Strings of the plugin's own kinds that say what somebody said, or a tool answered.
TEXTS = {
    "message": {"text"},
    "transcript": {"text"},
    "toolCall": {"arguments", "output"},
}


class Corrected(Record, tag="corrected", frozen=True, kw_only=True):
    """A record as an app writes them."""

    deliver_within_s: ClassVar[float] = 15.0
    correction_id: str
    said: str
    severity: Literal["low", "high"]
    took_s: float
    language: str | None = None
    usage: ModelUsage | None = None
    details: dict[str, Any] | None = None


class Shaped(Record, tag="shaped", frozen=True, kw_only=True):
    """One whose shape nobody but the app knows."""

    details: dict[str, Any]


@pytest.mark.parametrize("record", RECORDS_V1, ids=kind_of)
def test_a_placeholder_keeps_all_but_the_texts(record: Record) -> None:
    kept, stored = json.loads(encode(record)[0]), json.loads(encode(placeholder(record))[0])

    texts = TEXTS.get(kind_of(record), set())
    assert {name for name in kept if stored[name] != kept[name]} == texts & set(kept)
    assert all("[redacted]" in stored[name] for name in texts & set(kept))
    assert stored.keys() == kept.keys()


def test_a_tools_arguments_stay_json() -> None:
    call = next(record for record in RECORDS_V1 if kind_of(record) == "toolCall")
    assert json.loads(placeholder(call).arguments) == "[redacted]"  # type: ignore[attr-defined]


def test_of_the_plugins_own_kinds_no_other_string_says_anything() -> None:
    """A new field has to be put on one side or the other."""
    named = {
        (kind_of(record), field.name)
        for record in RECORD_TYPES
        for field in fields_of(record)
        if field.role == "name"
    }
    identifiers = {
        *((f"session{how}", name) for how in ("Started", "Resumed") for name in
          ("session_key", "room", "job_id", "agent_name", "lesson_id", "participant_identity")),
        ("message", "item_id"),
        ("message", "language"),
        ("transcript", "item_id"),
        ("transcript", "language"),
        ("transcript", "speaker_id"),
        ("toolCall", "call_id"),
        ("toolCall", "name"),
        ("handoff", "item_id"),
        ("handoff", "old_agent"),
        ("handoff", "new_agent"),
        ("stateChanged", "state"),
        ("error", "source"),
        ("error", "error_type"),
        ("sessionEnded", "reason"),
        ("sessionEnded", "error_type"),
        ("runEnded", "reason"),
        ("lost", "reason"),
        ("setAside", "code"),
        ("setAside", "of_kind"),
        ("setAside", "field"),
    }  # fmt: skip
    assert named == identifiers


def test_of_an_apps_kind_every_string_goes_that_is_no_identifier() -> None:
    record = Corrected(
        created_at=NOW,
        correction_id="c1",
        said="I goed",
        severity="low",
        took_s=1.5,
        language="en",
        usage=ModelUsage(type="llm", provider="p", model="m", input_tokens=7),
        details={"word": "goed"},
    )

    assert placeholder(record) == Corrected(
        created_at=NOW,
        correction_id="c1",
        said="[redacted]",
        severity="low",
        took_s=1.5,
        language="en",
        usage=ModelUsage(
            type="[redacted]", provider="[redacted]", model="[redacted]", input_tokens=7
        ),
    )


def test_an_apps_own_shape_that_must_be_there_cannot_be_redacted() -> None:
    """Nothing is known to put in its place, so the record is refused: closed, and counted."""
    with pytest.raises(RecordError, match=r"shaped\.details cannot be redacted"):
        placeholder(Shaped(created_at=NOW, details={"word": "goed"}))


def said(text: str = "private words") -> MessageRecord:
    return MessageRecord(
        created_at=NOW, item_id="item_1", role="user", text=text, interrupted=False
    )


def test_what_the_hook_returns_is_stored() -> None:
    assert Redaction(lambda record: said("***"), "run_1").apply(said()) == said("***")


def test_none_drops_what_was_said_and_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    assert Redaction(lambda record: None, "run_1").apply(said()) == said("[redacted]")
    assert caplog.records == []


def fail(record: Record) -> Record:
    raise KeyError("private words")


async def late(record: Record) -> Record:
    return record


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        (fail, "KeyError"),
        (lambda record: "***", "returned str"),
        (lambda record: Shaped(created_at=NOW, details={}), "returned Shaped"),
        (lambda record: said(None), "RecordError"),  # type: ignore[arg-type]
    ],
)
def test_a_hook_that_fails_leaves_a_placeholder_and_is_named_once(
    hook: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    redaction = Redaction(hook, "run_1")

    assert redaction.apply(said()) == said("[redacted]")
    assert redaction.apply(said()) == said("[redacted]")
    assert [record.message for record in caplog.records] == ["recorder.redact_failed"]
    assert (caplog.records[0].error, caplog.records[0].kind) == (told, "message")  # type: ignore[attr-defined]
    assert "private" not in str(caplog.records[0].__dict__)


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_hook_that_is_async_is_one_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    assert Redaction(late, "run_1").apply(said()) == said("[redacted]")  # type: ignore[arg-type]
    assert caplog.records[0].error == "returned coroutine"  # type: ignore[attr-defined]


def test_each_way_of_failing_is_named(caplog: pytest.LogCaptureFixture) -> None:
    failures = iter([KeyError(), KeyError(), ValueError()])

    def hook(record: Record) -> Record:
        raise next(failures)

    redaction = Redaction(hook, "run_1")
    for _ in range(3):
        redaction.apply(said())
    assert [r.error for r in caplog.records] == ["KeyError", "ValueError"]  # type: ignore[attr-defined]
