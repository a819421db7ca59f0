"""What a scenario stands on: a LiveKit server, Convex, workers, and the witness outside them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
from livekit import api

from emma_agent.convex_local import ROOT, ConvexLocal, copy_functions
from emma_agent.demo.children import Child
from emma_agent.demo.livekit_server import LiveKitServer
from emma_agent.demo.plan import clean_environment
from tests.chaos.agent import AGENT_NAME, WITNESS_VARIABLE, Lesson
from tests.chaos.wire import Wire
from tests.support.answering import until_it_answers

SETTLE_TIMEOUT_S = 90.0
"""How long after a scenario everything may take to arrive: sweeps are 15 s apart."""


@dataclass(slots=True)
class Seen:
    """What the witness said of one session, in order."""

    messages: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of what was recorded.

    Attributes:
        sent: messages and tool calls whose append had returned, as the witness says.
        stored: rows in Convex. One more a run than `sent` is right: killed between append and
            witness.
        lost, doubled: of `sent`.
        reordered: neighbours among the stored messages that were said the other way round.
        open: sessions that are not closed.
    """

    sent: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    open: int = 0

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return self.sent > 0 and not (self.lost or self.doubled or self.reordered or self.open)


def judge(seen: Seen, held: Mapping[str, Any]) -> Verdict:
    """One session: what the witness saw, beside what Convex holds (`Stage.held`)."""
    messages, tools = Counter(held["messages"]), Counter(held["tools"])
    place = {item: i for i, item in enumerate(seen.messages)}
    places = [place[item] for item in held["messages"] if item in place]
    return Verdict(
        sent=len(seen.messages) + len(seen.tools),
        stored=messages.total() + tools.total(),
        lost=sum(messages[one] == 0 for one in seen.messages)
        + sum(tools[one] == 0 for one in seen.tools),
        doubled=messages.total() - len(messages) + tools.total() - len(tools),
        reordered=sum(after < before for before, after in pairwise(places)),
        open=int(held["status"] in (None, "active")),
    )


