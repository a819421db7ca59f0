"""What is broken, and how. Each scenario breaks one thing for real and ends when it is whole again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psutil

from emma_agent.demo.children import Child
from tests.chaos.stage import Stage, Verdict

Play = Callable[[Stage], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`short`: also played by `make test`."""

    name: str
    play: Play
    short: bool


SCENARIOS: list[Scenario] = []


def scenario(*, short: bool = False) -> Callable[[Play], Play]:
    """Its name is the function's, in words."""

    def add(play: Play) -> Play:
        SCENARIOS.append(Scenario(play.__name__.replace("_", " "), play, short))
        return play

    return add


# ---------------------------------------------------------------------------------------------
# Convex


@scenario()
async def all_well(stage: Stage) -> Verdict:
    async with stage.worker():
        key = await stage.teach(turns=20)
        return await over(stage, key, turns=20)


@scenario()
async def convex_refuses_for_10_s(stage: Stage) -> Verdict:
    async with stage.worker():
        key = await stage.teach(turns=60, pace_s=0.2)
        await stage.desk.until(key, 10)
        await stage.wire.cut()
        await asyncio.sleep(10.0)
        await stage.wire.mend()
        return await over(stage, key, turns=60)


@scenario(short=True)
async def convex_refuses_all_lesson(stage: Stage) -> Verdict:
    async with stage.worker():
        await stage.wire.cut()
        key = await stage.teach(turns=20)
        await witnessed(stage, key, turns=20)
        await stage.wire.mend()
        return await stage.verdict(key)


@scenario()
async def convex_hangs(stage: Stage) -> Verdict:
    async with stage.worker():
        key = await stage.teach(turns=60, pace_s=0.2)
        await stage.desk.until(key, 10)
        stage.wire.silence()
        await asyncio.sleep(8.0)
        await stage.wire.cut()  # what was taken is never answered
        await stage.wire.mend()
        return await over(stage, key, turns=60)


@scenario()
async def convex_5_s_slow(stage: Stage) -> Verdict:
    async with stage.worker():
        await stage.fail(kind="delay", delayMs=5_000)
        key = await stage.teach(turns=60, pace_s=0.2)
        await witnessed(stage, key, turns=60)
        return await stage.verdict(key)


@scenario(short=True)
async def one_in_five_requests_503(stage: Stage) -> Verdict:
    async with stage.worker():
        await stage.fail(kind="unavailable", probability=0.2)
        key = await stage.teach(turns=40)
        return await over(stage, key, turns=40)


@scenario(short=True)
async def one_in_seven_replies_lost_after_commit(stage: Stage) -> Verdict:
    async with stage.worker():
        await stage.fail(kind="drop_reply", probability=0.15)
        key = await stage.teach(turns=40)
        return await over(stage, key, turns=40)


@scenario(short=True)
async def functions_throw_then_are_repaired(stage: Stage) -> Verdict:
    async with stage.worker():
        async with stage.broken_functions():
            key = await stage.teach(turns=20)
            await witnessed(stage, key, turns=20)
        assert not list(stage.outbox.glob("*.dead")), "a bad deployment has set records aside"
        return await stage.verdict(key)


@scenario()
async def records_by_100_000_while_convex_is_away(stage: Stage) -> Verdict:
    async with stage.worker():
        await stage.wire.cut()
        key = await stage.teach(turns=1, burst=100_000)
        await stage.desk.until(key, 100_000, timeout_s=120.0)
        await stage.wire.mend()
        return await stage.verdict(key, timeout_s=400.0)


# ---------------------------------------------------------------------------------------------
# Processes


@scenario(short=True)
async def job_killed(stage: Stage) -> Verdict:
    async with stage.worker():
        key = await stage.teach(turns=100)
        seen = await stage.desk.until(key, 20)
        os.kill(seen.pids[0], signal.SIGKILL)
        return await stage.verdict(key)


@scenario()
async def worker_killed(stage: Stage) -> Verdict:
    async with stage.worker() as worker:
        key = await stage.teach(turns=100)
        await stage.desk.until(key, 20)
        os.kill(worker.pid, signal.SIGKILL)
        await worker.exited.wait()
    return await after_a_new_start(stage, key)


@scenario(short=True)
async def worker_and_jobs_killed_while_convex_is_away(stage: Stage) -> Verdict:
    async with stage.worker() as worker:
        await stage.wire.cut()
        key = await stage.teach(turns=100)
        await stage.desk.until(key, 20)
        os.killpg(worker.pid, signal.SIGKILL)
        await worker.exited.wait()
    await stage.wire.mend()
    return await after_a_new_start(stage, key)


