"""FakeConvex: a Convex deployment for your tests, on loopback, in the test's own loop.

Transport only: it answers as Convex answers, fails as networks fail, and remembers what it saw.
It holds no data and knows no rules; what a function does is what you say it does.

    async with FakeConvex() as fake:
        fake.on("sessions:record", lambda args: {"seq": args["records"][-1]["seq"]})
        fake.drop_next_reply("sessions:record")
        async with AsyncConvexClient(fake.url) as client:
            ...
    assert fake.call_count("sessions:record") == 2
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType
from typing import Literal, Self

from aiohttp import web

from convex import ConvexError, convex_to_json

from .fake_sync import FakeSync
from .values import ConvexValue, decode, load_json

__all__ = ["FakeCall", "FakeConvex"]

Args = dict[str, ConvexValue]
Handler = Callable[[Args], object] | Callable[[Args], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class FakeCall:
    """One call that arrived, before any fault hit it."""

    kind: Literal["query", "mutation", "action"]
    function: str
    args: Args
    token: str | None
    client: str | None
    """The Convex-Client header."""


@dataclass(slots=True)
class _Fault:
    kind: Literal["drop_reply", "refuse", "hang", "delay"]
    function: str | None
    times: int
    status: int = 503
    code: str = ""
    retry_after_s: int | None = None
    delay_s: float = 0.0


@dataclass(slots=True)
class FakeConvex:
    """Start it with `async with`; `url` is its address.

    Args:
        accepts: says whether a bearer token (None: there is none) may call; refused calls get
            401. Everything is accepted if left out.
        clock: the server's clock in Unix seconds, for its Date header; None for the real one.

    Attributes:
        calls: what arrived over HTTP, in order.
    """

    accepts: Callable[[str | None], bool] | None = None
    clock: Callable[[], float] | None = None
    calls: list[FakeCall] = field(default_factory=list)
    _handlers: dict[str, Handler] = field(default_factory=dict)
    _faults: list[_Fault] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _sync: FakeSync = field(init=False)
    _runner: web.AppRunner | None = None
    _port: int = 0

    def __post_init__(self) -> None:
        self._sync = FakeSync(self._value_of, self._is_accepted)

    @property
    def url(self) -> str:
        """The address, the same after `stop()` and `start()`."""
        if not self._port:
            raise RuntimeError("FakeConvex has not been started: use `async with FakeConvex()`")
        return f"http://127.0.0.1:{self._port}"

    # What functions do

    def on(self, function: str, handler: Handler) -> None:
        """Answer calls of `function` by `handler(args)`, a plain or an async function.

        What it returns is the call's value. `convex.ConvexError(message, data)` raised in it
        arrives as FunctionError with that data; any other exception as one without data, like a
        crash in a function. A function nobody set up is not there, as on a real deployment.
        """
        self._handlers[function] = handler

    async def set_value(self, function: str, value: object) -> None:
        """Let the query `function` have this value, and show it to its subscribers."""
        await self.set_query(function, lambda _: value)

    async def set_query(self, function: str, handler: Handler) -> None:
        """As `on`, and show the new result to the query's subscribers."""
        self.on(function, handler)
        await self._sync.refresh(function)

    # What goes wrong

    def drop_next_reply(self, function: str | None = None, *, times: int = 1) -> None:
        """Run the next call (of `function`, if given), then close without an answer."""
        self._faults.append(_Fault("drop_reply", function, times))

    def fail_next(
        self,
        status: int = 503,
        function: str | None = None,
        *,
        times: int = 1,
        code: str = "ServiceUnavailable",
        retry_after_s: int | None = None,
    ) -> None:
        """Answer the next call with this HTTP status, without running it."""
        self._faults.append(
            _Fault("refuse", function, times, status, code, retry_after_s=retry_after_s)
        )

    def hang_next(self, function: str | None = None, *, times: int = 1) -> None:
        """Never run nor answer the next call; it ends when the caller goes away."""
        self._faults.append(_Fault("hang", function, times))

    def delay_next(self, delay_s: float, function: str | None = None, *, times: int = 1) -> None:
        """Run the next call, and answer `delay_s` later."""
        self._faults.append(_Fault("delay", function, times, delay_s=delay_s))

    def clear_faults(self) -> None:
        """Forget the faults that have not happened yet."""
        self._faults.clear()

    async def disconnect(self) -> None:
        """Close every WebSocket at once, as a deployment that restarts does."""
        await self._sync.disconnect()

    # What was seen

    def call_count(self, function: str | None = None) -> int:
        """Calls that arrived over HTTP, of `function` if given."""
        return sum(function in (None, call.function) for call in self.calls)

    async def called(self, function: str | None = None, *, count: int = 1) -> None:
        """Wait until `count` calls (of `function`, if given) have arrived."""
        while self.call_count(function) < count:
            self._arrived.clear()
            await self._arrived.wait()

    @property
    def subscribed(self) -> list[str]:
        """The queries followed over WebSockets now, one entry for each subscription."""
        return self._sync.subscribed

    @property
    def sync_tokens(self) -> list[str | None]:
        """The tokens that WebSockets presented, in order."""
        return self._sync.tokens

    @property
    def sockets(self) -> int:
        """WebSockets open now."""
        return self._sync.sockets

    # Its life

    async def start(self) -> None:
        """Listen; after `stop()` on the same port, to end an outage."""
        app = web.Application(client_max_size=20 * 1024 * 1024)
        app.router.add_post("/api/{kind:query|mutation|action}", self._call)
        app.router.add_get("/api/sync", self._sync.handle)
        app.router.add_get("/version", self._version)
        app.on_response_prepare.append(self._stamp)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening and drop every connection, as an outage does."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await self._sync.disconnect()
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _call(self, request: web.Request) -> web.StreamResponse:
        body = load_json(await request.read())
        match body:
            case {"path": str(function), "args": dict() as encoded, "format": str()}:
                args = decode(encoded)
            case _:
                return _refusal(400, "BadJsonBody")
        assert isinstance(args, dict)
        token = _bearer(request)
        kind, client = request.match_info["kind"], request.headers.get("Convex-Client")
        self.calls.append(FakeCall(kind, function, args, token, client))  # type: ignore[arg-type]
        self._arrived.set()
        if not self._is_accepted(token):
            return _refusal(401, "InvalidAuthHeader")
        fault = self._next_fault(function)
        if fault is not None and fault.kind == "refuse":
            return _refusal(fault.status, fault.code, fault.retry_after_s)
        if fault is not None and fault.kind == "hang":
            await asyncio.Event().wait()
        answer = await self._value_of(function, args)
        if fault is not None and fault.kind == "drop_reply":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if fault is not None and fault.kind == "delay":
            await asyncio.sleep(fault.delay_s)
        return web.json_response(answer)

    async def _value_of(self, function: str, args: Args) -> dict[str, object]:
        """Convex's answer document for one call."""
        handler = self._handlers.get(function)
        if handler is None:
            return _failure(f"Could not find public function for '{function}'.")
        try:
            result = handler(args)
            value = await result if inspect.isawaitable(result) else result
        except ConvexError as error:
            answer = _failure("Uncaught ConvexError")
            return {**answer, "errorData": convex_to_json(error.data)}
        except Exception:  # noqa: BLE001  a function's crash is an answer too
            return _failure("Server Error")
        return {"status": "success", "value": convex_to_json(value), "logLines": []}  # type: ignore[arg-type]

    def _is_accepted(self, token: str | None) -> bool:
        return self.accepts is None or self.accepts(token)

    def _next_fault(self, function: str) -> _Fault | None:
        for fault in self._faults:
            if fault.function in (None, function):
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    async def _version(self, request: web.Request) -> web.Response:
        return web.Response(text="fake")

    async def _stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        if self.clock is not None:
            response.headers["Date"] = formatdate(self.clock(), usegmt=True)


def _bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme == "Bearer" else None


def _failure(message: str) -> dict[str, object]:
    return {"status": "error", "errorMessage": f"[Request ID: fake] {message}", "logLines": []}


def _refusal(status: int, code: str, retry_after_s: int | None = None) -> web.Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.json_response({"code": code, "message": code}, status=status, headers=headers)
