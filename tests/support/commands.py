"""Runs `python -m emma_agent …` in this process."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from emma_agent import cli
from emma_agent.settings import get_settings


def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every setting of a worker out of the environment."""
    for name in list(os.environ):
        if name.startswith(("LIVEKIT_", "OPENAI_", "CONVEX_", "NEXT_PUBLIC_", "EMMA_")):
            monkeypatch.delenv(name)
    get_settings.cache_clear()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `python -m emma_agent <arguments>`."""
    get_settings.cache_clear()
    monkeypatch.setattr(sys, "argv", ["emma_agent", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


async def run_beside(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """As `run`, while this loop goes on serving."""
    return await asyncio.to_thread(run, monkeypatch, *arguments)
