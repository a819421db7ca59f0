"""Fixtures that several kinds of test share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from livekit.plugins.convex.testing import FakeConvex


@pytest.fixture
async def convex() -> AsyncIterator[FakeConvex]:
    """A Convex deployment on loopback that answers what the test says."""
    async with FakeConvex() as fake:
        yield fake
