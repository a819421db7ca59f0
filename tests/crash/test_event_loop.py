"""The event loop is never stopped by persistence, whatever Convex or the disk does.

The deployment stands on a thread and a loop of its own, so that a call that blocks ours really
waits for it. Counted are blocking calls and LiveKit's own lines; nothing here is measured in
milliseconds but LiveKit's threshold, which is set to a block that no busy machine makes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.telemetry.loop_monitor import (
    LoopMonitorThresholds,
    start_monitoring,
    stop_monitoring,
)
from livekit.agents.testing import fake_job_context

from livekit.plugins.convex import AgentKey, AgentToken, AsyncConvexClient, SessionRecorder
from livekit.plugins.convex.testing import FakeConvex
from tests.support.session_events import said

ALWAYS = 1_000_000
# As LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS=500, where a job has 100: this machine may be busy.
BLOCKED = LoopMonitorThresholds(warn=0.5, error=0.5)
RECORDS = 120


class BlockingCalls:
    """What a thread has asked of the operating system that may keep it waiting.

    Attributes:
        seen: of the watched thread, since it is watched.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._thread: int | None = None
        self._sleep = time.sleep

    def watch(self) -> None:
        self._thread = threading.get_ident()

    def forget(self) -> None:
        self._thread = None

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if threading.get_ident() != self._thread:
            return
        # asyncio's own sockets do not wait: their timeout is 0.
        waits = event == "socket.connect" and args[0].gettimeout() != 0
        if waits or event in ("socket.getaddrinfo", "urllib.Request", "subprocess.Popen"):
            self.seen.append(event)

    def sleep(self, seconds: float) -> None:
        if threading.get_ident() == self._thread:
            self.seen.append("time.sleep")
        self._sleep(seconds)


_CALLS = BlockingCalls()
_AUDITED: list[BlockingCalls] = []


@pytest.fixture
def blocking(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingCalls]:
    if not _AUDITED:
        # An audit hook stays for as long as the process does, so there is one.
        sys.addaudithook(_CALLS.audit)
        _AUDITED.append(_CALLS)
    _CALLS.seen.clear()
    monkeypatch.setattr(time, "sleep", _CALLS.sleep)
    yield _CALLS
    _CALLS.forget()


@pytest.fixture
def elsewhere() -> Iterator[FakeConvex]:
    """A deployment on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="convex")
    thread.start()
    fake = FakeConvex()
    fake.on("sessions:record", lambda args: {"seq": args["records"][-1]["seq"]})
    fake.on("sessions:recordVersions", lambda _: [1])
    try:
        asyncio.run_coroutine_threadsafe(fake.start(), loop).result(10)
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
async def session() -> AsyncIterator[AgentSession[Any]]:
    yield AgentSession(vad=None, turn_handling={"turn_detection": "manual"})


def stop(convex: FakeConvex) -> None:
    loop = convex._runner._server._loop  # type: ignore[union-attr]
    asyncio.run_coroutine_threadsafe(convex.stop(), loop).result(10)


FAULTS: dict[str, Callable[[FakeConvex], None]] = {
    "hangs": lambda convex: convex.hang_next(times=ALWAYS),
    "takes 5 s": lambda convex: convex.delay_next(5.0, times=ALWAYS),
    "answers 503": lambda convex: convex.fail_next(503, times=ALWAYS),
    "refuses": stop,
    "healthy, on a disk that takes 1 s to sync": lambda convex: None,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_loop_runs_on_while_convex(
    fault: str,
    elsewhere: FakeConvex,
    blocking: BlockingCalls,
    session: AgentSession[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if "disk" in fault:
        monkeypatch.setattr(os, "fsync", lambda fd: time.sleep(1.0))
    FAULTS[fault](elsewhere)
    token = AgentToken(AgentKey.generate(), subject="worker")
    client = AsyncConvexClient(elsewhere.url, token=token)
    with fake_job_context(room=rtc.Room(), job_metadata='{"student_id": "k57"}') as ctx:
        loop = asyncio.get_running_loop()
        start_monitoring(loop, thresholds=BLOCKED)
        blocking.watch()
        try:
            recorder = SessionRecorder.attach(session, ctx=ctx, client=client, outbox_dir=tmp_path)
            for n in range(RECORDS):
                session.emit("conversation_item_added", said("user", f"Sentence {n}."))
            # No `await` until here, so whatever has been sent by now was sent by an append.
            assert elsewhere.call_count() == 0
            assert recorder.stats.pending == recorder.stats.appended == RECORDS + 1

            for n in range(RECORDS):
                session.emit("conversation_item_added", said("assistant", f"Answer {n}."))
                await asyncio.sleep(0.02)
            assert recorder.stats.appended == 2 * RECORDS + 1
            assert recorder.stats.lost == 0
            await recorder.aclose(timeout_s=0.5)
        finally:
            blocking.forget()
            stop_monitoring(loop)
            await client.aclose()

    assert blocking.seen == []
    blocked = [line for line in caplog.messages if "event loop blocked" in line]
    assert blocked == []


async def test_the_test_would_notice(
    blocking: BlockingCalls, caplog: pytest.LogCaptureFixture
) -> None:
    """The witnesses of the test above see what they are there for."""
    loop = asyncio.get_running_loop()
    start_monitoring(loop, thresholds=BLOCKED)
    await asyncio.sleep(0.1)
    blocking.watch()
    time.sleep(1.5)  # noqa: ASYNC251
    blocking.forget()
    await asyncio.sleep(0.1)
    stop_monitoring(loop)

    assert blocking.seen == ["time.sleep"]
    assert logging.WARNING in {
        record.levelno for record in caplog.records if "event loop blocked" in record.message
    }
