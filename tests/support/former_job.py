"""A process that holds a run's journal and records a sentence for each line on its stdin."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Self

from livekit.plugins.convex import MessageRecord, Outbox
from livekit.plugins.convex.journal import FORMAT, Header
from livekit.plugins.convex.limits import RECORD_VERSION


class FormerJob:
    """The process, as its parent sees it: `async with await FormerJob.start(…) as job`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, url: str, directory: Path, *, subject: str) -> Self:
        """A process whose run has recorded `item_0`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            *(url, str(directory), subject),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        job = cls(process)
        await job.says("item_0")
        return job

    async def says(self, item_id: str) -> None:
        """Let it record a sentence, and wait until it has."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{item_id}\n".encode())
        assert await self._process.stdout.readline() == b"recorded\n"

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()


def main(url: str, directory: str, subject: str) -> None:
    header = Header(
        format=FORMAT,
        record_version=RECORD_VERSION,
        run_id=uuid.uuid4().hex,
        session_key="lesson_1",
        subject=subject,
        deployment=url,
        started_at_ms=time.time() * 1000,
        steady_at_ms=time.monotonic() * 1000,
    )
    outbox = Outbox.open(Path(directory), header)
    for line in sys.stdin:
        outbox.append(
            MessageRecord(
                created_at=time.time(),
                item_id=line.strip(),
                role="user",
                text="Hello",
                interrupted=False,
            )
        )
        os.write(1, b"recorded\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
