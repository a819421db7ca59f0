"""Who a session is for, as the job's metadata says."""

from __future__ import annotations

import json

import pytest

from livekit.plugins.convex import SessionIdentity


def test_everything_in_the_metadata_is_taken() -> None:
    named = {
        "student_id": "k57",
        "lesson_id": "l1",
        "session_key": "s1",
        "participant_identity": "sam",
    }
    identity = SessionIdentity.from_metadata(json.dumps({**named, "other": [1]}))

    assert identity == SessionIdentity(**named)
    assert identity.participant_identity == "sam"


@pytest.mark.parametrize("metadata", ["{}", '{"student_id": null}', '{"student_id": ""}'])
def test_nobody_named_is_a_guest(metadata: str) -> None:
    identity = SessionIdentity.from_metadata(metadata).named("run_1")

    assert identity.session_key == "run_1"
    assert identity.subject == "guest:run_1"


def test_a_student_is_the_subject_and_the_key_stays() -> None:
    identity = SessionIdentity(student_id="k57", session_key="s1").named("run_1")

    assert identity.session_key == "s1"
    assert identity.subject == "student:k57"


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ("", "has no metadata"),
        ("  ", "has no metadata"),
        ("sam@example.org", "is not JSON"),
        ('["sam@example.org"]', "not an object"),
        ('{"student_id": 5}', "student_id that is not a string"),
        ('{"lesson_id": {"a": "sam@example.org"}}', "lesson_id that is not a string"),
        (json.dumps({"session_key": "x" * 2000}), "session_key longer than 1016 bytes"),
        ('{"participant_identity": []}', "participant_identity that is not a string"),
        pytest.param("[" * 50_000, "nested too deeply", id="nested"),
        pytest.param('{"a":' * 50_000, "nested too deeply", id="nested objects"),
        (r'{"student_id": "\ud800"}', "student_id that holds half a surrogate pair"),
        (r'{"session_key": "x\udc00"}', "session_key that holds half a surrogate pair"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_that_quotes_nothing(
    metadata: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        SessionIdentity.from_metadata(metadata)
    assert "sam@" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["\ud800", "x" * 2000, 7])
@pytest.mark.parametrize(
    "field", ["student_id", "session_key", "lesson_id", "participant_identity"]
)
def test_one_made_by_hand_holds_no_less_than_the_journal_can(field: str, value: str) -> None:
    """Else the journal's header or the token would fail, in the middle of a lesson's start."""
    with pytest.raises(ValueError, match=f"the identity has a {field} "):
        SessionIdentity(**{field: value})


def test_a_guest_has_no_subject_before_a_key() -> None:
    with pytest.raises(ValueError, match="session_key"):
        _ = SessionIdentity().subject
