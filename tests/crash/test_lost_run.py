"""Sweeps while a process begins runs, and after it was killed: none is taken from the living."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from livekit.plugins.convex import AgentKey, AgentToken, AsyncConvexClient, Recovery
from livekit.plugins.convex.testing import FakeConvex
from tests.support.folded import Folded

CHILD = Path(__file__).with_name("starting_child.py")
RUNS = 120


@pytest.fixture
async def client(convex: FakeConvex) -> AsyncIterator[AsyncConvexClient]:
    token = AgentToken(AgentKey.generate(), subject="worker")
    async with AsyncConvexClient(convex.url, token=token) as client:
        yield client


async def test_a_run_that_is_just_starting_is_its_owners_until_that_dies(
    convex: FakeConvex, client: AsyncConvexClient, tmp_path: Path
) -> None:
    folded = Folded(convex)
    directory = tmp_path / "outbox"
    sweepers = [Recovery(client, directory=directory) for _ in range(2)]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        convex.url,
        str(directory),
        str(RUNS),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    begun: list[str] = []
    try:
        reading = asyncio.create_task(read_until_all(child.stdout, begun))
        met: set[int] = set()
        while not reading.done():
            for report in await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers)):
                met.add(report.owned)
                assert report.unreadable == report.delivered == report.held == 0
        await reading
        for sweeper in sweepers:
            assert (await sweeper.sweep()).owned == RUNS
    finally:
        child.kill()
        assert await child.wait() == -signal.SIGKILL
    assert met - {0, RUNS}, "no sweep met the runs while they began"
    assert folded.records == {}

    reports = await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))

    assert sum(report.runs_lost for report in reports) == RUNS
    assert sorted(folded.records) == sorted(begun)
    for records in folded.records.values():
        assert [record["kind"] for record in records] == ["message", "runEnded"]
        assert records[1]["reason"] == "run_lost"
        assert records[1]["createdAt"] == pytest.approx(records[0]["createdAt"], abs=1e-3)
    assert list(directory.iterdir()) == []


async def read_until_all(pipe: asyncio.StreamReader, begun: list[str]) -> None:
    async with asyncio.timeout(60):
        while (line := (await pipe.readline()).decode().strip()) != "all":
            assert line, "the child ended"
            begun.append(line)
