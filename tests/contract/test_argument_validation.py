"""What the backend itself refuses before our code runs, as docs/data-model.md lists it.

Arguments are checked before it is asked who is calling: whoever has a token may ask here.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from livekit.plugins import convex

if TYPE_CHECKING:
    from tests.contract.conftest import LocalDeployment

NEW_STUDENT = {
    "name": "Ada",
    "level": "A2",
    "nativeLanguage": "es",
    "targetLanguage": "en",
    "timeZone": "UTC",
    "goals": [],
    "interests": [],
}
REVIEW = {"word": "bread", "language": "en", "rating": 3, "reviewId": "1"}
MESSAGE = {
    "kind": "message",
    "seq": 0,
    "createdAt": 1_760_000_000_000,
    "itemId": "item_1",
    "role": "user",
    "text": "Hello",
    "interrupted": False,
}


def batch(**changes: Any) -> dict[str, Any]:
    return {"version": 1, "runId": str(uuid.uuid4()), "records": [{**MESSAGE, **changes}]}


def call(
    deployment: LocalDeployment, function: str, args: dict[str, Any], *, token: str | None = None
) -> tuple[int, dict[str, Any]]:
    """Plain HTTP: the plugin's own client would mend some of it, and refuse to send the rest."""
    token = token or convex.AgentToken(deployment.key, subject="guest:bad-input").value()
    request = urllib.request.Request(
        f"{deployment.url}/api/mutation",
        data=json.dumps({"path": function, "args": args, "format": "json"}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        ("students:create", {**NEW_STUDENT, "level": "D1"}),
        ("sessions:record", batch(role="system")),
        ("sessions:record", batch(kind="thought")),
        ("vocabulary:review", {**REVIEW, "rating": -1}),
        ("vocabulary:review", {**REVIEW, "rating": 5}),
        ("sessions:record", batch(seq="0")),
        ("sessions:record", batch(language=None)),
        ("sessions:record", batch(langauge="en")),
        ("students:create", {**NEW_STUDENT, "courseId": "not-an-id"}),
        ("students:create", {name: NEW_STUDENT[name] for name in NEW_STUDENT if name != "name"}),
    ],
    ids=[
        "level",
        "role",
        "kind",
        "negative rating",
        "rating",
        "type",
        "null",
        "misspelt",
        "id",
        "missing",
    ],
)
def test_arguments_of_another_shape_are_refused_by_the_validator(
    convex_local: LocalDeployment, function: str, args: dict[str, Any]
) -> None:
    status, answer = call(convex_local, function, args)

    assert (status, answer["status"]) == (200, "error")
    assert "ArgumentValidationError" in answer["errorMessage"]
    assert "errorData" not in answer


def test_half_a_surrogate_pair_is_no_text(convex_local: LocalDeployment) -> None:
    _, answer = call(convex_local, "sessions:record", batch(text="a\ud800b"))

    assert "unpaired surrogate" in answer["errorMessage"]
    assert "errorData" not in answer


def test_emoji_and_right_to_left_text_are_text(convex_local: LocalDeployment) -> None:
    _, answer = call(convex_local, "sessions:record", batch(text="👩‍🏫 مرحبا שלום"))

    assert answer["status"] == "success"


@pytest.mark.parametrize(
    ("field", "code", "limit"),
    [("text", "text_too_long", 65_536), ("itemId", "field_too_long", 1_024)],
)
def test_what_would_make_a_document_of_1_mib_is_over_our_own_limits(
    convex_local: LocalDeployment, field: str, code: str, limit: int
) -> None:
    _, answer = call(convex_local, "sessions:record", batch(**{field: "a" * 1_048_576}))

    assert answer["errorData"] == {
        "code": code,
        "message": f"sessions:record: record 0 (message): {field} is 1048576 bytes; "
        f"the limit is {limit}",
        "seq": 0,
        "field": field,
        "limit": limit,
    }


def test_a_call_over_the_servers_limit_is_refused_whole(convex_local: LocalDeployment) -> None:
    status, _ = call(convex_local, "sessions:record", batch(text="a" * (17 * 1_048_576)))

    assert status == 400


@pytest.mark.parametrize("function", ["seed:demo", "sessions:forget"])
def test_internal_functions_are_not_there(convex_local: LocalDeployment, function: str) -> None:
    _, answer = call(convex_local, function, {})

    assert "Could not find public function" in answer["errorMessage"]


def test_a_token_that_is_not_believed_is_refused_by_the_server(
    convex_local: LocalDeployment,
) -> None:
    key = convex.AgentKey.generate(issuer=convex_local.key.issuer)
    forged = convex.AgentToken(key, subject="guest:bad-input").value()

    assert call(convex_local, "sessions:record", batch(), token=forged)[0] == 401
