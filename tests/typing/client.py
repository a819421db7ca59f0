"""Must type-check as a user would write it. Not meant to be executed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import assert_type

import aiohttp
from livekit.plugins import convex

from livekit.plugins.convex.testing import FakeConvex


@dataclass(frozen=True, slots=True)
class Student:
    name: str
    level: str


async def calls() -> None:
    async with convex.AsyncConvexClient() as client:
        assert_type(client, convex.AsyncConvexClient)
        assert_type(client.url, str)
        assert_type(await client.query("a:b"), convex.ConvexValue)
        assert_type(await client.mutation("a:b", {"x": 1, "y": [1.5, None]}), convex.ConvexValue)
        assert_type(await client.action("a:b", {}, timeout_s=600), convex.ConvexValue)
        # A TypedDict-like mapping of anything goes in; what Convex cannot hold is a run-time error.
        nested: dict[str, list[dict[str, int]]] = {"words": [{"count": 1}]}
        await client.mutation("a:b", nested)
        await client.query("a:b", {"id": convex.ConvexInt64(1), "raw": b"", "pair": (1, 2)})


async def parsing(client: convex.AsyncConvexClient) -> Student:
    match await client.query("students:tutoringContext"):
        case {"student": {"name": str(name), "level": str(level)}}:
            return Student(name, level)
        case other:
            raise TypeError(f"not a tutoring context: {type(other).__name__}")


async def following(client: convex.AsyncConvexClient) -> None:
    async with client.subscribe("sessions:plan", {"lessonId": "x"}) as plans:
        assert_type(plans, convex.Subscription)
        async with asyncio.timeout(5):
            assert_type(await anext(plans), convex.ConvexValue)
        async for plan in plans:
            assert_type(plan, convex.ConvexValue)


class SlideShown(convex.Record, tag="slideShown", frozen=True, kw_only=True):
    """A record as an app writes them."""

    slide: int


async def resuming(client: convex.AsyncConvexClient) -> int:
    report = await convex.deliver_dead_journals(client, subject="student:k57", timeout_s=2.0)
    assert_type(report, convex.SweepReport)
    [run] = convex.read_journals("/tmp/outbox", subject="student:k57", types=[SlideShown])
    assert_type(run, convex.JournaledRun[SlideShown])
    for several in convex.read_journals(
        subject="student:k57",
        session_key="s1",
        deployment=client.url,
        types=[convex.MessageRecord, SlideShown],
    ):
        assert_type(several.started_at, float)
        for record in several.records:
            match record:
                case convex.MessageRecord(text=text):
                    assert_type(text, str)
                case SlideShown(slide=slide):
                    assert_type(slide, int)
    pair = (convex.MessageRecord, SlideShown)
    mixed = convex.read_journals(subject="student:k57", types=pair)
    assert_type(mixed, list[convex.JournaledRun[convex.Record]])
    return run.records[0].slide


async def identities(http_session: aiohttp.ClientSession) -> None:
    key = convex.AgentKey.from_env({"CONVEX_AGENT_KEY": "…"})
    token = convex.AgentToken(key, subject="student:k57", student_id="k57")
    client = convex.AsyncConvexClient(
        "http://127.0.0.1:3210", token=token, timeout_s=2.0, http_session=http_session
    )
    sibling = client.with_token("a finished JWT").with_token(None).with_token(OwnTokens())
    assert_type(sibling, convex.AsyncConvexClient)
    assert_type(sibling.token, convex.TokenSource | None)


class OwnTokens:
    """Fits TokenSource without inheriting from it."""

    def value(self) -> str:
        return ""

    def invalidate(self) -> None: ...

    def renew_in_s(self) -> float | None:
        return None

    def learn_clock(self, server_time: float) -> None: ...


async def failures(client: convex.AsyncConvexClient) -> float | None:
    try:
        await client.mutation("a:b")
    except convex.FunctionError as error:
        assert_type(error.code, str | None)
        assert_type(error.data, convex.ConvexValue)
    except convex.TransportError as error:
        assert_type(error.status, int | None)
    except convex.BusyError as error:
        return error.retry_after_s
    except convex.ConvexClientError as error:
        assert_type(error.retryable, bool)
    return None


async def faking() -> None:
    async with FakeConvex(accepts=lambda token: token is not None) as fake:
        fake.on("a:b", lambda args: {"got": args["x"]})
        fake.on("a:c", answer_later)
        fake.drop_next_reply()
        fake.drop_next_reply("a:b", times=2)
        fake.fail_next(429, "a:b", retry_after_s=1)
        fake.hang_next("a:b")
        fake.delay_next(0.1, "a:b")
        await fake.set_value("sessions:plan", {"lesson": None})
        await fake.called("a:b", count=2)
        assert_type(fake.call_count("a:b"), int)
        assert_type([call.function for call in fake.calls], list[str])


async def answer_later(args: dict[str, convex.ConvexValue]) -> str:
    return "later"
