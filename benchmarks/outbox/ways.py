"""Ways to record an agent session: ours, and what people use today.

Each attaches to a session and returns what to await at its end. The rivals write one row a message
by one mutation, as their authors' examples do; ours also records the session around it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Literal

from livekit.agents import AgentSession, JobContext
from livekit.agents.llm import ChatMessage
from livekit.agents.voice.events import ConversationItemAddedEvent

from benchmarks.outbox import published
from benchmarks.outbox.published import Ending
from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    SessionIdentity,
    SessionRecorder,
)

Way = Literal["nothing", "recorder", "to_thread", "queue", "zizkadb"]
WAYS: tuple[Way, ...] = ("nothing", "recorder", "to_thread", "queue")
PUBLISHED: tuple[Way, ...] = ("zizkadb",)
"""On request only: published.py says how."""

ADD = "rival:add"
RIVAL_TS = """
import { v } from "convex/values";
import { internalQuery, mutation } from "./_generated/server";

export const add = mutation({
  args: { sessionKey: v.string(), itemId: v.string(), role: v.string(), text: v.string() },
  handler: async (ctx, row) => {
    await ctx.db.insert("rivalMessages", row);
  },
});

export const held = internalQuery({
  args: { sessionKey: v.string() },
  handler: async (ctx, { sessionKey }) => {
    const rows = await ctx.db
      .query("rivalMessages")
      .withIndex("by_sessionKey", (q) => q.eq("sessionKey", sessionKey))
      .collect();
    return rows.map((row) => row.itemId);
  },
});

export const ours = internalQuery({
  args: { sessionKey: v.string() },
  handler: async (ctx, { sessionKey }) => {
    const session = await ctx.db
      .query("sessions")
      .withIndex("by_sessionKey", (q) => q.eq("sessionKey", sessionKey))
      .unique();
    if (session === null) return [];
    const rows = await ctx.db
      .query("messages")
      .withIndex("by_sessionId_and_runStartedAt_and_createdAt_and_seq", (q) =>
        q.eq("sessionId", session._id),
      )
      .collect();
    return rows.filter((row) => !row.provisional).map((row) => row.itemId);
  },
});
"""
"""The rivals' function, and what each way has stored, in the order in which readers see it."""

RIVAL_TABLE = """
  rivalMessages: defineTable({
    sessionKey: v.string(),
    itemId: v.string(),
    role: v.string(),
    text: v.string(),
  }).index("by_sessionKey", ["sessionKey"]),
});
"""


def attach(
    way: Way,
    session: AgentSession[Any],
    *,
    ctx: JobContext,
    url: str,
    key: AgentKey,
    session_key: str,
    outbox: Path,
) -> Ending:
    """Record the session in that way from now on."""
    match way:
        case "nothing":
            return _do_nothing
        case "recorder":
            client = AsyncConvexClient(url, token=AgentToken(key, subject="worker"))
            recorder = SessionRecorder.attach(
                session,
                ctx=ctx,
                client=client,
                identity=SessionIdentity(session_key=session_key),
                outbox_dir=outbox,
            )
            return recorder.aclose
        case "to_thread":
            return _to_thread(session, url, session_key)
        case "queue":
            return _queue(session, url, session_key)
        case "zizkadb":
            return published.attach_zizkadb(session, ctx, url, session_key)


async def _do_nothing(timeout_s: float) -> None:
    pass


def _row(session_key: str, item: ChatMessage) -> dict[str, Any]:
    text = item.text_content or ""
    return {"sessionKey": session_key, "itemId": item.id, "role": item.role, "text": text}


def _to_thread(session: AgentSession[Any], url: str, session_key: str) -> Ending:
    """`create_task(asyncio.to_thread(client.mutation, ...))` with the official client."""
    import convex

    client = convex.ConvexClient(url)
    tasks: set[asyncio.Task[Any]] = set()

    def on_item(event: ConversationItemAddedEvent) -> None:
        assert isinstance(event.item, ChatMessage)
        row = _row(session_key, event.item)
        task = asyncio.create_task(asyncio.to_thread(client.mutation, ADD, row))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def end(timeout_s: float) -> None:
        if tasks:
            await asyncio.wait(list(tasks), timeout=timeout_s)

    session.on("conversation_item_added", on_item)
    return end


def _queue(session: AgentSession[Any], url: str, session_key: str) -> Ending:
    """An in-memory queue and one task that sends, retrying each row until it is taken."""
    client = AsyncConvexClient(url)
    rows: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def on_item(event: ConversationItemAddedEvent) -> None:
        assert isinstance(event.item, ChatMessage)
        rows.put_nowait(_row(session_key, event.item))

    async def send() -> None:
        while True:
            row = await rows.get()
            while True:
                try:
                    await client.mutation(ADD, row)
                    break
                except Exception:  # noqa: BLE001  as such queues do
                    await asyncio.sleep(0.25)
            rows.task_done()

    async def end(timeout_s: float) -> None:
        await asyncio.wait([asyncio.create_task(rows.join())], timeout=timeout_s)
        sender.cancel()
        await client.aclose()

    sender = asyncio.create_task(send())
    session.on("conversation_item_added", on_item)
    return end


def key_from_env() -> AgentKey:
    """The key that the parent has put into the environment."""
    return AgentKey.from_pem(os.environ["BENCH_AGENT_KEY"])