@scenario()
async def sigterm_to_the_group(stage: Stage) -> Verdict:
    async with stage.worker() as worker:
        key = await stage.teach(turns=40)
        await stage.desk.until(key, 20)
        os.killpg(worker.pid, signal.SIGTERM)
        # A worker in production lets its lessons come to their end.
        await over(stage, key, turns=40)
        async with asyncio.timeout(60):
            await worker.exited.wait()
    return await stage.verdict(key)


@scenario()
async def two_sigterms(stage: Stage) -> Verdict:
    async with stage.worker() as worker:
        key = await stage.teach(turns=100)
        await stage.desk.until(key, 20)
        await twice_told_to_end(worker)
    return await after_a_new_start(stage, key)


@scenario()
async def event_loop_blocked_until_livekit_kills_the_job(stage: Stage) -> Verdict:
    async with stage.worker():
        key = await stage.teach(turns=30, block_s=90.0)
        await stage.desk.until(key, 20)
        await gone(stage.desk.of(key).pids[0])
        return await stage.verdict(key)


@scenario(short=True)
async def disk_full_and_writes_short(stage: Stage) -> Verdict:
    async with stage.worker():
        key = await stage.teach(turns=40, disk_bytes=4_000)
        return await over(stage, key, turns=40)


@scenario()
async def two_workers_sweep_one_directory(stage: Stage) -> Verdict:
    async with stage.worker("one") as one, stage.worker("two") as two:
        await stage.wire.cut()
        keys = [await stage.teach(turns=100) for _ in range(4)]
        for key in keys:
            seen = await stage.desk.until(key, 10)
            os.kill(seen.pids[0], signal.SIGKILL)
        await stage.wire.mend()
        verdict = await stage.verdict(*keys)
        assert one.returncode is None and two.returncode is None
        return verdict


@scenario()
async def sweepers_while_runs_are_starting(stage: Stage) -> Verdict:
    """A run's journal is its own from its first byte, so it is taken by nobody."""
    async with stage.worker("one"), stage.worker("two"):
        keys = [await stage.teach(turns=5) for _ in range(8)]
        for key in keys:
            await witnessed(stage, key, turns=5)
        return await stage.verdict(*keys)


# ---------------------------------------------------------------------------------------------
# Time


@scenario()
async def lesson_1_delivered_during_lesson_2(stage: Stage) -> Verdict:
    async with stage.worker():
        await stage.wire.cut()
        first = await stage.teach(turns=20)
        await witnessed(stage, first, turns=20)
        second = await stage.teach(turns=60, pace_s=0.3)
        await stage.desk.until(second, 10)
        await stage.wire.mend()
        await over(stage, second, turns=60)
        return await stage.verdict(first, second)


@scenario()
async def cut_off_for_longer_than_the_lease(stage: Stage) -> Verdict:
    """Convex ends the leases as it would 20 minutes later, and takes the session for dead."""
    async with stage.worker():
        key = await stage.teach(turns=60, pace_s=0.2)
        await stage.desk.until(key, 10)
        await stage.wire.cut()
        later_ms = (time.time() + 1_200.0) * 1_000
        await stage.run_internal("chaos:closeExpired", now=later_ms)
        held = await stage.held(key)
        assert held["endReason"] == "lease_expired", held
        await stage.wire.mend()
        verdict = await over(stage, key, turns=60)
        held = await stage.held(key)
        assert held["endReason"] != "lease_expired", held
        return verdict


# ---------------------------------------------------------------------------------------------


async def witnessed(stage: Stage, session_key: str, *, turns: int) -> None:
    """Wait until the whole lesson was held: both messages of each turn."""
    await stage.desk.until(session_key, 2 * turns, timeout_s=120.0)


async def over(stage: Stage, session_key: str, *, turns: int) -> Verdict:
    await witnessed(stage, session_key, turns=turns)
    return await stage.verdict(session_key)


async def after_a_new_start(stage: Stage, session_key: str) -> Verdict:
    async with stage.worker("successor"):
        return await stage.verdict(session_key)


async def twice_told_to_end(worker: Child) -> None:
    os.kill(worker.pid, signal.SIGTERM)
    await asyncio.sleep(0.5)
    os.kill(worker.pid, signal.SIGTERM)
    await worker.exited.wait()


async def gone(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        await asyncio.to_thread(psutil.Process(pid).wait, 100)
