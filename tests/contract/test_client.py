"""What AsyncConvexClient promises, against every deployment there is.

It calls the project's own functions as a guest, so that the same tests run against a real
deployment and leave nothing there but a guest's session.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from livekit.plugins import convex

from .conftest import Deployment

SAID = "Ich habe gestern 🍞 gekauft."


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[convex.AsyncConvexClient]:
    async with deployment.guest() as client:
        yield client


@pytest.fixture
def run_id() -> str:
    return f"contract-{uuid.uuid4()}"


def started(run_id: str) -> dict[str, object]:
    return {
        "kind": "sessionStarted",
        "seq": 0,
        "createdAt": time.time() * 1000,
        "sessionKey": run_id,
        "room": "contract",
        "jobId": "contract",
        "agentName": "contract",
    }


def message(seq: int, text: str = SAID) -> dict[str, object]:
    return {
        "kind": "message",
        "seq": seq,
        "createdAt": time.time() * 1000,
        "itemId": f"item_{seq}",
        "role": "user",
        "text": text,
        "interrupted": False,
    }


def batch(run_id: str, *records: dict[str, object]) -> dict[str, object]:
    return {"version": 1, "runId": run_id, "records": list(records)}


def first_page(run_id: str) -> dict[str, object]:
    return {"sessionKey": run_id, "paginationOpts": {"numItems": 10, "cursor": None}}


def texts(page: convex.ConvexValue) -> list[str]:
    return [row["text"] for row in cast(dict[str, Any], page)["page"]]


async def test_query_returns_its_value(client: convex.AsyncConvexClient) -> None:
    versions = await client.query("sessions:recordVersions")

    assert isinstance(versions, list)
    assert 1.0 in versions
    assert all(type(version) is float for version in versions)


async def test_mutation_is_seen_by_the_next_query(
    client: convex.AsyncConvexClient, run_id: str
) -> None:
    assert texts(await client.query("messages:list", first_page(run_id))) == []

    folded = await client.mutation("sessions:record", batch(run_id, started(run_id), message(1)))

    assert folded == {"seq": 1.0}
    assert texts(await client.query("messages:list", first_page(run_id))) == [SAID]


async def test_mutation_safe_to_repeat_changes_nothing_when_repeated(
    client: convex.AsyncConvexClient, run_id: str
) -> None:
    records = batch(run_id, started(run_id), message(1))

    for _ in range(2):
        assert await client.mutation("sessions:record", records) == {"seq": 1.0}

    assert texts(await client.query("messages:list", first_page(run_id))) == [SAID]


async def test_thrown_convex_error_brings_its_data(
    client: convex.AsyncConvexClient, run_id: str
) -> None:
    with pytest.raises(convex.FunctionError) as caught:
        await client.mutation("sessions:record", batch(run_id, message(7)))

    assert caught.value.code == "gap"
    assert isinstance(caught.value.data, dict)
    assert caught.value.data["expected"] == 0.0
    assert not caught.value.retryable


async def test_refused_arguments_are_not_quoted(
    client: convex.AsyncConvexClient, run_id: str
) -> None:
    with pytest.raises(convex.FunctionError) as caught:
        await client.mutation("sessions:record", {**batch(run_id), "unknown": SAID})

    assert caught.value.code is None
    assert SAID not in str(caught.value)


@pytest.mark.parametrize("function", ["no:such", "seed:demo"])
async def test_function_that_is_not_there_or_internal_says_to_deploy(
    client: convex.AsyncConvexClient, function: str
) -> None:
    with pytest.raises(convex.FunctionError) as caught:
        await client.mutation(function)

    assert caught.value.code is None
    assert function in str(caught.value)


async def test_caller_without_a_token_is_nobody(deployment: Deployment) -> None:
    async with convex.AsyncConvexClient(deployment.url, token=None, timeout_s=20.0) as nobody:
        with pytest.raises(convex.FunctionError) as caught:
            await nobody.query("sessions:recordVersions")

    assert caught.value.code == "unauthenticated"


async def test_foreign_key_is_an_authentication_error(deployment: Deployment) -> None:
    foreign = convex.AgentKey.generate(issuer=deployment.key.issuer)
    token = convex.AgentToken(foreign, subject="guest:forged")
    async with convex.AsyncConvexClient(deployment.url, token=token, timeout_s=20.0) as client:
        with pytest.raises(convex.AuthenticationError):
            await client.query("sessions:recordVersions")


async def test_expired_token_is_an_authentication_error(deployment: Deployment) -> None:
    old = convex.AgentToken(
        deployment.key, subject="guest:late", clock=lambda: time.time() - 86_400
    ).value()
    async with convex.AsyncConvexClient(deployment.url, token=old, timeout_s=20.0) as client:
        with pytest.raises(convex.AuthenticationError):
            await client.query("sessions:recordVersions")


async def test_worker_whose_clock_is_wrong_still_gets_through(deployment: Deployment) -> None:
    token = convex.AgentToken(
        deployment.key, subject="guest:late", clock=lambda: time.time() - 86_400
    )
    async with convex.AsyncConvexClient(deployment.url, token=token, timeout_s=20.0) as client:
        assert await client.query("sessions:recordVersions")


async def test_many_calls_at_once(client: convex.AsyncConvexClient) -> None:
    answers = await asyncio.gather(
        *(client.query("sessions:recordVersions") for _ in range(40)),
    )

    assert all(answer == answers[0] for answer in answers)


async def test_deadline_leaves_the_client_usable(client: convex.AsyncConvexClient) -> None:
    with pytest.raises(convex.RequestTimeoutError):
        await client.query("sessions:recordVersions", timeout_s=1e-6)

    assert await client.query("sessions:recordVersions")


async def test_lost_reply_may_have_been_committed(
    deployment: Deployment, client: convex.AsyncConvexClient, run_id: str
) -> None:
    await deployment.fail_next("drop_reply", "sessions:record")

    with pytest.raises(convex.TransportError) as caught:
        await client.mutation("sessions:record", batch(run_id, started(run_id), message(1)))

    assert caught.value.retryable
    assert texts(await client.query("messages:list", first_page(run_id))) == [SAID]


async def test_unavailable_deployment_has_done_nothing(
    deployment: Deployment, client: convex.AsyncConvexClient, run_id: str
) -> None:
    await deployment.fail_next("unavailable", "sessions:record")

    with pytest.raises(convex.BusyError):
        await client.mutation("sessions:record", batch(run_id, started(run_id), message(1)))

    assert texts(await client.query("messages:list", first_page(run_id))) == []


async def test_hanging_call_ends_at_its_deadline(
    deployment: Deployment, client: convex.AsyncConvexClient
) -> None:
    await deployment.fail_next("hang", "sessions:recordVersions")

    with pytest.raises(convex.RequestTimeoutError):
        await client.query("sessions:recordVersions", timeout_s=0.1)

    assert await client.query("sessions:recordVersions")


async def test_slow_answer_within_the_deadline_counts(
    deployment: Deployment, client: convex.AsyncConvexClient
) -> None:
    await deployment.fail_next("delay", "sessions:recordVersions", delay_s=0.2)

    assert await client.query("sessions:recordVersions")


async def test_subscription_shows_the_value_now_and_after_a_change(
    client: convex.AsyncConvexClient, run_id: str
) -> None:
    async with client.subscribe("messages:list", first_page(run_id)) as pages:
        async with asyncio.timeout(20):
            assert texts(await anext(pages)) == []
            for seq, records in enumerate([[started(run_id)], [message(1)], [message(2, "Gut!")]]):
                await client.mutation("sessions:record", batch(run_id, *records))
                if seq > 0:
                    page = texts(await anext(pages))
                    while len(page) < seq:  # the new session alone may show as a change
                        page = texts(await anext(pages))

    assert page == [SAID, "Gut!"]


async def test_several_subscriptions_side_by_side(
    client: convex.AsyncConvexClient, run_id: str
) -> None:
    async with (
        client.subscribe("messages:list", first_page(run_id)) as pages,
        client.subscribe("sessions:plan") as plans,
        asyncio.timeout(20),
    ):
        assert texts(await anext(pages)) == []
        plan = await anext(plans)

    assert isinstance(plan, dict)
    assert plan["lesson"] is None


async def test_query_that_throws_is_raised_to_its_subscriber(
    client: convex.AsyncConvexClient,
) -> None:
    async with client.subscribe("students:tutoringContext", {}) as contexts, asyncio.timeout(20):
        with pytest.raises(convex.FunctionError) as caught:
            await anext(contexts)

    assert caught.value.code == "student_unknown"


async def test_subscription_to_a_function_that_is_not_there(
    client: convex.AsyncConvexClient,
) -> None:
    async with client.subscribe("no:such") as values, asyncio.timeout(20):
        with pytest.raises(convex.FunctionError, match="no:such"):
            await anext(values)


async def test_forged_token_cannot_subscribe(deployment: Deployment) -> None:
    foreign = convex.AgentKey.generate(issuer=deployment.key.issuer)
    token = convex.AgentToken(foreign, subject="guest:forged")
    async with (
        convex.AsyncConvexClient(deployment.url, token=token) as client,
        client.subscribe("sessions:plan") as plans,
        asyncio.timeout(20),
    ):
        with pytest.raises(convex.AuthenticationError):
            await anext(plans)


async def test_subscription_of_a_worker_whose_clock_is_wrong(deployment: Deployment) -> None:
    token = convex.AgentToken(
        deployment.key, subject="guest:late", clock=lambda: time.time() - 86_400
    )
    async with (
        convex.AsyncConvexClient(deployment.url, token=token) as client,
        client.subscribe("sessions:plan") as plans,
        asyncio.timeout(20),
    ):
        assert await anext(plans)


class ImpatientToken(convex.AgentToken):
    """Renewed on the open socket again and again."""

    def __init__(self, key: convex.AgentKey, *, subject: str) -> None:
        super().__init__(key, subject=subject)
        self.often_renewed = asyncio.Event()
        self._renewals = 0

    def renew_in_s(self) -> float:
        self._renewals += 1
        if self._renewals == 4:
            self.often_renewed.set()
        self.invalidate()
        return 0.05


async def test_renewed_token_disturbs_no_subscription(deployment: Deployment, run_id: str) -> None:
    token = ImpatientToken(deployment.key, subject=f"guest:{run_id}")
    async with (
        convex.AsyncConvexClient(deployment.url, token=token, timeout_s=20.0) as client,
        client.subscribe("messages:list", first_page(run_id)) as pages,
        asyncio.timeout(20),
    ):
        assert texts(await anext(pages)) == []
        await token.often_renewed.wait()
        await client.mutation("sessions:record", batch(run_id, started(run_id), message(1)))
        page: list[str] = []
        while not page:
            page = texts(await anext(pages))

    assert page == [SAID]


async def test_subscription_outlives_a_restart_without_repeating_itself(
    own_deployment: Deployment, run_id: str
) -> None:
    async with own_deployment.guest() as client:
        await client.mutation("sessions:record", batch(run_id, started(run_id), message(1)))
        async with (
            client.subscribe("messages:list", first_page(run_id)) as pages,
            asyncio.timeout(60),
        ):
            assert texts(await anext(pages)) == [SAID]
            await own_deployment.restart()
            await client.mutation("sessions:record", batch(run_id, message(2, "Gut!")))

            assert texts(await anext(pages)) == [SAID, "Gut!"]
