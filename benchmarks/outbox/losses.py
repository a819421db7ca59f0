"""What is lost, doubled and out of order, by way of recording and by what goes wrong."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.outbox.bench_stage import BenchStage, end
from benchmarks.outbox.ways import Way
from livekit.plugins.convex import AgentToken, AsyncConvexClient, Recovery

EVENTS = 100
"""Messages of one lesson, 20 ms apart."""

_KILLED_AFTER_S = 1.5
_AWAY_S = 4.0
_END_TIMEOUT_S = 10.0
_RECOVERY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Loss:
    """Of what the witness saw. `frozen`: the process stopped for good and had to be ended."""

    sent: int
    lost: int
    doubled: int
    reordered: int
    frozen: bool = False


def killed(stage: BenchStage, way: Way, session_key: str) -> tuple[list[str], bool]:
    """SIGKILL in the middle of the lesson; Convex is well."""
    child = stage.start("until_killed", way, session_key=session_key, events=10 * EVENTS)
    _first_word(child)
    time.sleep(_KILLED_AFTER_S)
    return end(child), False


def killed_while_convex_is_away(
    stage: BenchStage, way: Way, session_key: str
) -> tuple[list[str], bool]:
    """SIGKILL in the middle of a lesson of which Convex has seen nothing; then Convex is back."""
    stage.fail(kind="unavailable")
    try:
        return killed(stage, way, session_key)
    finally:
        stage.fail()


def convex_away_for_4_s(stage: BenchStage, way: Way, session_key: str) -> tuple[list[str], bool]:
    """Longer than the lesson; then Convex is back, and the process has 10 s to get rid of it."""
    stage.fail(kind="unavailable")
    child = stage.start(
        "until_killed",
        way,
        session_key=session_key,
        events=EVENTS,
        end_timeout_s=_END_TIMEOUT_S,
    )
    _first_word(child)
    time.sleep(_AWAY_S)
    stage.fail()
    return _whole(child)


def one_in_five_503(stage: BenchStage, way: Way, session_key: str) -> tuple[list[str], bool]:
    """Each request is refused with a chance of 20 %."""
    return _with_fault(stage, way, session_key, kind="unavailable")


def one_in_seven_replies_lost(
    stage: BenchStage, way: Way, session_key: str
) -> tuple[list[str], bool]:
    """Each request is carried out, and its answer lost, with a chance of 15 %."""
    return _with_fault(stage, way, session_key, kind="drop_reply")


SCENARIOS = (
    killed,
    killed_while_convex_is_away,
    convex_away_for_4_s,
    one_in_five_503,
    one_in_seven_replies_lost,
)


def losses(stage: BenchStage, way: Way) -> dict[str, Loss]:
    """Every scenario for one way of recording."""
    found = {}
    for scenario in SCENARIOS:
        session_key = uuid.uuid4().hex
        stage.held(way, session_key)  # what came late of the scenario before
        sent, frozen = scenario(stage, way, session_key)
        stage.fail()
        if way == "recorder":
            asyncio.run(_recover(stage, stage.last_outbox))
        else:
            time.sleep(1.0)  # what was still on its way
        held = stage.held(way, session_key)
        counts, place = Counter(held), {item: i for i, item in enumerate(sent)}
        places = [place[item] for item in held if item in place]
        found[scenario.__name__] = Loss(
            sent=len(sent),
            lost=sum(counts[item] == 0 for item in sent),
            doubled=counts.total() - len(counts),
            reordered=sum(after < before for before, after in pairwise(places)),
            frozen=frozen,
        )
    return found


def _with_fault(
    stage: BenchStage, way: Way, session_key: str, *, kind: str
) -> tuple[list[str], bool]:
    stage.fail(kind=kind, probability=0.2 if kind == "unavailable" else 0.15)
    child = stage.start(
        "until_killed",
        way,
        session_key=session_key,
        events=EVENTS,
        end_timeout_s=_END_TIMEOUT_S,
    )
    return _whole(child)


def _first_word(child: subprocess.Popen[bytes]) -> None:
    """Wait until the lesson has begun; what is said stays to be read."""
    assert child.stdout is not None
    child.stdout.peek(1)  # type: ignore[attr-defined]


def _whole(child: subprocess.Popen[bytes]) -> tuple[list[str], bool]:
    try:
        said, _ = child.communicate(timeout=_END_TIMEOUT_S + 30)
    except subprocess.TimeoutExpired:
        return end(child, signal.SIGKILL), True
    # The last line is the child's own result.
    return [line.decode() for line in said.splitlines()[:-1]], False


async def _recover(stage: BenchStage, directory: Path) -> None:
    """What a worker's main process does beside its jobs."""
    token = AgentToken(stage.convex.agent_key, subject="worker")
    async with AsyncConvexClient(stage.convex.url, token=token) as client:
        recovery = Recovery(client, directory=directory)
        async with asyncio.timeout(_RECOVERY_TIMEOUT_S):
            while list(directory.glob("*.journal")):  # noqa: ASYNC240
                await recovery.sweep()
