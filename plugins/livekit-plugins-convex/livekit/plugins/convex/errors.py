"""Errors of the plugin. `.retryable` answers: may the same call be made again?

ConvexClientError
├── TransportError          no answer, or not a Convex answer; retryable, unless the
│   │                       address is wrong. `.status` if there was an HTTP answer
│   └── RequestTimeoutError retryable: the deadline passed
├── BusyError               retryable: 408, 421, 425, 429, 503; `.retry_after_s` as the server asks
├── AuthenticationError     the token was refused twice (401), or may not do this (403)
├── FunctionError           the function threw; `.data` and `.code` if it threw ConvexError
├── EncodingError           a value Convex cannot hold, named by its path; nothing was sent
└── ConfigurationError      an address or key that cannot work; nothing was sent (a ValueError too)

OutboxError
├── OutboxFullError         no room for the record; nothing was stored
├── ErasedError             the run's student was erased; nothing of it is kept any more
└── JournalLockedError      another process owns this journal

`.retryable` says that the call may succeed if repeated. Whether a repeat does harm is the
function's own affair: after a TransportError or a BusyError a mutation may have been committed,
its answer lost. Send mutations that are safe to repeat.

No message holds an argument or a result, since those may be what somebody said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .values import ConvexValue

__all__ = [
    "AuthenticationError",
    "BusyError",
    "ConfigurationError",
    "ConvexClientError",
    "EncodingError",
    "ErasedError",
    "FunctionError",
    "JournalLockedError",
    "OutboxError",
    "OutboxFullError",
    "RequestTimeoutError",
    "TransportError",
]


class ConvexClientError(Exception):
    """A call to Convex did not succeed.

    Attributes:
        retryable: the same call may succeed if made again.
        retry_after_s: seconds the server asked to wait, if it did.
    """

    def __init__(
        self, message: str, *, retryable: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class TransportError(ConvexClientError):
    """No answer arrived, or one that Convex does not give.

    Attributes:
        status: HTTP status of the answer, or None if there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after_s=retry_after_s)
        self.status = status


class RequestTimeoutError(TransportError):
    """The caller's deadline passed; whether the function ran is unknown."""


class BusyError(ConvexClientError):
    """Convex asks to come back later.

    Attributes:
        status: 408, 421, 425, 429 or 503.
        retry_after_s: seconds the server asked to wait, if it did.
    """

    def __init__(
        self, message: str, *, status: int = 503, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retryable=True, retry_after_s=retry_after_s)
        self.status = status


class AuthenticationError(ConvexClientError):
    """Convex refuses the token, also after it was renewed once, or what it may do.

    Attributes:
        status: 401 or 403; None if it was refused over a WebSocket.
        server_time: the server's clock in Unix seconds, if its answer told it.
    """

    def __init__(
        self, message: str, *, status: int | None = None, server_time: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.server_time = server_time


class FunctionError(ConvexClientError):
    """The function threw.

    Attributes:
        function: such as `sessions:record`.
        data: what was thrown by `new ConvexError(data)`, decoded; None for any other error.
        code: `data["code"]` if that is a string, else None.
        server_message: Convex's own text. It may quote arguments, so it is kept out of `str()`;
            look at it while developing, never log it.
    """

    def __init__(
        self, function: str, *, data: ConvexValue = None, server_message: str = ""
    ) -> None:
        self.function = function
        self.data = data
        code = data.get("code") if isinstance(data, dict) else None
        self.code: str | None = code if isinstance(code, str) else None
        self.server_message = server_message
        super().__init__(f"{function}: {_reason(self.code, data, server_message)}")


# A code is a name by convention only; anything else in its place may be a sentence.
_NAME = re.compile(r"[A-Za-z][\w.:-]{0,63}")
_REQUEST_ID = re.compile(r"\[Request ID: (\w{1,64})\]")


def _reason(code: str | None, data: ConvexValue, server_message: str) -> str:
    if code is not None and _NAME.fullmatch(code):
        reason = f"the function threw ConvexError with code {code!r}"
    elif data is not None:
        reason = "the function threw ConvexError (see .data)"
    # Production deployments redact what follows; then the plain sentence has to do. These texts
    # only choose the wording here: nothing may branch on them.
    elif "Could not find public function" in server_message:
        reason = (
            "this deployment has no such public function; "
            "deploy the functions this program was written for (`npx convex deploy`)"
        )
    elif "ArgumentValidationError" in server_message:
        reason = (
            "the arguments do not match the function's validator; "
            "are the deployed functions older than this program?"
        )
    else:
        reason = "the function failed on the server; its own log has the error"
    request = _REQUEST_ID.search(server_message)
    return f"{reason} (request {request[1]})" if request else reason


class EncodingError(ConvexClientError):
    """A value that Convex cannot hold. Nothing was sent.

    Attributes:
        path: where it is, such as `args.records[3].text`.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class ConfigurationError(ConvexClientError, ValueError):
    """An address or a key that cannot work; the message names the setting and the remedy."""


class OutboxError(Exception):
    """The outbox could not do what was asked; the message says what is still on disk."""


class OutboxFullError(OutboxError):
    """The outbox has no room left. The record was not stored."""


class ErasedError(OutboxError):
    """The student of this run was erased. The record was not stored, nor will any other be."""


class JournalLockedError(OutboxError):
    """Another process owns this journal.

    Attributes:
        gone: it is not there any more, since another process has delivered it.
    """

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


def told(error: Exception) -> str:
    """What a log may say of an error: ours say what to do, a foreign one's text may hold anything."""
    ours = isinstance(error, (OutboxError, ConvexClientError))
    return str(error) if ours else type(error).__name__
