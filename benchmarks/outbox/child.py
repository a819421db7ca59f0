"""What is measured in a process of its own; prints one JSON object.

    python -m benchmarks.outbox.child MEASUREMENT '{"way": …, "url": …, "outbox": …}'

A process of its own, since the official client may stop it for good: then the parent ends it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import random
import resource
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from itertools import count, pairwise
from pathlib import Path
from typing import Any, cast

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.testing import fake_job_context

from benchmarks.outbox import lesson
from benchmarks.outbox.published import Ending
from benchmarks.outbox.ways import Way, attach, key_from_env
from livekit.plugins.convex import AgentToken, AsyncConvexClient
from livekit.plugins.convex.journal import SUFFIX

BEAT_S = 0.005
WARM_UP_EVENTS = 30


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the parent wants; `seconds` and `events` end a measurement, whichever comes first."""

    way: Way
    url: str
    outbox: str
    session_key: str = ""
    seconds: float = 5.0
    events: int = 1_000_000
    end_timeout_s: float = 0.0


class TimedSession(AgentSession[Any]):
    """Knows how long its listeners take. What LiveKit's own emitter takes is the same for all."""

    def __init__(self) -> None:
        super().__init__(vad=None, turn_handling={"turn_detection": "manual"})
        self._listeners_ns = 0
        self._timed: dict[Any, Any] = {}

    def on(self, event: Any, callback: Any = None) -> Any:
        @functools.wraps(callback)
        def timed(said: Any) -> None:
            began = time.perf_counter_ns()
            callback(said)
            self._listeners_ns += time.perf_counter_ns() - began

        self._timed[callback] = timed
        super().on(event, timed)
        return callback

    def off(self, event: Any, callback: Any) -> None:
        super().off(event, self._timed.pop(callback))

    def tell(self, event: Any, said: Any) -> int:
        """Let the listeners hear it; nanoseconds that they took."""
        self._listeners_ns = 0
        self.emit(event, said)
        return self._listeners_ns


@asynccontextmanager
async def session_of(asked: Asked) -> AsyncIterator[tuple[TimedSession, Ending]]:
    """An agent session that is recorded in the way asked for."""
    session = TimedSession()
    with fake_job_context(room=rtc.Room()) as ctx:
        ending = attach(
            asked.way,
            session,
            ctx=ctx,
            url=asked.url,
            key=key_from_env(),
            session_key=asked.session_key or uuid.uuid4().hex,
            outbox=Path(asked.outbox),
        )
        yield session, ending


def spread(nanoseconds: Sequence[int]) -> dict[str, float]:
    """p50, p99 and maximum in microseconds."""
    ordered = sorted(nanoseconds)
    return {
        "p50_us": statistics.median(ordered) / 1000,
        "p99_us": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] / 1000,
        "max_us": ordered[-1] / 1000,
        "events": len(ordered),
    }


async def one_event(asked: Asked) -> dict[str, Any]:
    """Messages 10 to 100 ms apart: the cost of each, and the longest stall of the loop."""
    async with session_of(asked) as (session, ending):
        for n in range(WARM_UP_EVENTS):
            session.tell("conversation_item_added", lesson.message(n, "user"))
            await asyncio.sleep(0.002)
        pause = random.Random(7)
        costs: list[int] = []
        beats = [time.perf_counter()]

        async def beat() -> None:
            while True:
                await asyncio.sleep(BEAT_S)
                beats.append(time.perf_counter())

        heart = asyncio.create_task(beat())
        until = time.monotonic() + asked.seconds
        for n in count(WARM_UP_EVENTS):
            if time.monotonic() > until:
                break
            role = "user" if n % 2 else "assistant"
            costs.append(session.tell("conversation_item_added", lesson.message(n, role)))
            await asyncio.sleep(pause.uniform(0.01, 0.1))
        heart.cancel()
        stall_s = max(later - earlier for earlier, later in pairwise(beats)) - BEAT_S
        await ending(asked.end_timeout_s)
    return {**spread(costs), "stall_ms": 1000 * stall_s}


async def back_to_back(asked: Asked) -> dict[str, Any]:
    """Messages without a pause."""
    async with session_of(asked) as (session, ending):
        events = [lesson.message(n, "user") for n in range(WARM_UP_EVENTS + asked.events)]
        costs = [session.tell("conversation_item_added", event) for event in events]
        await ending(asked.end_timeout_s)
    return spread(costs[WARM_UP_EVENTS:])