class WitnessDesk:
    """Where the witnesses report: a socket of loopback."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.address = ""
        self._heard = asyncio.Condition()
        self._server: asyncio.Server | None = None

    def of(self, session_key: str) -> Seen:
        return self.seen.setdefault(session_key, Seen())

    async def until(self, session_key: str, messages: int, *, timeout_s: float = 60.0) -> Seen:
        """Wait until so many messages of the session were witnessed."""
        seen = self.of(session_key)
        async with asyncio.timeout(timeout_s), self._heard:
            await self._heard.wait_for(lambda: len(seen.messages) >= messages)
        return seen

    @asynccontextmanager
    async def open(self) -> AsyncIterator[WitnessDesk]:
        self._server = await asyncio.start_server(self._listen, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        try:
            yield self
        finally:
            self._server.close()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                if not line.endswith(b"\n"):
                    break  # killed while it spoke
                said = json.loads(line)
                seen = self.of(said["session_key"])
                match said["what"]:
                    case "began":
                        seen.pids.append(int(said["value"]))
                    case "message":
                        seen.messages.append(said["value"])
                    case "tool":
                        seen.tools.append(said["value"])
                async with self._heard:
                    self._heard.notify_all()
        writer.close()


@dataclass
class Stage:
    """One school with its engines; `set_up` makes it."""

    directory: Path
    convex: ConvexLocal
    project: Path
    livekit: LiveKitServer
    wire: Wire
    desk: WitnessDesk
    http: aiohttp.ClientSession
    student_id: str = ""
    _reloads: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def set_up(cls, directory: Path) -> AsyncIterator[Stage]:
        """Everything but the workers. `directory` gets logs, data and journals."""
        project = _copy_of_the_functions(directory)
        loop, reloads = asyncio.get_running_loop(), asyncio.Event()

        def on_event(event: Any) -> None:
            if event.get("event") == "reloaded":
                loop.call_soon_threadsafe(reloads.set)

        server = LiveKitServer.choose(ROOT)
        async with (
            ConvexLocal.start(
                project=project,
                db=directory / "convex.sqlite3",
                faults=True,
                watch=True,
                on_event=on_event,
            ) as convex,
            Wire(convex.url) as wire,
            WitnessDesk().open() as desk,
            aiohttp.ClientSession() as http,
        ):
            livekit = Child(
                "livekit-server",
                server.command,
                env={**clean_environment(), **server.env},
                log=directory / "livekit.log",
            )
            try:
                await until_it_answers(http, server.health_url)
                stage = cls(directory, convex, project, server, wire, desk, http, _reloads=reloads)
                seeded = await stage.run_internal("seed:demo")
                stage.student_id = seeded["studentId"]
                yield stage
            finally:
                await livekit.stop(grace_s=1.0)

    @asynccontextmanager
    async def worker(self, name: str = "worker") -> AsyncIterator[Child]:
        """A worker that takes jobs; killed with all its jobs at the end of the block."""
        log = self.directory / f"{name}.log"
        log.unlink(missing_ok=True)
        child = Child(
            name,
            [sys.executable, "-m", "tests.chaos.agent", "start"],
            env={
                **clean_environment(),
                "PYTHONPATH": str(ROOT),
                "CONVEX_URL": self.wire.url,
                "CONVEX_AGENT_KEY": self.convex.agent_key.pem(),
                "CONVEX_OUTBOX_DIR": str(self.outbox),
                "LIVEKIT_URL": self.livekit.url,
                "LIVEKIT_API_KEY": self.livekit.api_key,
                "LIVEKIT_API_SECRET": self.livekit.api_secret,
                WITNESS_VARIABLE: self.desk.address,
            },
            log=log,
        )
        try:
            await child.wait_for(lambda: b"registered worker" in log.read_bytes(), timeout_s=90)
            yield child
        finally:
            child.kill()
            await child.exited.wait()

    @property
    def outbox(self) -> Path:
        """Where the workers' journals lie."""
        return self.directory / "outbox"

    async def teach(self, *, turns: int, **more: Any) -> str:
        """Dispatch one lesson; return its session key."""
        lesson = Lesson(
            session_key=f"chaos-{secrets.token_hex(6)}",
            student_id=self.student_id,
            turns=turns,
            **more,
        )
        url = self.livekit.url.replace("ws", "http", 1)
        async with api.LiveKitAPI(url, self.livekit.api_key, self.livekit.api_secret) as livekit:
            await livekit.agent_dispatch.create_dispatch(
                api.CreateAgentDispatchRequest(
                    agent_name=AGENT_NAME, room=lesson.session_key, metadata=lesson.metadata()
                )
            )
        return lesson.session_key

    async def fail(self, **fault: Any) -> None:
        """Let calls of `sessions:record` go wrong in this way (plugins/convex-local)."""
        await self._admin("POST", "/_local/faults", {"path": "sessions:record", **fault})

    async def recover(self) -> None:
        """Convex answers again."""
        await self._admin("DELETE", "/_local/faults", None)
        await self.wire.mend()

    @asynccontextmanager
    async def broken_functions(self) -> AsyncIterator[None]:
        """The functions throw at every record; they are repaired at the end of the block."""
        fold = self.project / "convex" / "model" / "fold.ts"
        sound = fold.read_text()
        first_line = "  const { version, runId, records } = batch;\n"
        assert sound.count(first_line) == 1
        broken = f'  if (batch.records.length > 0) throw new Error("broken");\n{first_line}'
        await self._deploy(fold, sound.replace(first_line, broken))
        try:
            yield
        finally:
            await self._deploy(fold, sound)

    async def run_internal(self, function: str, **args: Any) -> Any:
        """Run an internal function, as `npx convex run` does."""
        body = {"path": function, "args": args, "format": "json"}
        answer = await self._admin("POST", "/api/function", body)
        assert answer["status"] == "success", answer
        return answer["value"]

    async def verdict(self, *session_keys: str, timeout_s: float = SETTLE_TIMEOUT_S) -> Verdict:
        """Wait until everything that was witnessed is there, or nothing more comes; compare."""
        verdict = await self._compare(session_keys)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while verdict.lost or verdict.open:
                    await asyncio.sleep(0.5)
                    verdict = await self._compare(session_keys)
        return verdict

    async def held(self, session_key: str) -> dict[str, Any]:
        """What Convex holds of a session: `status`, `endReason`, `messages` and `tools`, by id."""
        held: dict[str, Any] = await self.run_internal("chaos:held", sessionKey=session_key)
        held["messages"] = []
        cursor: Any = None
        while held["status"] is not None:
            found = await self.run_internal(
                "chaos:messages", sessionId=held["sessionId"], cursor=cursor
            )
            held["messages"] += found["page"]
            cursor = found["cursor"]
            if cursor is None:
                break
        return held

    async def _compare(self, session_keys: tuple[str, ...]) -> Verdict:
        verdict = Verdict()
        for session_key in session_keys:
            verdict += judge(self.desk.of(session_key), await self.held(session_key))
        return verdict

    async def _deploy(self, path: Path, text: str) -> None:
        self._reloads.clear()
        await asyncio.to_thread(path.write_text, text)
        async with asyncio.timeout(30):
            await self._reloads.wait()

    async def _admin(self, method: str, path: str, body: object) -> Any:
        headers = {"Authorization": f"Convex {self.convex.admin_key}"}
        url = f"{self.convex.url}{path}"
        async with self.http.request(method, url, json=body, headers=headers) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.json(content_type=None)


