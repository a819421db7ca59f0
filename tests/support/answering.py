"""Waiting for a server that was just started."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

__all__ = ["until_it_answers"]


async def until_it_answers(http: aiohttp.ClientSession, url: str) -> None:
    """Wait until a GET of `url` is answered with 200, for at most 30 s."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url) as reply:
                    if reply.status == 200:
                        return
            await asyncio.sleep(0.05)
