"""The line between the worker and Convex, which can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Wire:
    """Forwards a port of loopback to Convex.

    Attributes:
        url: what the worker takes for the deployment's address.
    """

    def __init__(self, convex_url: str) -> None:
        parts = urlsplit(convex_url)
        assert parts.hostname is not None and parts.port is not None
        self._to = (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._silent = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def mend(self) -> None:
        """Let everything through again, or for the first time."""
        self._silent = False
        if self._server is None:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse connections and end those that are."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        if server is not None:
            await server.wait_closed()

    def silence(self) -> None:
        """Take connections and say nothing, on those that are too."""
        self._silent = True

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio logs those of its servers that are cancelled.
        task = asyncio.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection(*self._to)
            self._writers.add(back)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._forward(reader, back))
                    group.create_task(self._forward(there, writer))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except* OSError:
            pass  # one end is gone, and so is the other in a moment
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if not self._silent:
                sink.write(data)
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof()
        raise ConnectionResetError
