"""The worker's main process: it delivers what dead runs left, and says what is wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from livekit.agents import AgentSession
from livekit.agents.testing import fake_job_context

from emma_agent import duties as duties_module, known_context
from emma_agent.duties import Duties
from emma_agent.known_context import KEPT_FOR_S
from emma_agent.logs import configure_logging
from emma_agent.settings import get_settings
from livekit.plugins.convex import AgentKey, AgentToken, AsyncConvexClient, SessionRecorder
from livekit.plugins.convex.testing import FakeConvex
from tests.support.folded import Folded


@pytest.fixture(autouse=True)
def environment(
    convex: FakeConvex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("LIVEKIT_", "OPENAI_", "CONVEX_", "NEXT_PUBLIC_", "EMMA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CONVEX_URL", convex.url)
    monkeypatch.setenv("CONVEX_AGENT_KEY", AgentKey.generate().pem())
    monkeypatch.setenv("EMMA_OUTBOX_DIR", str(tmp_path))
    configure_logging()
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


async def end(duties: Duties) -> None:
    """As LiveKit ends its loop."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "duties"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_a_dead_run_left_is_delivered(convex: FakeConvex, tmp_path: Path) -> None:
    await convex.stop()
    client = AsyncConvexClient(
        convex.url, token=AgentToken(get_settings().agent_key(), subject="guest:s1")
    )
    with fake_job_context(job_metadata='{"session_key": "s1"}') as ctx:
        session: AgentSession[None] = AgentSession(vad=None)
        recorder = SessionRecorder.attach(session, ctx=ctx, client=client, outbox_dir=tmp_path)
        assert await recorder.aclose(timeout_s=0.05) == 2
    await client.aclose()
    folded = Folded(convex)
    await convex.start()

    duties = Duties()
    duties.begin()
    async with asyncio.timeout(10):
        await folded.told.wait()
    await end(duties)

    assert [record["kind"] for record in folded.only_run] == ["sessionStarted", "runEnded"]


async def test_a_report_that_fails_ends_no_recovery(
    convex: FakeConvex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(client: object) -> NoReturn:
        raise RuntimeError("…")

    monkeypatch.setattr(duties_module, "check_deployment", fail)
    duties = Duties()
    duties.begin()
    said = asyncio.Event()
    caplog.handler.addFilter(lambda record: said.set() or True)  # type: ignore[func-returns-value]
    async with asyncio.timeout(10):
        await said.wait()
    [line] = [record for record in caplog.records if record.getMessage() == "lesson.task_failed"]
    assert (line.__dict__["task"], line.__dict__["error"]) == ("duties.report", "RuntimeError")
    assert [task for task in asyncio.all_tasks() if task.get_name() == "duties"]
    await end(duties)


async def test_what_is_wrong_with_the_deployment_is_said_once(
    convex: FakeConvex, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="emma_agent")
    said = asyncio.Event()

    def note(record: logging.LogRecord) -> bool:
        if record.name == "emma_agent.duties":
            said.set()
        return True

    caplog.handler.addFilter(note)
    duties = Duties()
    duties.begin()
    async with asyncio.timeout(10):
        await said.wait()
    await end(duties)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "duties.report"]
    [line] = [record for record in caplog.records if record.name == "emma_agent.duties"]
    assert line.getMessage() == "convex.functions_missing"
    assert "npm run convex:deploy" in line.__dict__["remedy"]


async def test_what_was_last_known_of_students_goes_when_it_is_old(
    convex: FakeConvex, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Also of those who never come back; journals are none of its business."""
    caplog.set_level(logging.INFO, logger="emma_agent")
    a_week_ago = time.time() - KEPT_FOR_S - 60
    for name in ("old.context", "new.context", "run_1.journal"):
        (tmp_path / name).write_text("…")
        if name != "new.context":
            os.utime(tmp_path / name, (a_week_ago, a_week_ago))
    said = asyncio.Event()

    def note(record: logging.LogRecord) -> bool:
        if record.getMessage() == "known_context.pruned":
            said.set()
        return True

    caplog.handler.addFilter(note)
    duties = Duties()
    duties.begin()
    async with asyncio.timeout(10):
        await said.wait()
    await end(duties)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.context", "run_1.journal"]  # noqa: ASYNC240
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "duties.prune"]


async def test_a_disk_that_refuses_to_prune_is_said(
    convex: FakeConvex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(directory: Path) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(known_context, "prune", refuse)
    said = asyncio.Event()

    def note(record: logging.LogRecord) -> bool:
        if record.getMessage() == "known_context.not_pruned":
            said.set()
        return True

    caplog.handler.addFilter(note)
    duties = Duties()
    duties.begin()
    async with asyncio.timeout(10):
        await said.wait()
    # It is tried again, and ends nothing else.
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert {"duties", "duties.prune"} <= names
    await end(duties)
