"""AsyncConvexClient: Convex's functions and live queries for a process that carries audio.

Why not the official Python client: it holds the interpreter lock during each call, so that a
slow answer stops the whole event loop, and it has no deadline. See the plugin's README.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

import aiohttp
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils import is_given

from .auth import KEY_VARIABLE, AgentKey, AgentToken, StaticToken, TokenSource
from .errors import AuthenticationError, FunctionError, RequestTimeoutError, TransportError
from .subscription import Subscription
from .sync import SyncConnection
from .transport import Reply, Transport
from .values import ConvexValue, decode, encode_args, encode_call

DEFAULT_TIMEOUT_S = 5.0

Kind = Literal["query", "mutation", "action"]


class AsyncConvexClient:
    """Calls one deployment's functions as one identity.

        async with AsyncConvexClient(token=AgentToken(key, subject="student:k57")) as client:
            context = await client.query("students:tutoringContext", {}, timeout_s=2.0)
            async for plan in client.subscribe("sessions:plan", {}):
                ...

    Make it in the process and loop that use it (in a LiveKit job: in the entrypoint) and close
    it with `aclose()`. Calls may run concurrently. Arguments and results are as in values.py.

    Args:
        url: the deployment's address; None for the environment's `CONVEX_URL`.
        token: who is calling: an `AgentToken`, any `TokenSource`, a finished JWT, or None for
            nobody. Left out: an agent for no student, signed with the environment's
            `CONVEX_AGENT_KEY`, or nobody if that is not set.
        timeout_s: seconds a call may take, if it names no other.
        http_session: use this session, and leave it open; None for one of our own.

    Raises:
        ConfigurationError: the address cannot be a deployment's, or the key is none.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: NotGivenOr[TokenSource | str | None] = NOT_GIVEN,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        http_session: aiohttp.ClientSession | None = None,
    ) -> None:
        chosen = token if is_given(token) else _token_from_env()
        self._setup(Transport(url, http_session), chosen, _positive(timeout_s))

    def _setup(
        self, transport: Transport, token: TokenSource | str | None, timeout_s: float
    ) -> None:
        self._transport = transport
        self._token = StaticToken(token) if isinstance(token, str) else token
        self._timeout_s = timeout_s
        self._sync: SyncConnection | None = None
        self._closed = False
        transport.acquire()

    @property
    def url(self) -> str:
        """The deployment's address, without a trailing slash."""
        return self._transport.url

    @property
    def token(self) -> TokenSource | None:
        """Where the tokens of its calls come from; None if it calls as nobody."""
        return self._token

    def with_token(self, token: TokenSource | str | None) -> AsyncConvexClient:
        """A client with another identity that shares this one's connections.

        Close it too; the connections end with the last of the clients that share them.
        """
        self._check_open()
        sibling = AsyncConvexClient.__new__(type(self))
        sibling._setup(self._transport, token, self._timeout_s)
        return sibling

    async def query(
        self,
        function: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> ConvexValue:
        """Run a query, such as `sessions:get`, and return its value.

        Args:
            function: `module:function`, a module in a folder as `folder/module:function`.
            args: left out is `{}`.
            timeout_s: seconds for everything, connecting included; None for the client's own.

        Raises:
            ConvexClientError: one of its kinds, as drawn in errors.py.
        """
        return await self._call("query", function, args, timeout_s)

    async def mutation(
        self,
        function: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> ConvexValue:
        """Run a mutation and return its value. It is sent once.

        After a TransportError or a BusyError it may have been committed all the same. Cancelling
        closes the connection; Convex finishes what it has begun.

        Args and errors: as for `query`.
        """
        return await self._call("mutation", function, args, timeout_s)

    async def action(
        self,
        function: str,
        args: Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> ConvexValue:
        """Run an action and return its value. It is sent once; actions may take minutes.

        Args and errors: as for `query`.
        """
        return await self._call("action", function, args, timeout_s)

    async def server_time(self, *, timeout_s: float | None = None) -> float | None:
        """The server's clock in Unix seconds, to about a second; None if nothing tells in time."""
        self._check_usable()
        deadline_s = self._timeout_s if timeout_s is None else _positive(timeout_s)
        return await self._transport.server_time(timeout_s=deadline_s)

    def subscribe(self, function: str, args: Mapping[str, object] | None = None) -> Subscription:
        """Follow a query: its value now and after each change, on one WebSocket per client.

        It connects in the background, stays connected until closed, and survives outages, so
        there is no deadline here: put one around the first value with `asyncio.timeout`.

        Raises:
            EncodingError: an argument Convex cannot hold.
            RuntimeError: no running event loop.
        """
        self._check_usable()
        encoded = encode_args(function, args)
        if self._sync is None:
            self._sync = SyncConnection(self._transport, self._token)
        return self._sync.subscribe(function, encoded)

    async def aclose(self) -> None:
        """End every subscription and close the connections. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._sync is not None:
                await self._sync.aclose()
        finally:
            await self._transport.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _call(
        self,
        kind: Kind,
        function: str,
        args: Mapping[str, object] | None,
        timeout_s: float | None,
    ) -> ConvexValue:
        self._check_usable()
        deadline_s = self._timeout_s if timeout_s is None else _positive(timeout_s)
        body = encode_call(function, args)
        try:
            async with asyncio.timeout(deadline_s) as deadline:
                reply = await self._authenticated_call(kind, function, body)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise RequestTimeoutError(
                f"{function}: {self.url} gave no answer within {deadline_s:g} s"
                + ("" if kind == "query" else "; it may have run all the same")
            ) from None
        return self._value_of(function, reply)

    async def _authenticated_call(self, kind: Kind, function: str, body: bytes) -> Reply:
        token = self._token
        if token is None:
            reply, _ = await self._post(kind, function, body, None)
            return reply
        sent = token.value()
        try:
            reply, server_time = await self._post(kind, function, body, sent)
        except AuthenticationError as error:
            if error.status != 401:
                raise
            # Refused before anything ran, so once more does no harm: with a token that is new,
            # and signed by the server's clock if ours is wrong.
            if error.server_time is not None:
                token.learn_clock(error.server_time)
            token.invalidate()
            renewed = token.value()
            if renewed == sent:
                raise
            reply, server_time = await self._post(kind, function, body, renewed)
        if server_time is not None:
            token.learn_clock(server_time)
        return reply

    async def _post(
        self, kind: Kind, function: str, body: bytes, token: str | None
    ) -> tuple[Reply, float | None]:
        call = self._transport.call
        try:
            return await call(kind, function=function, body=body, token=token)
        except TransportError as error:
            # The server closed a kept connection as we used it. A query changes nothing, so the
            # caller need not hear of it; a mutation may have run.
            if kind != "query" or not isinstance(error.__cause__, aiohttp.ServerDisconnectedError):
                raise
        return await call(kind, function=function, body=body, token=token)

    def _value_of(self, function: str, reply: Reply) -> ConvexValue:
        try:
            if reply.succeeded:
                return decode(reply.value)
            data = None if reply.error_data is None else decode(reply.error_data)
        except ValueError:
            raise self._transport.not_convex(function, 200) from None
        raise FunctionError(function, data=data, server_message=reply.error_message)

    def _check_usable(self) -> None:
        self._check_open()
        self._transport.session()  # refuses another process or loop

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this AsyncConvexClient is closed")


def _token_from_env() -> AgentToken | None:
    if not os.environ.get(KEY_VARIABLE, "").strip():
        return None
    return AgentToken(AgentKey.from_env(), subject="agent")


def _positive(timeout_s: float) -> float:
    if not timeout_s > 0:  # also refuses NaN
        raise ValueError(f"timeout_s must be more than 0 seconds, not {timeout_s!r}")
    return timeout_s