async def whole_lesson(asked: Asked) -> dict[str, Any]:
    """All events of 25 minutes, 10 ms apart: what the listeners and the delivery take of a core."""
    async with session_of(asked) as (session, ending):
        await asyncio.sleep(0.5)
        events = list(lesson.events())
        gc.collect()
        before = time.process_time()
        listeners_ns = 0
        for name, event in events:
            listeners_ns += session.tell(name, event)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        cpu_s = time.process_time() - before
        await ending(asked.end_timeout_s)
    return {"listeners_ms": listeners_ns / 1e6, "cpu_s": cpu_s, "events": len(events)}


async def outage(asked: Asked) -> dict[str, Any]:
    """`events` messages that nobody takes: memory and disk."""
    async with session_of(asked) as (session, ending):
        for n in range(1_000):
            session.tell("conversation_item_added", lesson.message(n, "user"))
        await asyncio.sleep(0.2)
        before = _resident_bytes()
        began = time.monotonic()
        for n in range(1_000, 1_000 + asked.events):
            session.tell("conversation_item_added", lesson.message(n, "user"))
            if n % 100 == 0:
                # What LiveKit keeps of each event for its report is LiveKit's own memory.
                session._recorded_events.clear()
                await asyncio.sleep(0)
        gc.collect()
        grown = _resident_bytes() - before
        disk = sum(path.stat().st_size for path in Path(asked.outbox).glob(f"*{SUFFIX}"))  # noqa: ASYNC240
        took_s = time.monotonic() - began
        await ending(asked.end_timeout_s)
    return {"grown_bytes": grown, "disk_bytes": disk, "took_s": took_s}


async def to_subscriber(asked: Asked) -> dict[str, Any]:
    """From the listener's event until a subscriber of the session's messages has the row."""
    session_key = uuid.uuid4().hex
    asked = Asked(**{**_plain(asked), "session_key": session_key})
    token = AgentToken(key_from_env(), subject=f"guest:{session_key}")
    said: dict[str, int] = {}
    took: list[int] = []
    async with AsyncConvexClient(asked.url, token=token) as page, session_of(asked) as pair:
        session, ending = pair
        seen, caught_up = asyncio.Event(), asyncio.Event()
        arguments = {
            "sessionKey": session_key,
            "paginationOpts": {"numItems": 200, "cursor": None},
        }

        async def follow() -> None:
            known: set[str] = set()
            async with page.subscribe("messages:list", arguments) as values:
                async for value in values:
                    page_of_rows = cast("dict[str, Any]", value)
                    now = time.perf_counter_ns()
                    seen.set()
                    for row in page_of_rows["page"]:
                        item = row["itemId"]
                        if item not in known:
                            known.add(item)
                            took.append(now - said[item])
                            if len(took) == len(said):
                                caught_up.set()

        follower = asyncio.create_task(follow())
        await seen.wait()
        for n in range(min(asked.events, 190)):
            event = lesson.message(n, "user" if n % 2 else "assistant")
            said[lesson.item_id(n)] = time.perf_counter_ns()
            session.tell("conversation_item_added", event)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            while len(took) < len(said):
                caught_up.clear()
                await caught_up.wait()
        follower.cancel()
        await ending(asked.end_timeout_s)
    return spread(took)


async def drain(asked: Asked) -> dict[str, Any]:
    """`events` records that wait on disk: how long until Convex has them."""
    async with session_of(asked) as (session, ending):
        for n in range(asked.events):
            session.tell("conversation_item_added", lesson.message(n, "user"))
        began = time.monotonic()
        left = await ending(asked.end_timeout_s)
        took_s = time.monotonic() - began
    return {"took_s": took_s, "left": left, "records": asked.events}


async def until_killed(asked: Asked) -> dict[str, Any]:
    """Messages 20 ms apart; each is witnessed on stdout once the listener has returned."""
    async with session_of(asked) as (session, ending):
        for n in range(asked.events):
            event = lesson.message(n, "user" if n % 2 else "assistant", text=f"Sentence {n}.")
            session.tell("conversation_item_added", event)
            os.write(1, f"{lesson.item_id(n)}\n".encode())
            await asyncio.sleep(0.02)
        await ending(asked.end_timeout_s)
    return {}


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _plain(asked: Asked) -> dict[str, Any]:
    return {field.name: getattr(asked, field.name) for field in fields(asked)}


MEASUREMENTS: dict[str, Callable[[Asked], Awaitable[dict[str, Any]]]] = {
    measure.__name__: measure
    for measure in (
        one_event,
        back_to_back,
        whole_lesson,
        outage,
        to_subscriber,
        drain,
        until_killed,
    )
}


def main() -> None:
    name, asked = sys.argv[1], Asked(**json.loads(sys.argv[2]))

    async def measure() -> dict[str, Any]:
        return await MEASUREMENTS[name](asked)

    found = asyncio.run(measure())
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    # The official client may keep the interpreter from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