# What readers see by `messages:list`, and the tool calls beside it, whoever asks; and the cron that
# ends leases, at a time of the scenario's choice.
_CHAOS_TS = """
import { v } from "convex/values";
import { internalMutation, internalQuery } from "./_generated/server";
import { closeExpired as close } from "./model/leases";

export const closeExpired = internalMutation({
  args: { now: v.number() },
  handler: async (ctx, { now }) => {
    await close(ctx, now);
  },
});

export const held = internalQuery({
  args: { sessionKey: v.string() },
  handler: async (ctx, { sessionKey }) => {
    const session = await ctx.db
      .query("sessions")
      .withIndex("by_sessionKey", (q) => q.eq("sessionKey", sessionKey))
      .unique();
    if (session === null) return { status: null, tools: [] };
    const events = await ctx.db
      .query("analyticsEvents")
      .withIndex("by_eventType_and_createdAt", (q) => q.eq("eventType", "tool_call"))
      .collect();
    return {
      sessionId: session._id,
      status: session.status,
      endReason: session.endReason ?? null,
      tools: events
        .filter((row) => row.sessionId === session._id)
        .map((row) => row.eventData.callId),
    };
  },
});

export const messages = internalQuery({
  args: { sessionId: v.id("sessions"), cursor: v.union(v.string(), v.null()) },
  handler: async (ctx, { sessionId, cursor }) => {
    const found = await ctx.db
      .query("messages")
      .withIndex("by_sessionId_and_runStartedAt_and_createdAt_and_seq", (q) =>
        q.eq("sessionId", sessionId),
      )
      .paginate({ numItems: 4_000, cursor });
    return {
      page: found.page.filter((row) => !row.provisional).map((row) => row.itemId),
      cursor: found.isDone ? null : found.continueCursor,
    };
  },
});
"""


def _copy_of_the_functions(directory: Path) -> Path:
    """The project's own functions, to be broken and repaired, and one more that looks."""
    project = directory / "project"
    copy_functions(project)
    (project / "convex" / "chaos.ts").write_text(_CHAOS_TS)
    return project
