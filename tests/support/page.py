"""A student's page in a process of its own, so that its network can be cut: it is killed.

async with Page.open(ticket) as page:
    await page.greeted()
    page.kill()
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Self

from emma_agent.demo.student import Ticket
from tests.support.writing_student import WritingStudent


class Page:
    """Use `open`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def open(cls, ticket: Ticket) -> AsyncIterator[Self]:
        """Join with the ticket; whatever happens, the process is gone at the end of the block."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.page",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        page = cls(process)
        try:
            await page._tell(json.dumps(asdict(ticket)))
            yield page
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def read(self) -> str:
        """Emma's next message, whole."""
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        assert line, "the page has ended"
        return str(json.loads(line))

    async def write(self, text: str) -> None:
        """Send one sentence."""
        await self._tell(text)

    async def vanish(self) -> None:
        """The network is gone: nobody says goodbye."""
        self._process.kill()
        await self._process.wait()

    async def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()


async def _main() -> None:
    async def next_line() -> str:
        line: str = await asyncio.to_thread(sys.stdin.readline)
        return line.rstrip("\n")

    ticket = Ticket(**json.loads(await next_line()))
    async with WritingStudent.join(ticket) as student:
        while True:
            text = await student.read()
            sys.stdout.write(json.dumps(text) + "\n")
            sys.stdout.flush()
            await student.write(await next_line())


if __name__ == "__main__":
    asyncio.run(_main())
