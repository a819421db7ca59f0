"""Live queries over Convex's WebSocket sync protocol, one socket per client.

What the protocol says is read in `sync_types` and `crates/sync` of convex-backend: after Connect
the client sends the token and the set of queries it wants; the server answers with Transitions,
each from the version it last sent. Whatever does not fit ends the socket, and a new one starts
from nothing but the wanted set: so there is one way to recover, and it is used all the time.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from .auth import TokenSource
from .errors import AuthenticationError, ConvexClientError, TransportError
from .log import logger
from .subscription import FollowedQuery, Subscription
from .transport import BUSY_STATUSES, CLIENT_HEADERS, URL_VARIABLE, Transport
from .values import dump_json, load_json

# The backend pings every 5 s (HEARTBEAT_INTERVAL in local_backend/src/subs/mod.rs).
SILENCE_S = 30.0
HANDSHAKE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
# Above the backend's largest result (FUNCTION_MAX_RESULT_SIZE, 16 MiB), several in one message.
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
_FIRST_TS = "AAAAAAAAAAA="


def pause_before(attempt: int) -> float:
    """Seconds before connecting again: doubling from 0.1 s to 5 s, half of it random.

    Short at the longest, since a lesson waits for no more than a few seconds of outage to be
    seen as over; random, so that a fleet does not come back in one wave.
    """
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 16))
    return pause_s * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class _Socket:
    """What is true of one connection alone."""

    ws: aiohttp.ClientWebSocketResponse
    query_set: int = 0
    identity: int = 0
    sent: set[int] = field(default_factory=set)
    version: tuple[object, object, object] = (0.0, 0.0, _FIRST_TS)
    chunks: list[str] = field(default_factory=list)
    answered: bool = False


class _SocketEnded(Exception):
    """This socket is over; the reason is told to the next one's server."""

    def __init__(self, reason: str, *, token_refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.token_refused = token_refused


class SyncConnection:
    """Owns the task that keeps one socket open while there is a subscription.

    Args:
        pause: seconds to wait before attempt n (from 0) to connect again.
    """

    def __init__(
        self,
        transport: Transport,
        token: TokenSource | None,
        *,
        pause: Callable[[int], float] = pause_before,
    ) -> None:
        self._transport = transport
        self._token = token
        self._pause = pause
        self._queries: dict[int, FollowedQuery] = {}
        self._next_id = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session_id = str(uuid.uuid4())
        self._connections = 0
        self._last_close = "InitialConnect"
        self._max_ts: str | None = None
        self._was_connected = False

    def subscribe(self, function: str, args: object) -> Subscription:
        query = FollowedQuery(self._next_id, function, args)
        self._next_id += 1
        self._queries[query.id] = query
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="convex.sync")
        return Subscription(self, query)

    async def unsubscribe(self, query_id: int) -> None:
        """Take a query out of the wanted set; with the last one the socket closes."""
        self.discard(query_id)
        if not self._queries and self._task is not None:
            await self._stop()

    def discard(self, query_id: int) -> None:
        query = self._queries.pop(query_id, None)
        if query is not None:
            query.end()
            self._changed.set()

    async def aclose(self) -> None:
        for query_id in list(self._queries):
            self.discard(query_id)
        await self._stop()

    async def _stop(self) -> None:
        task = self._task
        if task is None:
            return
        # It ends by itself when nothing is wanted; cancelled if the server is too slow for that.
        _, pending = await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
        if pending and not self._queries:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        attempt = 0
        refused = 0
        try:
            while self._queries:
                socket: _Socket | None = None
                try:
                    socket = await self._connect()
                    await self._serve(socket)
                    continue
                except _SocketEnded as ended:
                    self._last_close = ended.reason
                    if socket is not None and socket.answered:
                        attempt = refused = 0
                    if ended.token_refused:
                        await self._renew_token(refused)
                        refused += 1
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self._last_close = type(error).__name__
                    if socket is not None and socket.answered:
                        attempt = refused = 0
                if attempt >= 3:
                    # A backend restored from a backup is behind what we have seen and would
                    # refuse us for ever; being shown its older values is what is wanted then.
                    self._max_ts = None
                wait_s = self._pause(attempt)
                attempt += 1
                logger.info(
                    "sync.reconnecting",
                    extra={
                        "attempt": attempt,
                        "wait_s": round(wait_s, 2),
                        "error": self._last_close,
                    },
                )
                await self._wait_while_wanted(wait_s)
        except ConvexClientError as error:
            logger.warning("sync.ended", extra={"error": type(error).__name__})
            self._end_all(error)
        except BaseException as error:  # the consumers must not wait for ever
            failure = TransportError("the connection of the live queries failed", retryable=False)
            failure.__cause__ = error
            self._end_all(failure)
            if not isinstance(error, Exception):
                raise
            logger.error("sync.failed", extra={"error": type(error).__name__})

    def _end_all(self, error: ConvexClientError) -> None:
        queries, self._queries = self._queries, {}
        for query in queries.values():
            query.end(error)

    async def _wait_while_wanted(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                while self._queries:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.set()

    async def _renew_token(self, refused: int) -> None:
        if self._token is None or refused > 0:
            raise AuthenticationError(
                f"{self._transport.url} refuses the token of the live queries; do "
                "AGENT_JWT_ISSUER and AGENT_JWKS of the deployment belong to this "
                "CONVEX_AGENT_KEY?"
            )
        server_time = await self._transport.server_time(timeout_s=HANDSHAKE_TIMEOUT_S)
        if server_time is not None:
            self._token.learn_clock(server_time)
        self._token.invalidate()

    async def _connect(self) -> _Socket:
        url = self._transport.url
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                ws = await self._transport.session().ws_connect(
                    f"{url}/api/sync",
                    headers=CLIENT_HEADERS,
                    max_msg_size=MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        except aiohttp.WSServerHandshakeError as error:
            passing = error.status in BUSY_STATUSES or error.status >= 500
            # What has worked before is a deployment; then the refusal is a passing one too.
            if passing or self._was_connected:
                raise _SocketEnded(f"HTTP {error.status}") from error
            raise self._not_convex(error.status) from error
        # aiohttp follows redirects here and has no switch for it. The token has not been sent.
        if history := ws._response.history:
            await ws.close()
            raise self._not_convex(history[0].status)
        self._was_connected = True
        return _Socket(ws)

    def _not_convex(self, status: int) -> TransportError:
        return TransportError(
            f"{self._transport.url} ({URL_VARIABLE}) answered a live query with HTTP {status}; it "
            "must be the deployment's own address, and a proxy before it must let WebSockets pass",
            retryable=False,
            status=status,
        )

    async def _serve(self, socket: _Socket) -> None:
        """Keep this socket's set of queries as wanted, until nothing is wanted."""
        try:
            await self._greet(socket)
            receiving = asyncio.ensure_future(self._receive(socket))
            sending = asyncio.ensure_future(self._send(socket))
            try:
                done, _ = await asyncio.wait(
                    {receiving, sending}, return_when=asyncio.FIRST_COMPLETED
                )
                for ended in done:
                    ended.result()
            finally:
                for task in (receiving, sending):
                    task.cancel()
                await asyncio.gather(receiving, sending, return_exceptions=True)
        finally:
            await socket.ws.close()

    async def _greet(self, socket: _Socket) -> None:
        connect: dict[str, object] = {
            "type": "Connect",
            "sessionId": self._session_id,
            "connectionCount": self._connections,
            "lastCloseReason": self._last_close,
            "clientTs": int(time.time() * 1000),
        }
        if self._max_ts is not None:
            connect["maxObservedTimestamp"] = self._max_ts
        self._connections += 1
        await socket.ws.send_str(dump_json(connect))
        await self._authenticate(socket)

    async def _authenticate(self, socket: _Socket) -> None:
        if self._token is None:
            return
        message = {
            "type": "Authenticate",
            "baseVersion": socket.identity,
            "tokenType": "User",
            "value": self._token.value(),
        }
        socket.identity += 1
        await socket.ws.send_str(dump_json(message))

    async def _send(self, socket: _Socket) -> None:
        while True:
            self._changed.clear()
            wanted = set(self._queries)
            if not wanted:
                return
            if wanted != socket.sent:
                await self._send_query_set(socket, wanted)
            renew_in_s = None if self._token is None else self._token.renew_in_s()
            try:
                async with asyncio.timeout(renew_in_s):
                    await self._changed.wait()
            except TimeoutError:
                await self._authenticate(socket)

    async def _send_query_set(self, socket: _Socket, wanted: set[int]) -> None:
        modifications: list[dict[str, object]] = [
            {"type": "Remove", "queryId": query_id} for query_id in sorted(socket.sent - wanted)
        ]
        for query_id in sorted(wanted - socket.sent):
            query = self._queries[query_id]
            added: dict[str, object] = {
                "type": "Add",
                "queryId": query_id,
                "udfPath": query.function,
                "args": [query.args],
            }
            if query.journal is not None:
                added["journal"] = query.journal
            modifications.append(added)
        base, socket.query_set = socket.query_set, socket.query_set + 1
        socket.sent = wanted
        await socket.ws.send_str(
            dump_json(
                {
                    "type": "ModifyQuerySet",
                    "baseVersion": base,
                    "newVersion": socket.query_set,
                    "modifications": modifications,
                }
            )
        )

    async def _receive(self, socket: _Socket) -> None:
        while True:
            message = await socket.ws.receive(timeout=SILENCE_S)
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    self._handle(socket, message.data)
                case aiohttp.WSMsgType.ERROR:
                    raise _SocketEnded(type(socket.ws.exception()).__name__)
                case _:
                    raise _SocketEnded(_close_reason(message, socket.ws))

    def _handle(self, socket: _Socket, text: str) -> None:
        try:
            message = load_json(text)
        except ValueError:
            raise _SocketEnded("InvalidJson") from None
        match message:
            case {"type": "Transition", **transition}:
                self._apply(socket, transition)
            case {"type": "TransitionChunk", "chunk": str(chunk), "totalParts": float(total)}:
                socket.chunks.append(chunk)
                if len(socket.chunks) == total:
                    whole, socket.chunks = "".join(socket.chunks), []
                    self._handle(socket, whole)
            case {"type": "AuthError"}:
                raise _SocketEnded("AuthError", token_refused=True)
            case {"type": "FatalError"}:
                # The server's text may quote arguments.
                raise TransportError(
                    f"{self._transport.url} refuses this client's live queries for good",
                    retryable=False,
                )
            case _:
                pass  # Ping, and answers to what we never ask

    def _apply(self, socket: _Socket, transition: dict[object, object]) -> None:
        start = _version(transition.get("startVersion"))
        end = _version(transition.get("endVersion"))
        if start is None or end is None or start != socket.version:
            raise _SocketEnded("UnexpectedVersion")
        socket.version = end
        socket.answered = True
        self._max_ts = str(end[2])
        modifications = transition.get("modifications")
        for modification in modifications if isinstance(modifications, list) else []:
            self._modify(modification)

    def _modify(self, modification: object) -> None:
        match modification:
            case {"type": kind, "queryId": float(query_id), **fields}:
                query = self._queries.get(int(query_id))
            case _:
                raise _SocketEnded("InvalidModification")
        if query is None:
            return  # unsubscribed meanwhile
        journal = fields.get("journal")
        query.journal = journal if isinstance(journal, str) else None
        try:
            match kind:
                case "QueryUpdated":
                    query.show(fields.get("value"))
                case "QueryFailed":
                    query.show_error(str(fields.get("errorMessage", "")), fields.get("errorData"))
                case _:
                    pass
        except ValueError:
            raise _SocketEnded("InvalidValue") from None


def _version(encoded: object) -> tuple[object, object, object] | None:
    match encoded:
        case {"querySet": float(query_set), "identity": float(identity), "ts": str(ts)}:
            return (query_set, identity, ts)
        case _:
            return None


def _close_reason(message: aiohttp.WSMessage, ws: aiohttp.ClientWebSocketResponse) -> str:
    if isinstance(message.extra, str) and message.extra:
        return message.extra[:120]
    return f"closed with code {ws.close_code}"
