"""What may be lost never waits, never raises, and every loss has its reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from convex import ConvexError
from livekit.plugins.convex import AsyncConvexClient
from livekit.plugins.convex.telemetry import MAX_BATCH_EVENTS, MAX_WAITING, Telemetry
from livekit.plugins.convex.testing import FakeConvex

from .conftest import NOW, FakeClock

MEASURED = {"name": "prefetch", "value": 41.0, "unit": "ms"}


@pytest.fixture
async def convex() -> AsyncIterator[FakeConvex]:
    async with FakeConvex() as fake:
        fake.on("analytics:track", lambda args: None)
        yield fake


@pytest.fixture
async def client(convex: FakeConvex) -> AsyncIterator[AsyncConvexClient]:
    async with AsyncConvexClient(convex.url) as client:
        yield client


async def test_events_go_together_with_time_and_session(
    convex: FakeConvex, client: AsyncConvexClient
) -> None:
    telemetry = Telemetry(client, session_key="s1", clock=lambda: NOW)
    assert telemetry.track("measured", MEASURED)
    assert telemetry.track("page_opened", {"page": "lesson"})
    await telemetry.aclose(timeout_s=5.0)

    events = {"createdAt": NOW * 1000, "sessionKey": "s1"}
    assert [call.args for call in convex.calls] == [
        {
            "events": [
                {"eventType": "measured", "eventData": MEASURED, **events},
                {"eventType": "page_opened", "eventData": {"page": "lesson"}, **events},
            ]
        }
    ]
    assert (telemetry.stats.sent, telemetry.stats.dropped) == (2, {})


async def test_nothing_is_sent_before_its_time(
    convex: FakeConvex, client: AsyncConvexClient
) -> None:
    clock = FakeClock()
    telemetry = Telemetry(client, clock=clock.time, sleep=clock.sleep)
    telemetry.track("measured", MEASURED)
    await clock.advance(4.9)
    assert convex.call_count("analytics:track") == 0
    await clock.advance(0.2)
    async with asyncio.timeout(5.0):
        await convex.called("analytics:track")
    await telemetry.aclose(timeout_s=1.0)


async def test_the_lane_is_bounded(client: AsyncConvexClient) -> None:
    telemetry = Telemetry(client)
    taken = [telemetry.track("measured", MEASURED) for _ in range(MAX_WAITING + 3)]
    assert taken.count(True) == MAX_WAITING
    assert telemetry.stats.dropped == {"full": 3}
    await telemetry.aclose(timeout_s=5.0)
    assert (telemetry.stats.sent, telemetry.stats.waiting) == (MAX_WAITING, 0)


async def test_batches_are_no_larger_than_convex_takes(
    convex: FakeConvex, client: AsyncConvexClient
) -> None:
    telemetry = Telemetry(client)
    for _ in range(MAX_BATCH_EVENTS + 1):
        telemetry.track("measured", MEASURED)
    await telemetry.aclose(timeout_s=5.0)
    sizes = []
    for call in convex.calls:
        events = call.args["events"]
        assert isinstance(events, list)
        sizes.append(len(events))
    assert sizes == [MAX_BATCH_EVENTS, 1]


async def test_what_convex_refuses_is_dropped_and_counted(
    convex: FakeConvex, client: AsyncConvexClient
) -> None:
    def refuse(args: object) -> None:
        raise ConvexError("refused", {"code": "invalid_value"})

    convex.on("analytics:track", refuse)
    telemetry = Telemetry(client)
    telemetry.track("measured", MEASURED)
    await telemetry.aclose(timeout_s=5.0)
    assert telemetry.stats.dropped == {"refused": 1}


async def test_what_cannot_be_encoded_takes_nothing_with_it(
    convex: FakeConvex, client: AsyncConvexClient
) -> None:
    telemetry = Telemetry(client)
    assert not telemetry.track("measured", {"value": object()})
    assert telemetry.track("measured", MEASURED)
    await telemetry.aclose(timeout_s=5.0)
    assert (telemetry.stats.sent, telemetry.stats.dropped) == (1, {"not_encodable": 1})


async def test_an_outage_keeps_events_waiting_until_the_end(
    convex: FakeConvex, client: AsyncConvexClient
) -> None:
    clock = FakeClock()
    await convex.stop()
    telemetry = Telemetry(client, clock=clock.time, sleep=clock.sleep)
    telemetry.track("measured", MEASURED)
    await clock.advance(6.0)
    assert telemetry.stats.waiting == 1
    await telemetry.aclose(timeout_s=5.0)
    assert telemetry.stats.dropped == {"unreachable": 1}


async def test_after_the_end_it_takes_nothing(client: AsyncConvexClient) -> None:
    telemetry = Telemetry(client)
    await telemetry.aclose(timeout_s=1.0)
    await telemetry.aclose(timeout_s=1.0)
    assert not telemetry.track("measured", MEASURED)
    assert telemetry.stats.dropped == {"closed": 1}
