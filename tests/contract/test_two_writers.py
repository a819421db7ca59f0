"""Two workers that write one session at once: no count is lost, and none is doubled."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from livekit.plugins.convex import AgentToken, AsyncConvexClient, BusyError
from tests.contract.conftest import LocalDeployment

MESSAGES = 30
ANSWERS_IN_COMMON = 10

Batch = Sequence[Mapping[str, Any]]


class Session:
    """A guest's session, and the two workers that carry it, each on connections of its own."""

    def __init__(self, deployment: LocalDeployment) -> None:
        self.key = f"test-{uuid.uuid4().hex}"
        self.started_at = time.time() * 1000
        token = AgentToken(deployment.key, subject=f"guest:{self.key}")
        self.workers = [
            AsyncConvexClient(deployment.url, token=token, timeout_s=20.0) for _ in range(2)
        ]

    def batches(self, run: str, at_ms: float) -> list[Batch]:
        """A run's journal, cut into batches: what is said, an error of it, how it ended."""
        run_id = f"{self.key}-{run}"
        begun = self.started_at + at_ms
        records: list[dict[str, Any]] = [
            {
                "kind": "sessionStarted",
                "sessionKey": self.key,
                "room": "room",
                "jobId": run_id,
                "agentName": "emma",
            }
        ]
        for n in range(MESSAGES):
            # The first few are items of the conversation that the other run repeats.
            item = f"item_{n}" if n < ANSWERS_IN_COMMON else f"{run}_{n}"
            records.append(
                {
                    "kind": "message",
                    "itemId": item,
                    "role": "assistant",
                    "text": f"message {n}",
                    "interrupted": False,
                    "metrics": {"e2eLatencyMs": 800.0 + n},
                }
            )
            records.append(
                {
                    "kind": "correction",
                    "correctionId": item,
                    "said": "I goed",
                    "target": "I went",
                    "errorType": "tense",
                    "severity": "minor",
                    "repaired": n % 2 == 0,
                }
            )
        records.append({"kind": "sessionEnded", "reason": "user_initiated"})
        whole = [
            {**record, "seq": float(seq), "createdAt": begun + seq}
            for seq, record in enumerate(records)
        ]
        return [whole[at : at + 3] for at in range(0, len(whole), 3)]

    async def deliver(self, worker: AsyncConvexClient, run: str, batches: Sequence[Batch]) -> None:
        """In order, each until it is confirmed, as the outbox does."""
        for batch in batches:
            call = {"version": 1.0, "runId": f"{self.key}-{run}", "records": list(batch)}
            while True:
                try:
                    await worker.mutation("sessions:record", call)
                    break
                except BusyError:
                    await asyncio.sleep(0.001)

    async def counts(self) -> dict[str, Any]:
        session: Any = await self.workers[0].query("sessions:get", {"sessionKey": self.key})
        names = ("status", "messageCount", "errorsDetected", "errorsCorrected", "runs")
        return {name: session[name] for name in names}

    async def aclose(self) -> None:
        for worker in self.workers:
            await worker.aclose()


@pytest.fixture
async def sessions(convex_local: LocalDeployment) -> AsyncIterator[list[Session]]:
    """Two sessions that are the same but for their names."""
    pair = [Session(convex_local) for _ in range(2)]
    yield pair
    for session in pair:
        await session.aclose()
    await asyncio.to_thread(convex_local.clear)


@pytest.fixture(params=[0.0, 0.3], ids=["undisturbed", "with conflicts"])
async def conflicts(request: pytest.FixtureRequest, convex_local: LocalDeployment) -> None:
    """Lets a share of the calls run, conflict and be rolled back."""
    if request.param > 0:
        fault = {"kind": "occ", "path": "sessions:record", "probability": request.param}
        await asyncio.to_thread(convex_local._ask, "POST", fault)


@pytest.mark.usefixtures("conflicts")
async def test_two_runs_of_one_session_at_once(sessions: list[Session]) -> None:
    at_once, in_turn = sessions
    await asyncio.gather(
        at_once.deliver(at_once.workers[0], "a", at_once.batches("a", 0.0)),
        at_once.deliver(at_once.workers[1], "b", at_once.batches("b", 1_000.0)),
    )
    for run, at_ms in (("a", 0.0), ("b", 1_000.0)):
        await in_turn.deliver(in_turn.workers[0], run, in_turn.batches(run, at_ms))

    said = float(2 * MESSAGES - ANSWERS_IN_COMMON)
    assert await at_once.counts() == {
        "status": "ended",
        "messageCount": said,
        "errorsDetected": said,
        "errorsCorrected": said / 2,
        "runs": 2.0,
    }
    assert await at_once.counts() == await in_turn.counts()


@pytest.mark.usefixtures("conflicts")
async def test_one_run_sent_by_two_workers_at_once(sessions: list[Session]) -> None:
    """A worker that was taken for dead, and the sweeper that found its journal."""
    at_once, in_turn = sessions
    batches = at_once.batches("a", 0.0)
    await asyncio.gather(
        *(at_once.deliver(worker, "a", batches) for worker in at_once.workers),
        *(at_once.deliver(worker, "a", batches) for worker in at_once.workers),
    )
    await in_turn.deliver(in_turn.workers[0], "a", in_turn.batches("a", 0.0))

    assert await at_once.counts() == {
        "status": "ended",
        "messageCount": float(MESSAGES),
        "errorsDetected": float(MESSAGES),
        "errorsCorrected": MESSAGES / 2,
        "runs": 1.0,
    }
    assert await at_once.counts() == await in_turn.counts()
