"""The WebSocket half of FakeConvex: the server's side of the sync protocol, queries only."""

from __future__ import annotations

import base64
import contextlib
import itertools
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from .values import ConvexValue, decode, dump_json, load_json

Evaluate = Callable[[str, dict[str, ConvexValue]], Awaitable[dict[str, object]]]


@dataclass(slots=True, eq=False)
class _Peer:
    ws: web.WebSocketResponse
    request: web.Request
    query_set: int = 0
    identity: int = 0
    ts: int = 0
    queries: dict[int, tuple[str, dict[str, ConvexValue]]] = field(default_factory=dict)
    journal: dict[int, str] = field(default_factory=dict)

    def version(self) -> dict[str, object]:
        return {"querySet": self.query_set, "identity": self.identity, "ts": encode_ts(self.ts)}


class FakeSync:
    """Serves `/api/sync`; `evaluate(function, args)` gives a query's answer document."""

    def __init__(self, evaluate: Evaluate, accepts: Callable[[str | None], bool]) -> None:
        self._evaluate = evaluate
        self._accepts = accepts
        self.tokens: list[str | None] = []
        self._peers: set[_Peer] = set()
        self._clock = itertools.count(time.time_ns())

    @property
    def sockets(self) -> int:
        return len(self._peers)

    @property
    def subscribed(self) -> list[str]:
        return sorted(name for peer in self._peers for name, _ in peer.queries.values())

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(heartbeat=5.0)
        await ws.prepare(request)
        peer = _Peer(ws, request)
        self._peers.add(peer)
        try:
            async for message in ws:
                if message.type is not WSMsgType.TEXT or not await self._obey(peer, message.data):
                    break
        finally:
            self._peers.discard(peer)
            await ws.close()
        return ws

    async def refresh(self, function: str) -> None:
        """Send the query's result to all who follow it."""
        for peer in list(self._peers):
            ids = [query_id for query_id, (name, _) in peer.queries.items() if name == function]
            if ids:
                await self._transition(peer, ids, peer.version())

    async def disconnect(self) -> None:
        for peer in list(self._peers):
            if peer.request.transport is not None:
                peer.request.transport.abort()

    async def _obey(self, peer: _Peer, text: str) -> bool:
        """Handle one client message; False ends the socket, as the backend does on an error."""
        start = peer.version()
        match load_json(text):
            case {"type": "Authenticate", "baseVersion": base, **rest}:
                value = rest.get("value")
                token = value if isinstance(value, str) else None
                self.tokens.append(token)
                if base != peer.identity or not self._accepts(token):
                    await self._send(
                        peer,
                        {
                            "type": "AuthError",
                            "error": "refused",
                            "baseVersion": peer.identity,
                            "authUpdateAttempted": True,
                        },
                    )
                    return False
                peer.identity += 1
                await self._transition(peer, list(peer.queries), start)
            case {"type": "ModifyQuerySet", "baseVersion": base, "modifications": list(changes)}:
                if base != peer.query_set:
                    await self._send(peer, {"type": "FatalError", "error": "wrong base version"})
                    return False
                peer.query_set += 1
                added = [query_id for change in changes if (query_id := _change(peer, change)) >= 0]
                await self._transition(peer, added, start)
            case _:
                pass  # Connect, Event
        return True

    async def _transition(
        self, peer: _Peer, query_ids: list[int], start: dict[str, object]
    ) -> None:
        modifications: list[dict[str, object]] = []
        for query_id in query_ids:
            function, args = peer.queries[query_id]
            answer = await self._evaluate(function, args)
            answer["type"] = "QueryUpdated" if answer.pop("status") == "success" else "QueryFailed"
            modifications.append({"queryId": query_id, "journal": None, **answer})
        peer.ts = next(self._clock)
        await self._send(
            peer,
            {
                "type": "Transition",
                "startVersion": start,
                "endVersion": peer.version(),
                "modifications": modifications,
                "clientClockSkew": 0,
                "serverTs": peer.ts,
            },
        )

    async def _send(self, peer: _Peer, message: dict[str, object]) -> None:
        with contextlib.suppress(ConnectionError):  # gone meanwhile
            await peer.ws.send_str(dump_json(message))


def _change(peer: _Peer, change: object) -> int:
    """Apply one change to the query set; the id of the query added, or -1."""
    match change:
        case {
            "type": "Add",
            "queryId": float(query_id),
            "udfPath": str(function),
            "args": [dict() as encoded],
        }:
            args = decode(encoded)
            assert isinstance(args, dict)
            peer.queries[int(query_id)] = (function, args)
            return int(query_id)
        case {"type": "Remove", "queryId": float(query_id)}:
            peer.queries.pop(int(query_id), None)
    return -1


def encode_ts(ts: int) -> str:
    """A timestamp in nanoseconds as the protocol writes it."""
    return base64.b64encode(struct.pack("<Q", ts)).decode()
