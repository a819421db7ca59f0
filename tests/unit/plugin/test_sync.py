"""The sync protocol as it is on the wire, against servers that say exactly this."""

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from livekit.plugins import convex

from livekit.plugins.convex import sync
from livekit.plugins.convex.testing import FakeConvex
from livekit.plugins.convex.transport import Transport

PLAN = "sessions:plan"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect at once; the pauses have a test of their own."""
    monkeypatch.setattr(sync.SyncConnection.__init__, "__kwdefaults__", {"pause": lambda _: 0.0})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is awaited is in another task's hands
            await asyncio.sleep(0.005)


async def shows(subscription: convex.Subscription, value: object) -> None:
    """Wait for `value`; those before it may be seen or be overtaken."""
    async with asyncio.timeout(10):
        while await anext(subscription) != value:
            pass


@contextlib.asynccontextmanager
async def scripted(
    *scripts: list[Any] | web.StreamResponse,
) -> AsyncIterator[tuple[convex.AsyncConvexClient, list[list[dict[str, Any]]]]]:
    """One script per connection (the last for all further): messages to send, or "end".

    Yields a client and, per connection, what arrived.
    """
    arrived: list[list[dict[str, Any]]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        script = scripts[min(len(arrived), len(scripts) - 1)]
        if isinstance(script, web.StreamResponse):
            arrived.append([])
            return script
        messages: list[dict[str, Any]] = []
        arrived.append(messages)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is not WSMsgType.TEXT:
                break
            messages.append(json.loads(message.data))
            if messages[-1]["type"] == "ModifyQuerySet":
                for item in script:
                    if item == "end":
                        await ws.close(code=1011, message=b"InternalServerError")
                        return ws
                    await ws.send_str(item if isinstance(item, str) else json.dumps(item))
        return ws

    app = web.Application()
    app.router.add_get("/api/sync", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with convex.AsyncConvexClient(url) as client:
            yield client, arrived
    finally:
        await runner.cleanup()


def ts(n: int) -> str:
    return base64.b64encode(struct.pack("<Q", n)).decode()


def transition(
    value: object,
    *,
    start: tuple[int, int] = (0, 0),
    end: tuple[int, int] = (1, 1),
    journal: str | None = None,
) -> dict[str, object]:
    """A Transition from (query set, ts) to (query set, ts)."""
    return {
        "type": "Transition",
        "startVersion": {"querySet": start[0], "identity": 0, "ts": ts(start[1])},
        "endVersion": {"querySet": end[0], "identity": 0, "ts": ts(end[1])},
        "modifications": [
            {"type": "QueryUpdated", "queryId": 0, "value": value, "journal": journal}
        ],
    }


async def test_reconnect_tells_the_server_who_it_is_and_how_far_it_saw() -> None:
    first = [transition("a", end=(1, 7), journal="j"), "end"]
    async with (
        scripted(first, [transition("b")]) as (client, arrived),
        client.subscribe(PLAN, {"x": 1}) as plan,
    ):
        await shows(plan, "b")

    (connect, added), (again, added_again) = arrived[0][:2], arrived[1][:2]
    assert connect["type"] == "Connect"
    assert (connect["connectionCount"], connect["lastCloseReason"]) == (0, "InitialConnect")
    assert "maxObservedTimestamp" not in connect
    assert again == {
        "type": "Connect",
        "sessionId": connect["sessionId"],
        "connectionCount": 1,
        "lastCloseReason": "InternalServerError",
        "clientTs": again["clientTs"],
        "maxObservedTimestamp": ts(7),
    }
    add = {"type": "Add", "queryId": 0, "udfPath": PLAN, "args": [{"x": 1.0}]}
    assert added["modifications"] == [add]
    assert added_again["modifications"] == [{**add, "journal": "j"}]
    assert (added["baseVersion"], added["newVersion"]) == (0, 1)


async def test_deployment_restored_from_a_backup_is_not_refused_for_ever() -> None:
    """It closes every socket that has seen a later timestamp than its own."""
    seen_later = [transition("new", end=(1, 99)), "end"]
    refusals = [["end"]] * 4
    async with (
        scripted(seen_later, *refusals, [transition("old")]) as (client, arrived),
        client.subscribe(PLAN) as plan,
    ):
        await shows(plan, "old")

    assert "maxObservedTimestamp" in arrived[1][0]
    assert "maxObservedTimestamp" not in arrived[5][0]


@pytest.mark.parametrize(
    "nonsense",
    [
        transition("a", start=(3, 3)),
        {"type": "Transition"},
        {**transition("a"), "modifications": [{"type": "QueryUpdated"}]},
        transition({"$integer": "?"}),
        "<html>",
    ],
)
async def test_message_that_does_not_fit_starts_a_new_socket(nonsense: object) -> None:
    async with (
        scripted([nonsense], [transition("good")]) as (client, arrived),
        client.subscribe(PLAN) as plan,
    ):
        assert await anext(plan) == "good"

    assert len(arrived) == 2


async def test_pings_and_unknown_messages_are_passed_over() -> None:
    script = [{"type": "Ping"}, {"type": "SomethingNew"}, transition("a")]
    async with scripted(script) as (client, arrived), client.subscribe(PLAN) as plan:
        assert await anext(plan) == "a"

    assert len(arrived) == 1


async def test_transition_in_chunks_is_put_together() -> None:
    text = json.dumps(transition("ñandú", end=(1, 1)))
    parts = [text[:20], text[20:50], text[50:]]
    chunks = [
        {
            "type": "TransitionChunk",
            "chunk": part,
            "partNumber": number,
            "totalParts": len(parts),
            "transitionId": "1",
        }
        for number, part in enumerate(parts)
    ]
    async with scripted(chunks) as (client, _), client.subscribe(PLAN) as plan:
        assert await anext(plan) == "ñandú"


async def test_fatal_error_ends_the_subscription_without_quoting_the_server() -> None:
    script = [{"type": "FatalError", "error": "bad argument: ashamed"}]
    async with scripted(script) as (client, _), client.subscribe(PLAN) as plan:
        with pytest.raises(convex.TransportError) as caught:
            await anext(plan)

    assert not caught.value.retryable
    assert "ashamed" not in str(caught.value)


async def test_silent_server_is_left_for_a_new_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "SILENCE_S", 0.05)
    async with scripted([], [transition("a")]) as (client, _), client.subscribe(PLAN) as plan:
        assert await anext(plan) == "a"


async def test_busy_deployment_is_asked_again() -> None:
    async with (
        scripted(web.Response(status=503), [transition("a")]) as (client, _),
        client.subscribe(PLAN) as plan,
    ):
        assert await anext(plan) == "a"


@pytest.mark.parametrize("status", [200, 400, 404])
async def test_address_without_live_queries_is_an_error_that_names_the_variable(
    status: int,
) -> None:
    async with (
        scripted(web.Response(status=status)) as (client, _),
        client.subscribe(PLAN) as plan,
    ):
        with pytest.raises(convex.TransportError, match=r"CONVEX_URL") as caught:
            await anext(plan)

    assert (caught.value.retryable, caught.value.status) == (False, status)


async def test_redirected_socket_is_refused() -> None:
    async with FakeConvex() as fake:
        moved = web.Response(status=307, headers={"Location": f"{fake.url}/api/sync"})
        async with scripted(moved) as (client, _), client.subscribe(PLAN) as plan:
            with pytest.raises(convex.TransportError, match=r"CONVEX_URL.* HTTP 307"):
                await anext(plan)

        assert fake.sync_tokens == []


def test_pauses_double_to_five_seconds_and_half_of_each_is_random() -> None:
    for attempt, longest in [(0, 0.1), (1, 0.2), (4, 1.6), (6, 5.0), (10_000, 5.0)]:
        pauses = [sync.pause_before(attempt) for _ in range(200)]

        assert longest / 2 <= min(pauses) < max(pauses) <= longest
        assert len(set(pauses)) > 100


async def test_connection_can_be_given_its_pauses() -> None:
    asked: list[int] = []

    def pause(attempt: int) -> float:
        asked.append(attempt)
        return 0.0

    transport = Transport("http://127.0.0.1:1", None)
    transport.acquire()
    connection = sync.SyncConnection(transport, None, pause=pause)
    subscription = connection.subscribe(PLAN, {})
    await until(lambda: len(asked) >= 3)
    await subscription.aclose()
    await transport.release()

    assert asked[:3] == [0, 1, 2]
