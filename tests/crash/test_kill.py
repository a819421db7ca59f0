"""A job process is killed while it writes; everything whose `append` returned reaches Convex."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emma_agent.convex_local import ConvexLocal
from livekit.plugins.convex import AgentToken, AsyncConvexClient, Recovery, SweepReport

CHILD = Path(__file__).with_name("recording_child.py")


@pytest.fixture(scope="module")
def local() -> Iterator[ConvexLocal]:
    with ConvexLocal.start(db=":memory:", faults=True) as local:
        yield local


def ask_for_faults(local: ConvexLocal, fault: dict[str, Any] | None) -> None:
    """Let calls of `sessions:record` go wrong in this way alone; None: in none."""
    for method, body in (("DELETE", None), ("POST", fault)):
        if method == "POST" and body is None:
            return
        request = urllib.request.Request(
            f"{local.url}/_local/faults",
            method=method,
            data=None if body is None else json.dumps({"path": "sessions:record", **body}).encode(),
            headers={
                "Authorization": f"Convex {local.admin_key}",
                "Content-Type": "application/json",
            },
        )
        urllib.request.urlopen(request, timeout=10).close()


@pytest.fixture
def fail(local: ConvexLocal) -> Iterator[Callable[[dict[str, Any] | None], Awaitable[None]]]:
    """Says how calls shall go wrong, until the test ends."""

    async def fail(fault: dict[str, Any] | None) -> None:
        await asyncio.to_thread(ask_for_faults, local, fault)

    yield fail
    ask_for_faults(local, None)


class Killed:
    """A recording child, killed after so many records; `witnessed` is what its pipe held."""

    def __init__(
        self, local: ConvexLocal, directory: Path, session_key: str, *, after: int
    ) -> None:
        key_file = directory.parent / "key.pem"
        key_file.write_text(local.agent_key.pem())
        command = [sys.executable, str(CHILD), local.url, str(key_file), str(directory)]
        child = subprocess.Popen([*command, session_key], stdout=subprocess.PIPE)
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline() for _ in range(after)]
            child.send_signal(signal.SIGKILL)
            # What it had written before it died is still in the pipe.
            lines += child.stdout.readlines()
        finally:
            child.kill()
            assert child.wait(10) == -signal.SIGKILL
            child.stdout.close()
        # A line without its end: killed between our append and the witness's own write.
        self.witnessed = [line.decode().strip() for line in lines if line.endswith(b"\n")]
        assert len(self.witnessed) >= after


async def stored(client: AsyncConvexClient, session_key: str) -> list[str]:
    rows: list[str] = []
    cursor: Any = None
    while True:
        page: Any = await client.query(
            "messages:list",
            {"sessionKey": session_key, "paginationOpts": {"numItems": 200, "cursor": cursor}},
        )
        rows += [row["itemId"] for row in page["page"]]
        cursor = page["continueCursor"]
        if page["isDone"]:
            return rows


async def sweep_until_done(*sweepers: Recovery) -> None:
    """Faults make a sweep leave something; the next one goes on there."""
    async with asyncio.timeout(60):
        while True:
            reports: list[SweepReport] = await asyncio.gather(*(s.sweep() for s in sweepers))
            if all(report.held == report.owned == 0 for report in reports):
                return


@pytest.mark.parametrize(
    ("while_it_lives", "after_its_death"),
    [
        pytest.param(None, None, id="convex healthy"),
        pytest.param({"kind": "unavailable"}, None, id="convex away all lesson"),
        pytest.param(
            {"kind": "drop_reply", "probability": 0.5},
            {"kind": "drop_reply", "probability": 0.5},
            id="replies lost before and after",
        ),
    ],
)
async def test_what_was_appended_is_in_convex_once_and_in_order(
    local: ConvexLocal,
    fail: Callable[[dict[str, Any] | None], Awaitable[None]],
    tmp_path: Path,
    while_it_lives: dict[str, Any] | None,
    after_its_death: dict[str, Any] | None,
) -> None:
    session_key = f"crash-{uuid.uuid4().hex}"
    directory = tmp_path / "outbox"
    await fail(while_it_lives)
    killed = await asyncio.to_thread(Killed, local, directory, session_key, after=1500)
    await fail(after_its_death)

    token = AgentToken(local.agent_key, subject=f"guest:{session_key}")
    async with AsyncConvexClient(local.url, token=token, timeout_s=20.0) as client:
        await sweep_until_done(Recovery(client, directory=directory))
        rows = await stored(client, session_key)
        session: Any = await client.query("sessions:get", {"sessionKey": session_key})

    witnessed = killed.witnessed
    assert rows[: len(witnessed)] == witnessed
    # One more at most: appended, and killed before the witness could write.
    assert rows[len(witnessed) :] in ([], [f"item_{len(witnessed)}"])
    assert session["messageCount"] == len(rows)
    assert (session["status"], session["endReason"]) == ("ended", "run_lost")
    assert session["provisionalEnd"] is True


async def test_two_workers_that_sweep_one_directory_double_nothing(
    local: ConvexLocal,
    fail: Callable[[dict[str, Any] | None], Awaitable[None]],
    tmp_path: Path,
) -> None:
    directory = tmp_path / "outbox"
    keys = [f"crash-{uuid.uuid4().hex}" for _ in range(2)]
    await fail({"kind": "unavailable"})
    killed = await asyncio.gather(
        *(asyncio.to_thread(Killed, local, directory, key, after=300) for key in keys)
    )
    await fail(None)

    token = AgentToken(local.agent_key, subject="worker")
    async with (
        AsyncConvexClient(local.url, token=token, timeout_s=20.0) as one,
        AsyncConvexClient(local.url, token=token, timeout_s=20.0) as two,
    ):
        await sweep_until_done(
            Recovery(one, directory=directory), Recovery(two, directory=directory)
        )
        for key, run in zip(keys, killed, strict=True):
            speaker = one.with_token(AgentToken(local.agent_key, subject=f"guest:{key}"))
            rows = await stored(speaker, key)
            await speaker.aclose()
            assert rows[: len(run.witnessed)] == run.witnessed
            assert len(rows) <= len(run.witnessed) + 1
