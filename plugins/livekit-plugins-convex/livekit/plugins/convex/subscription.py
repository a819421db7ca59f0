"""What a caller of `AsyncConvexClient.subscribe` holds."""

from __future__ import annotations

import asyncio
import weakref
from hashlib import blake2b
from types import TracebackType
from typing import Protocol, Self

import msgspec

from .errors import ConvexClientError, FunctionError
from .values import ConvexValue, decode


class Owner(Protocol):
    """Who keeps the wanted queries; see SyncConnection."""

    async def unsubscribe(self, query_id: int) -> None: ...

    def discard(self, query_id: int) -> None: ...


class Subscription:
    """The values of one query, now and after each change: `async for value in subscription`.

    Between two values that are equal nothing is yielded, also not after a reconnect. A slow
    consumer gets the latest value and misses those in between. If the function throws, the
    iteration raises FunctionError; the subscription stays, and iterating again waits for the
    query's next value. Any other ConvexClientError is the end of it.

    Close it with `aclose()` or `async with`; dropping the last reference closes it too.
    """

    def __init__(self, owner: Owner, query: FollowedQuery) -> None:
        self._query = query
        self._owner = owner
        self._finalizer = weakref.finalize(self, _drop, owner, query.id, asyncio.get_running_loop())
        self._finalizer.atexit = False

    @property
    def function(self) -> str:
        """The query's name."""
        return self._query.function

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ConvexValue:
        return await self._query.next()

    async def aclose(self) -> None:
        """Stop following; a waiting iteration ends. May be called twice."""
        self._finalizer.detach()
        await self._owner.unsubscribe(self._query.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class FollowedQuery:
    """One query of the wanted set, and what it has for its consumer."""

    def __init__(self, query_id: int, function: str, args: object) -> None:
        self.id = query_id
        self.function = function
        self.args = args
        self.journal: str | None = None
        self._arrived = asyncio.Event()
        self._value: ConvexValue = None
        self._error: FunctionError | None = None
        self._seen = b""
        self._closed = False
        self._fatal: ConvexClientError | None = None

    async def next(self) -> ConvexValue:
        await self._arrived.wait()
        if self._error is not None:
            error, self._error = self._error, None
            self._settle()
            raise error
        if self._fatal is not None:
            raise self._fatal
        if self._closed:
            raise StopAsyncIteration
        value, self._value = self._value, None
        self._arrived.clear()
        return value

    def show(self, encoded: object) -> None:
        if self._is_news(encoded):
            self._value, self._error = decode(encoded), None
            self._arrived.set()

    def show_error(self, message: str, encoded_data: object | None) -> None:
        if self._is_news(["failed", message, encoded_data]):
            data = None if encoded_data is None else decode(encoded_data)
            self._error = FunctionError(self.function, data=data, server_message=message)
            self._arrived.set()

    def end(self, error: ConvexClientError | None = None) -> None:
        self._closed = True
        self._fatal = error
        self._value = self._error = None
        self._arrived.set()

    def _settle(self) -> None:
        if not self._closed:
            self._arrived.clear()

    def _is_news(self, encoded: object) -> bool:
        # Of the encoded form: in Python 1.0 == True and nan != nan.
        text = msgspec.json.encode(encoded, order="sorted")
        seen, self._seen = self._seen, blake2b(text, digest_size=16).digest()
        return seen != self._seen


def _drop(owner: Owner, query_id: int, loop: asyncio.AbstractEventLoop) -> None:
    """Unsubscribe what nobody refers to any more; the collector may run in any thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(owner.discard, query_id)
