"""Time that passes when a test says so."""

from __future__ import annotations

import asyncio


class Waits:
    """Stands for `asyncio.sleep`: each wait lasts until the test ends it."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self._waits: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self._all: list[asyncio.Event] = []

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self.begun.append(seconds)
        self._all.append(over)
        self._waits.put_nowait(over)
        try:
            await over.wait()
        finally:
            over.set()

    async def begins(self) -> None:
        """Until one is on."""
        while (over := await self._waits.get()).is_set():
            pass
        self._waits.put_nowait(over)

    def running(self) -> int:
        """How many have neither ended nor been given up."""
        return sum(not over.is_set() for over in self._all)

    async def end_the_next(self) -> None:
        """The next that nobody has given up yet."""
        await asyncio.sleep(0)  # What was cancelled just now hears of it.
        while (over := await self._waits.get()).is_set():
            pass
        over.set()
