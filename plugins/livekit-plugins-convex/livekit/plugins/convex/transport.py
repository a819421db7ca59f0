"""The way to one deployment: its address, one HTTP session, and what an answer means."""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from .errors import (
    AuthenticationError,
    BusyError,
    ConfigurationError,
    ConvexClientError,
    TransportError,
)
from .values import load_json
from .version import __version__

URL_VARIABLE = "CONVEX_URL"
# The backend takes `{name}-{semver}` from anybody and holds only its own clients to a minimum
# version (common/src/version.rs in convex-backend).
CLIENT_HEADERS = {"Convex-Client": f"livekit-plugins-convex-{__version__}"}

# Nothing ran, or nobody knows: the same call may succeed later.
BUSY_STATUSES = frozenset({408, 421, 425, 429, 503})
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_EXAMPLE = "such as https://happy-animal-123.convex.cloud or http://127.0.0.1:3210"


def check_url(url: str | None) -> str:
    """The deployment's address without a trailing slash, from the environment if None.

    Raises:
        ConfigurationError: it cannot be a deployment's address; the message names CONVEX_URL.
    """
    address = (os.environ.get(URL_VARIABLE, "") if url is None else url).strip()
    if not address:
        raise ConfigurationError(
            f"{URL_VARIABLE} is not set: give the deployment's address, {_EXAMPLE}"
        )
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port  # .port raises if it is not a number
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme in ("ws", "wss"):
        fault = f"begins with {parts.scheme}://; write http{parts.scheme[2:]}:// instead"
    elif parts.scheme not in ("http", "https") or not host:
        fault = f"is not an absolute http(s) address; it is one {_EXAMPLE}"
    elif parts.username is not None or parts.password is not None:
        fault = "holds a user name or a password; leave that out"
    elif parts.query or parts.fragment or parts.path not in ("", "/"):
        fault = f"has something after the host; write only {parts.scheme}://{parts.netloc}"
    elif host.endswith(".convex.site"):
        fault = "is the address of HTTP actions; the deployment's own ends in .convex.cloud"
    else:
        return f"{parts.scheme}://{parts.netloc}"
    # An address that holds a password is not shown.
    shown = "" if parts.password is not None else f" ({address[:200]})"
    raise ConfigurationError(f"{URL_VARIABLE}{shown} {fault}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A Convex answer to a function call, still encoded."""

    succeeded: bool
    value: object
    error_data: object | None
    error_message: str


class Transport:
    """One deployment's address and the HTTP session that its clients share.

    The session is made on first use, in the loop that uses it: nothing happens at import or in
    the constructor, so a client may be made before a fork as long as it is used after it.

    Args:
        url: the deployment's address, or None for `CONVEX_URL`.
        http_session: used if given, and then never closed here.
    """

    def __init__(self, url: str | None, http_session: aiohttp.ClientSession | None) -> None:
        self.url = check_url(url)
        self._given_session = http_session
        self._session: aiohttp.ClientSession | None = None
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._users = 0

    def acquire(self) -> None:
        """One more client uses this transport."""
        self._users += 1

    async def release(self) -> None:
        """One client less; the last one closes the session."""
        self._users -= 1
        if self._users > 0 or self._session is None:
            return
        session, self._session = self._session, None
        if self._home is not None and self._home[0] == os.getpid():
            await session.close()

    def session(self) -> aiohttp.ClientSession:
        """The session of the running loop.

        Raises:
            RuntimeError: first used in another process or loop. A socket shared over a fork
                would mix two processes' bytes.
        """
        process = os.getpid()
        # The process first: after a fork asyncio denies that a loop is running at all.
        if self._home is not None and self._home[0] != process:
            raise RuntimeError(
                f"this AsyncConvexClient was first used in process {self._home[0]} and cannot be "
                f"used in {process}: make the client in the process that uses it, for a LiveKit "
                "job in its entrypoint"
            )
        loop = asyncio.get_running_loop()
        if self._home is None:
            self._home = (process, loop)
        elif self._home[1] is not loop:
            raise RuntimeError(
                "this AsyncConvexClient was first used in another event loop: make one client per "
                "loop, and close it in the loop that used it"
            )
        if self._given_session is not None:
            return self._given_session
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_NO_TIMEOUT, headers=CLIENT_HEADERS)
        return self._session

    async def call(
        self, kind: str, *, function: str, body: bytes, token: str | None
    ) -> tuple[Reply, float | None]:
        """POST one function call; the answer, and the server's clock if its answer tells it.

        No deadline of its own: the caller's covers it. Cancelling closes the connection.

        Raises:
            TransportError, BusyError, AuthenticationError: as drawn in errors.py. The last one
            carries `server_time` for the caller, who may want to sign by that clock.
        """
        headers = {**CLIENT_HEADERS, "Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        started = time.monotonic()
        try:
            async with self.session().post(
                f"{self.url}/api/{kind}",
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=_NO_TIMEOUT,
            ) as response:
                server_time = clock_of(response, time.monotonic() - started)
                text = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise self.no_answer(function, error) from error
        try:
            document = load_json(text)
        except ValueError:
            document = None
        if response.status != 200:
            raise self.refusal(function, response, document, server_time)
        return self._parse(function, document), server_time

    async def server_time(self, *, timeout_s: float) -> float | None:
        """The server's clock in Unix seconds; None if it cannot be had in time."""
        started = time.monotonic()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.session().get(
                    f"{self.url}/version",
                    headers=CLIENT_HEADERS,
                    allow_redirects=False,
                    timeout=_NO_TIMEOUT,
                ) as response,
            ):
                return clock_of(response, time.monotonic() - started)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    def _parse(self, function: str, document: object) -> Reply:
        match document:
            case {"status": "success", "value": value}:
                return Reply(True, value, None, "")
            case {"status": "error", "errorMessage": str(message), **rest}:
                return Reply(False, None, rest.get("errorData"), message)
            case _:
                raise self.not_convex(function, 200)

    def no_answer(self, function: str, error: Exception) -> TransportError:
        """The error for a connection that could not be made or broke."""
        reason = type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = f"{reason}: {error.strerror}"
        return TransportError(f"{function}: no answer from {self.url} ({URL_VARIABLE}); {reason}")

    def not_convex(self, function: str, status: int) -> TransportError:
        """The error for an answer that no Convex deployment gives."""
        return TransportError(
            f"{function}: {self.url} answered with HTTP {status}, but not as a Convex deployment "
            f"does; {URL_VARIABLE} must be the deployment's own address, {_EXAMPLE}",
            retryable=False,
            status=status,
        )

    def refusal(
        self,
        function: str,
        response: aiohttp.ClientResponse,
        document: object,
        server_time: float | None,
    ) -> ConvexClientError:
        """What an HTTP status other than 200 means."""
        status = response.status
        # Convex's own refusals are `{"code", "message"}`; the message may quote the request.
        code = document.get("code") if isinstance(document, dict) else None
        named = f"HTTP {status} {code}" if isinstance(code, str) else f"HTTP {status}"
        retry_after_s = _retry_after(response)
        if status in BUSY_STATUSES:
            return BusyError(
                f"{function}: {self.url} is busy ({named})",
                status=status,
                retry_after_s=retry_after_s,
            )
        if status >= 500:
            return TransportError(
                f"{function}: {self.url} failed ({named})",
                status=status,
                retry_after_s=retry_after_s,
            )
        if status in (401, 403) and isinstance(code, str):
            return AuthenticationError(
                f"{function}: {self.url} refuses the token ({named}); do AGENT_JWT_ISSUER and "
                "AGENT_JWKS of the deployment belong to this CONVEX_AGENT_KEY?",
                status=status,
                server_time=server_time,
            )
        if status == 404 or not isinstance(code, str):
            return self.not_convex(function, status)
        return TransportError(
            f"{function}: {self.url} refuses the request ({named})",
            retryable=False,
            status=status,
        )


def clock_of(response: aiohttp.ClientResponse, round_trip_s: float) -> float | None:
    """The server's clock by the Date header; None if absent or too long on its way to tell."""
    header = response.headers.get("Date")
    if header is None or round_trip_s > 1.0:
        return None
    try:
        # Cut off to whole seconds, so the middle of that second is the best guess.
        return email.utils.parsedate_to_datetime(header).timestamp() + 0.5
    except ValueError:
        return None


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds of the Retry-After header; its other form, a date, is not used by Convex."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None
