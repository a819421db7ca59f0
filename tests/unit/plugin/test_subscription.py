"""What a caller sees of live queries, against FakeConvex."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable

import jwt
import psutil
import pytest
from livekit.plugins import convex

from convex import ConvexError
from livekit.plugins.convex import sync
from livekit.plugins.convex.testing import FakeConvex

KEY = convex.AgentKey.generate()
PLAN = "sessions:plan"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect at once; the pauses have a test of their own."""
    monkeypatch.setattr(sync.SyncConnection.__init__, "__kwdefaults__", {"pause": lambda _: 0.0})


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task.get_name() == "convex.sync"] == []


@pytest.fixture
async def fake() -> AsyncIterator[FakeConvex]:
    async with FakeConvex() as fake:
        await fake.set_value(PLAN, {"speechRate": 1})
        yield fake


@pytest.fixture
async def client(fake: FakeConvex) -> AsyncIterator[convex.AsyncConvexClient]:
    async with convex.AsyncConvexClient(fake.url) as client:
        yield client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is awaited is in another task's hands
            await asyncio.sleep(0.005)


async def test_current_value_comes_first_and_then_each_change(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    async with client.subscribe(PLAN, {}) as plan:
        seen = []
        async for value in plan:
            seen.append(value)
            if len(seen) == 3:
                break
            await fake.set_value(PLAN, {"speechRate": 1 + len(seen)})

    assert seen == [{"speechRate": 1.0}, {"speechRate": 2.0}, {"speechRate": 3.0}]


async def test_arguments_reach_the_query(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    fake.on("echo:back", lambda args: args)

    async with client.subscribe("echo:back", {"lessonId": "x", "n": 1}) as values:
        assert await anext(values) == {"lessonId": "x", "n": 1.0}


async def test_subscriptions_of_a_client_share_one_socket(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    await fake.set_value("messages:list", [])

    async with client.subscribe(PLAN) as plan, client.subscribe("messages:list") as messages:
        assert (await anext(plan), await anext(messages)) == ({"speechRate": 1.0}, [])
        assert fake.sockets == 1
        assert fake.subscribed == ["messages:list", PLAN]


async def test_slow_consumer_gets_the_latest_value(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    await fake.set_value("other:thing", 0)
    async with client.subscribe(PLAN) as plan, client.subscribe("other:thing") as other:
        await anext(plan)
        await anext(other)
        for speed in (2, 3, 4):
            await fake.set_value(PLAN, {"speechRate": speed})
        await fake.set_value("other:thing", 1)
        await anext(other)  # comes after the others on the same socket

        assert await anext(plan) == {"speechRate": 4.0}


async def test_unchanged_value_is_not_repeated(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    async with client.subscribe(PLAN) as plan:
        await anext(plan)
        await fake.set_value(PLAN, {"speechRate": 1})
        await fake.set_value(PLAN, {"speechRate": 2})

        assert await anext(plan) == {"speechRate": 2.0}


@pytest.mark.parametrize("values", [(1, True), (0, False), (0.0, -0.0), (1, convex.ConvexInt64(1))])
async def test_values_that_only_python_calls_equal_are_a_change(
    fake: FakeConvex, client: convex.AsyncConvexClient, values: tuple[object, object]
) -> None:
    await fake.set_value(PLAN, values[0])
    async with client.subscribe(PLAN) as plan:
        await anext(plan)
        await fake.set_value(PLAN, values[1])

        changed = await anext(plan)

    assert repr(changed) == repr(values[1])


async def test_reconnect_repeats_no_value_and_misses_none(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    async with client.subscribe(PLAN) as plan:
        await anext(plan)
        for speed in (2, 3):
            await fake.disconnect()
            await until(lambda: fake.subscribed == [PLAN])
            await fake.set_value(PLAN, {"speechRate": speed})

            assert await anext(plan) == {"speechRate": speed}


async def test_change_during_an_outage_arrives_after_it(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    async with client.subscribe(PLAN) as plan:
        await anext(plan)
        await fake.stop()
        await fake.set_value(PLAN, {"speechRate": 2})
        await fake.start()

        assert await anext(plan) == {"speechRate": 2.0}


async def test_deployment_that_comes_up_later_is_found(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    await fake.stop()
    async with client.subscribe(PLAN) as plan:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(plan)
        await fake.start()

        assert await anext(plan) == {"speechRate": 1.0}


async def test_throwing_query_raises_and_its_next_value_is_seen(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    def throw(args: object) -> None:
        raise ConvexError("", {"code": "student_unknown"})

    async with client.subscribe(PLAN) as plan:
        first = await anext(plan)
        await fake.set_query(PLAN, throw)
        with pytest.raises(convex.FunctionError) as caught:
            await anext(plan)
        await fake.set_value(PLAN, {"speechRate": 1})

        assert caught.value.code == "student_unknown"
        assert await anext(plan) == first


async def test_error_that_was_overtaken_is_not_raised(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    await fake.set_value("other:thing", 0)
    async with client.subscribe(PLAN) as plan, client.subscribe("other:thing") as other:
        await anext(plan)
        await anext(other)
        await fake.set_query(PLAN, lambda args: 1 / 0)
        await fake.set_value(PLAN, {"speechRate": 2})
        await fake.set_value("other:thing", 1)
        await anext(other)

        assert await anext(plan) == {"speechRate": 2.0}


async def test_closing_ends_a_waiting_iteration_and_the_socket(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    plan = client.subscribe(PLAN)
    await anext(plan)
    waiting = asyncio.create_task(collect(plan))
    await asyncio.sleep(0)

    await plan.aclose()
    await plan.aclose()

    assert await waiting == []
    await until(lambda: fake.sockets == 0)


async def collect(subscription: convex.Subscription) -> list[convex.ConvexValue]:
    return [value async for value in subscription]


async def test_closing_one_leaves_the_other(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    await fake.set_value("other:thing", 0)
    async with client.subscribe("other:thing") as other:
        async with client.subscribe(PLAN) as plan:
            await anext(plan)
            await anext(other)
        await until(lambda: fake.subscribed == ["other:thing"])
        await fake.set_value("other:thing", 1)

        assert await anext(other) == 1.0


async def test_subscription_nobody_holds_is_closed(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    async for _ in client.subscribe(PLAN):
        break
    gc.collect()

    await until(lambda: fake.sockets == 0)


async def test_closing_the_client_ends_its_subscriptions(fake: FakeConvex) -> None:
    client = convex.AsyncConvexClient(fake.url)
    plan = client.subscribe(PLAN)
    await anext(plan)

    await client.aclose()

    assert await collect(plan) == []
    await until(lambda: fake.sockets == 0)


async def test_subscribing_again_after_the_last_one_closed(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    for _ in range(2):
        async with client.subscribe(PLAN) as plan:
            assert await anext(plan) == {"speechRate": 1.0}


async def test_thousands_of_updates_leave_no_tasks_and_no_sockets(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    """Over one socket, over many that break, and over subscriptions that come and go."""
    tasks, files = len(asyncio.all_tasks()), psutil.Process().num_fds()
    count = 0
    for _ in range(20):
        async with client.subscribe(PLAN) as plan:
            for _ in range(100):
                count += 1
                await fake.set_value(PLAN, {"speechRate": count})
                while await anext(plan) != {"speechRate": float(count)}:
                    pass  # the one before, which came first
            await fake.disconnect()
            count += 1
            await fake.set_value(PLAN, {"speechRate": count})
            assert await anext(plan) == {"speechRate": float(count)}

    await until(lambda: fake.sockets == 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: psutil.Process().num_fds() <= files + 1)  # a kept HTTP connection
    assert count == 2_020


async def test_siblings_have_sockets_of_their_own(fake: FakeConvex) -> None:
    """An identity belongs to a socket."""
    async with (
        convex.AsyncConvexClient(fake.url, token="a") as first,
        first.with_token("b") as second,
        first.subscribe(PLAN) as one,
        second.subscribe(PLAN) as two,
    ):
        assert await anext(one) == await anext(two)
        assert sorted(fake.sync_tokens, key=str) == ["a", "b"]


async def test_refused_token_is_renewed_once() -> None:
    seen: list[str | None] = []

    def accepts(token: str | None) -> bool:
        seen.append(token)
        return len(seen) > 1

    async with FakeConvex(accepts=accepts) as fake:
        await fake.set_value(PLAN, 1)
        token = convex.AgentToken(KEY, subject="s")
        async with (
            convex.AsyncConvexClient(fake.url, token=token) as client,
            client.subscribe(PLAN) as plan,
        ):
            assert await anext(plan) == 1.0

    assert len(set(seen)) == 2


async def test_token_refused_again_is_raised_to_every_subscription() -> None:
    async with FakeConvex(accepts=lambda token: False) as fake:
        token = convex.AgentToken(KEY, subject="s")
        async with convex.AsyncConvexClient(fake.url, token=token) as client:
            plan, other = client.subscribe(PLAN), client.subscribe("other:thing")
            for subscription in (plan, other, plan):
                with pytest.raises(convex.AuthenticationError, match="AGENT_JWKS"):
                    await anext(subscription)

        assert len(fake.sync_tokens) == 2


async def test_wrong_clock_is_learnt_also_without_a_call() -> None:
    def accepts(token: str | None) -> bool:
        issued_at: float = jwt.decode(token or "", options={"verify_signature": False})["iat"]
        return abs(issued_at - time.time()) < 5

    async with FakeConvex(accepts=accepts) as fake:
        await fake.set_value(PLAN, 1)
        token = convex.AgentToken(KEY, subject="s", clock=lambda: time.time() + 3600)
        async with (
            convex.AsyncConvexClient(fake.url, token=token) as client,
            client.subscribe(PLAN) as plan,
        ):
            assert await anext(plan) == 1.0


class ShortLived:
    """A token that wants to be replaced after some milliseconds."""

    def __init__(self) -> None:
        self.made = 0

    def value(self) -> str:
        self.made += 1
        return f"token {self.made}"

    def invalidate(self) -> None:
        pass

    def renew_in_s(self) -> float:
        return 0.01

    def learn_clock(self, server_time: float) -> None:
        pass


async def test_token_is_replaced_on_the_open_socket_before_it_expires(fake: FakeConvex) -> None:
    async with (
        convex.AsyncConvexClient(fake.url, token=ShortLived()) as client,
        client.subscribe(PLAN) as plan,
    ):
        await anext(plan)
        await until(lambda: len(fake.sync_tokens) >= 3)

        assert fake.sync_tokens[:3] == ["token 1", "token 2", "token 3"]
        assert fake.sockets == 1
        await fake.set_value(PLAN, {"speechRate": 2})
        assert await anext(plan) == {"speechRate": 2.0}


async def test_result_of_many_megabytes_arrives(
    fake: FakeConvex, client: convex.AsyncConvexClient
) -> None:
    await fake.set_value(PLAN, "x" * 6_000_000)

    async with client.subscribe(PLAN) as plan:
        value = await anext(plan)

    assert isinstance(value, str)
    assert len(value) == 6_000_000


async def test_subscribing_after_closing_says_so(client: convex.AsyncConvexClient) -> None:
    await client.aclose()

    with pytest.raises(RuntimeError, match="closed"):
        client.subscribe(PLAN)


async def test_argument_convex_cannot_hold_is_refused_at_once(
    client: convex.AsyncConvexClient,
) -> None:
    with pytest.raises(convex.EncodingError):
        client.subscribe(PLAN, {"x": object()})
