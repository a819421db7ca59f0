"""Is it the right deployment? Each thing that can be wrong has its own line and remedy."""

from __future__ import annotations

import pytest

from convex import ConvexError
from emma_agent.deployment import Event, check_deployment
from livekit.plugins.convex import AsyncConvexClient
from livekit.plugins.convex.testing import FakeConvex

FUNCTION = "sessions:recordVersions"


async def test_a_deployment_that_folds_our_version_is_ready(convex: FakeConvex) -> None:
    convex.on(FUNCTION, lambda args: [1.0])
    async with AsyncConvexClient(convex.url) as client:
        assert (await check_deployment(client)).ok


@pytest.mark.parametrize(
    ("versions", "event"),
    [
        ([], "convex.functions_old"),
        ([0.0], "convex.functions_old"),
        (7, "convex.functions_missing"),
    ],
)
async def test_functions_of_another_version_are_named(
    convex: FakeConvex, versions: object, event: Event
) -> None:
    convex.on(FUNCTION, lambda args: versions)
    async with AsyncConvexClient(convex.url) as client:
        finding = await check_deployment(client)
    assert (finding.event, finding.ok) == (event, False)
    assert "npm run convex:deploy" in finding.remedy
    assert "records wait on disk" in finding.remedy


async def test_another_projects_deployment_is_named(convex: FakeConvex) -> None:
    async with AsyncConvexClient(convex.url) as client:
        finding = await check_deployment(client)
    assert finding.event == "convex.functions_missing"
    assert "CONVEX_URL" in finding.remedy


async def test_a_foreign_key_is_named() -> None:
    async with (
        FakeConvex(accepts=lambda token: False) as convex,
        AsyncConvexClient(convex.url, token="foreign") as client,
    ):
        finding = await check_deployment(client)
    assert finding.event == "convex.key_refused"
    assert "AGENT_JWKS" in finding.remedy


async def test_a_key_that_may_not_is_named(convex: FakeConvex) -> None:
    def refuse(args: object) -> object:
        raise ConvexError("…", {"code": "unauthenticated", "message": "…"})

    convex.on(FUNCTION, refuse)
    async with AsyncConvexClient(convex.url) as client:
        finding = await check_deployment(client)
    assert finding.event == "convex.key_refused"


async def test_an_unreachable_deployment_is_named(convex: FakeConvex) -> None:
    await convex.stop()
    async with AsyncConvexClient(convex.url) as client:
        finding = await check_deployment(client)
    assert finding.event == "convex.unreachable"
    assert "check CONVEX_URL" in finding.remedy


async def test_a_silent_deployment_is_named(convex: FakeConvex) -> None:
    convex.hang_next()
    async with AsyncConvexClient(convex.url) as client:
        finding = await check_deployment(client, timeout_s=0.05)
    assert finding.event == "convex.unreachable"


@pytest.mark.parametrize(("status", "event"), [(503, "convex.busy"), (404, "convex.wrong_address")])
async def test_what_is_no_answer_of_convex_is_named(
    convex: FakeConvex, status: int, event: Event
) -> None:
    convex.fail_next(status)
    async with AsyncConvexClient(convex.url) as client:
        finding = await check_deployment(client)
    assert finding.event == event
