import re

import pytest
from livekit.plugins import convex

from livekit.plugins.convex import errors
from livekit.plugins.convex.transport import BUSY_STATUSES


def test_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = re.findall(r"^[ │├└─]*(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)

    assert sorted(drawn) == sorted(errors.__all__)
    assert set(drawn) <= set(convex.__all__)


def test_busy_answers_are_listed_as_they_are_taken() -> None:
    line = next(line for line in (errors.__doc__ or "").splitlines() if "BusyError" in line)

    assert {int(status) for status in re.findall(r"\b[45]\d\d\b", line)} == BUSY_STATUSES


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (convex.TransportError("x"), True),
        (convex.TransportError("x", retryable=False, status=404), False),
        (convex.RequestTimeoutError("x"), True),
        (convex.BusyError("x", retry_after_s=3.0), True),
        (convex.AuthenticationError("x"), False),
        (convex.FunctionError("a:b"), False),
        (convex.EncodingError("x", path="args.y"), False),
        (convex.ConfigurationError("x"), False),
    ],
)
def test_every_error_says_whether_the_same_call_may_be_made_again(
    error: convex.ConvexClientError, retryable: bool
) -> None:
    assert isinstance(error, convex.ConvexClientError)
    assert error.retryable is retryable


def test_function_error_carries_the_data_and_its_code() -> None:
    error = convex.FunctionError("sessions:record", data={"code": "gap", "expected": 3.0})

    assert error.code == "gap"
    assert error.data == {"code": "gap", "expected": 3.0}
    assert str(error) == "sessions:record: the function threw ConvexError with code 'gap'"


@pytest.mark.parametrize("data", ["gap", ["gap"], {"code": 3.0}, {}, None])
def test_data_without_a_code_has_none(data: convex.ConvexValue) -> None:
    assert convex.FunctionError("a:b", data=data).code is None


@pytest.mark.parametrize(
    ("data", "server_message"),
    [
        ({"code": "I was so ashamed yesterday"}, ""),
        ({"message": "I was so ashamed yesterday"}, "Uncaught ConvexError: ashamed"),
        ("ashamed", ""),
        (None, "ArgumentValidationError: Value does not match. Value: `ashamed`"),
        (None, "[Request ID: 4f] Server Error\nUncaught Error: ashamed"),
    ],
)
def test_text_of_a_function_error_quotes_nothing_a_student_said(
    data: convex.ConvexValue, server_message: str
) -> None:
    error = convex.FunctionError("a:b", data=data, server_message=server_message)

    assert "ashamed" not in str(error)


def test_function_error_names_the_request_for_the_servers_log() -> None:
    error = convex.FunctionError("a:b", server_message="[Request ID: 4f1c] Server Error")

    assert str(error) == (
        "a:b: the function failed on the server; its own log has the error (request 4f1c)"
    )


def test_missing_function_says_to_deploy() -> None:
    error = convex.FunctionError("a:b", server_message="Could not find public function for 'a:b'.")

    assert "npx convex deploy" in str(error)
