"""Telemetry: what is worth knowing and may be lost. It travels apart from the records.

    telemetry = convex.Telemetry(client)
    telemetry.track("measured", {"name": "prefetch", "value": 41.0, "unit": "ms"})
    await telemetry.aclose(timeout_s=1.0)

Nothing here reaches the disk, nothing waits, and nothing raises into a lesson: what does not get
through is dropped and counted by reason. Numbers that must be exact belong into records.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import ConvexClientError, EncodingError
from .log import logger
from .sender import Caller
from .values import encode_args

TRACK = "analytics:track"

# The most that `analytics:track` takes in one call (convex/limits.ts).
MAX_BATCH_EVENTS = 100
MAX_WAITING = 1_000
SEND_EVERY_S = 5.0
REQUEST_TIMEOUT_S = 5.0

DropReason = Literal["full", "not_encodable", "refused", "unreachable", "closed"]


@dataclass(frozen=True, slots=True)
class TelemetryStats:
    """What became of the events so far.

    Attributes:
        sent: confirmed by Convex.
        waiting: not sent yet.
        dropped: by reason. `full`: 1,000 were waiting; `not_encodable`: no value of Convex;
            `refused`: the function threw; `unreachable`: still waiting at the end; `closed`: came
            after it.
    """

    sent: int
    waiting: int
    dropped: Mapping[DropReason, int]


class Telemetry:
    """A bounded lane of events to one mutation of the deployment.

    Args:
        client: closed by its owner, after this.
        function: takes `{ events: [{ eventType, createdAt, eventData, sessionKey? }] }`.
        session_key: sent with each event, so that Convex can tell whose it is.
        clock: Unix seconds.
        sleep: for tests.
    """

    def __init__(
        self,
        client: Caller,
        *,
        function: str = TRACK,
        session_key: str | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._function = function
        self._about = {} if session_key is None else {"sessionKey": session_key}
        self._clock = clock
        self._sleep = sleep
        self._waiting: deque[dict[str, object]] = deque()
        self._sent = 0
        self._dropped: Counter[DropReason] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def stats(self) -> TelemetryStats:
        """Counts so far, for a summary line."""
        return TelemetryStats(self._sent, len(self._waiting), dict(self._dropped))

    def track(self, event_type: str, data: Mapping[str, object]) -> bool:
        """Take one event; whether it was taken. Call it on the session's event loop.

        Args:
            event_type: one that the function knows.
            data: structured, of the shape that belongs to the type. No words of a student.
        """
        event = {
            "eventType": event_type,
            "createdAt": self._clock() * 1000,
            "eventData": dict(data),
            **self._about,
        }
        if self._closed:
            return self._drop("closed")
        if len(self._waiting) >= MAX_WAITING:
            return self._drop("full")
        try:
            # One that cannot be encoded would take its whole batch with it.
            encode_args(self._function, event)
        except EncodingError:
            return self._drop("not_encodable")
        self._waiting.append(event)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="telemetry")
        return True

    async def aclose(self, timeout_s: float) -> None:
        """Send what is waiting, for at most `timeout_s` seconds, and drop the rest.

        May be called twice.
        """
        if self._closed:
            return
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting and await self._send():
                    pass
        except TimeoutError:
            pass
        finally:
            if self._waiting:
                self._drop("unreachable", len(self._waiting))
                self._waiting.clear()
            if self._dropped:
                dropped = {str(reason): count for reason, count in self._dropped.items()}
                logger.warning("telemetry.dropped", extra={"function": self._function, **dropped})

    async def _run(self) -> None:
        while True:
            await self._sleep(SEND_EVERY_S)
            # What does not get through waits for the next round: nobody is in a hurry.
            while self._waiting and await self._send():
                pass

    async def _send(self) -> bool:
        """One batch; whether Convex could be asked at all."""
        batch = [self._waiting[i] for i in range(min(MAX_BATCH_EVENTS, len(self._waiting)))]
        try:
            await self._client.mutation(
                self._function, {"events": batch}, timeout_s=REQUEST_TIMEOUT_S
            )
        except ConvexClientError as error:
            if error.retryable:
                return False
            self._drop("refused", len(batch))
        else:
            self._sent += len(batch)
        for _ in batch:
            self._waiting.popleft()
        return True

    def _drop(self, reason: DropReason, count: int = 1) -> Literal[False]:
        self._dropped[reason] += count
        return False
