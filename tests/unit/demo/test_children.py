"""A child never outlives its parent, and takes what it started with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from emma_agent.demo.children import Child, ChildEndedError, last_lines

# Starts a child of its own, says both ids, and waits; deaf to requests if told so.
FAMILY = """
import json, os, signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(json.dumps([os.getpid(), grandchild.pid]), flush=True)
time.sleep(600)
"""


async def start(directory: Path, *arguments: str) -> tuple[Child, list[int]]:
    child = Child(
        "The family",
        [sys.executable, "-c", FAMILY, *arguments],
        env=os.environ,
        log=directory / "family.log",
    )
    await child.wait_for(lambda: child.log.read_text().endswith("\n"), timeout_s=20)
    return child, json.loads(child.log.read_text())


def lives(process: psutil.Process) -> bool:
    """A zombie does not: it waits for whoever is process 1 to take note."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(*pids: int) -> None:
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert [process for process in alive if lives(process)] == []


async def until_gone(*pids: int) -> None:
    await asyncio.to_thread(wait_until_gone, *pids)


@pytest.mark.parametrize("manner", ["obedient", "deaf"])
async def test_stopping_ends_the_child_and_its_children(tmp_path: Path, manner: str) -> None:
    child, pids = await start(tmp_path, manner)

    await child.stop(grace_s=0.3)
    await child.stop()

    await until_gone(*pids)
    assert child.returncode == (-15 if manner == "obedient" else -9)


async def test_a_child_that_ends_takes_its_children_with_it(tmp_path: Path) -> None:
    child, pids = await start(tmp_path)

    os.kill(pids[0], 9)

    await until_gone(*pids)
    async with asyncio.timeout(5):
        await child.exited.wait()


async def test_cancelled_while_stopping_it_still_ends_everything(tmp_path: Path) -> None:
    child, pids = await start(tmp_path, "deaf")
    stopping = asyncio.create_task(child.stop(grace_s=60))
    await asyncio.sleep(0)

    stopping.cancel()

    await until_gone(*pids)


async def test_waiting_for_a_child_that_has_ended_says_so(tmp_path: Path) -> None:
    child = Child("The loser", ["sh", "-c", "echo why; exit 3"], env={}, log=tmp_path / "l.log")

    with pytest.raises(ChildEndedError, match="The loser ended by itself \\(exit code 3\\)"):
        await child.wait_for(lambda: False, timeout_s=20)

    assert last_lines(child.log) == ["why"]
    assert last_lines(tmp_path / "none.log") == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_a_parent_that_is_killed_leaves_no_child(tmp_path: Path) -> None:
    """No handler runs on SIGKILL: the kernel does it."""
    parent_program = f"""
import asyncio, os, sys
from pathlib import Path
from emma_agent.demo.children import Child

async def main():
    log = Path({str(tmp_path / "sleeper.log")!r})
    child = Child("sleeper", ["sleep", "600"], env=os.environ, log=log)
    while True:
        with open(f"/proc/{{child.pid}}/comm") as comm:
            if comm.read().strip() == "sleep":
                break
        await asyncio.sleep(0.02)
    print(child.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", parent_program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()

    wait_until_gone(pid)
