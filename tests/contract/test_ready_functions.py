"""The functions that the plugin brings for other people's projects, in a project of nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.testing import fake_job_context

from emma_agent.convex_local import ROOT, ConvexLocal, find_node
from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    AuthenticationError,
    FunctionError,
    MessageRecord,
    Outbox,
    Record,
    RunEndedRecord,
    SessionEndedRecord,
    SessionIdentity,
    SessionRecorder,
    SessionStartedRecord,
    ToolCallRecord,
)
from livekit.plugins.convex.delivery import Delivery
from livekit.plugins.convex.journal import FORMAT, Header, encode_line
from livekit.plugins.convex.limits import MAX_TEXT_BYTES, RECORD_VERSION
from livekit.plugins.convex.recovery import Recovery
from livekit.plugins.convex.sender import Sender
from tests.support.scripted_llm import ScriptedLLM, call

PLUGIN = ROOT / "plugins" / "livekit-plugins-convex"
GOLDEN = ROOT / "tests" / "golden" / "record-v1.jsonl"
NOW = 1_793_610_000_000.0

# What `npx convex dev` writes into a new project, and stricter.
TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "noUnusedLocals": True,
        "skipLibCheck": True,
        "target": "ESNext",
        "lib": ["ES2023", "dom"],
        "module": "ESNext",
        "moduleResolution": "Bundler",
        "isolatedModules": True,
        "noEmit": True,
        "types": [],
    },
    "include": ["./**/*"],
    # Its `process` needs @types/node, which not every project has: the functions do without.
    "exclude": ["./auth.config.ts"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as the plugin's README has it made: its two files, and the one that is printed."""
    project = tmp_path_factory.mktemp("project")
    functions = project / "convex"
    functions.mkdir()
    snippets = re.findall(
        r"^```ts\n// convex/(\S+)\n(.*?)^```",
        (PLUGIN / "README.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    for name, text in snippets:
        (functions / name).write_text(text)
    command = [sys.executable, "-m", "livekit.plugins.convex"]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=60, cwd=project)
    (functions / "sessions.ts").write_bytes(printed.stdout)
    assert {path.name for path in functions.iterdir()} == {
        "auth.config.ts",
        "schema.ts",
        "sessions.ts",
    }
    (functions / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    (project / "package.json").write_text('{"type": "module"}')
    (project / "node_modules").symlink_to(ROOT / "node_modules")
    return project


@pytest.fixture(scope="module")
def convex(project: Path) -> Iterator[ConvexLocal]:
    with ConvexLocal.start(project=project, faults=True) as local:
        yield local


@dataclass
class Conversation:
    """A guest's session: its outbox, its delivery, and what Convex holds of it."""

    key: str
    client: AsyncConvexClient
    outbox: Outbox
    delivery: Delivery

    def say(self, item_id: str, text: str = "Good morning") -> None:
        self.outbox.append(message(item_id, text))

    def end(self) -> None:
        self.outbox.append(SessionEndedRecord(created_at=time.time(), reason="user_initiated"))
        self.outbox.append(RunEndedRecord(created_at=time.time(), reason="done"))

    async def session(self) -> dict[str, Any]:
        session: Any = await self.client.query("sessions:get", {"sessionKey": self.key})
        assert isinstance(session, dict)
        return session

    async def rows(self, reader: str = "messages") -> list[dict[str, Any]]:
        return await rows_of(self.client, self.key, reader)

    async def item_ids(self) -> list[str]:
        return [row["itemId"] for row in await self.rows()]


def message(item_id: str, text: str = "Good morning") -> Record:
    return MessageRecord(
        created_at=time.time(), item_id=item_id, role="user", text=text, interrupted=False
    )


async def rows_of(client: AsyncConvexClient, key: str, reader: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page: Any = await client.query(
            f"sessions:{reader}",
            {"sessionKey": key, "paginationOpts": {"numItems": 100, "cursor": cursor}},
        )
        rows += page["page"]
        cursor = page["continueCursor"]
        if page["isDone"]:
            return rows


@pytest.fixture
async def conversation(convex: ConvexLocal, tmp_path: Path) -> AsyncIterator[Conversation]:
    key = f"test-{uuid.uuid4().hex}"
    token = AgentToken(convex.agent_key, subject=f"guest:{key}")
    client = AsyncConvexClient(convex.url, token=token, timeout_s=20.0)
    header = Header(
        format=FORMAT,
        record_version=RECORD_VERSION,
        run_id=uuid.uuid4().hex,
        session_key=key,
        subject=token.subject,
        deployment=client.url,
        started_at_ms=time.time() * 1000,
        steady_at_ms=0.0,
    )
    outbox = Outbox.open(tmp_path / "outbox", header)
    delivery = Delivery(outbox, client, jitter=lambda low, high: 0.0)
    outbox.append(
        SessionStartedRecord(
            created_at=time.time(), session_key=key, room="r", job_id="AJ_1", agent_name="host"
        )
    )
    yield Conversation(key, client, outbox, delivery)
    await delivery.aclose(0.0)
    await client.aclose()


@pytest.fixture
async def client(convex: ConvexLocal) -> AsyncIterator[AsyncConvexClient]:
    """The agent of one student, whose session keys the test makes up."""
    token = AgentToken(convex.agent_key, subject=f"student:{uuid.uuid4().hex}")
    async with AsyncConvexClient(convex.url, token=token, timeout_s=20.0) as client:
        yield client


async def send(client: AsyncConvexClient, run_id: str, *records: dict[str, Any]) -> float:
    reply: Any = await client.mutation(
        "sessions:record", {"version": 1, "runId": run_id, "records": list(records)}
    )
    return float(reply["seq"])


async def refusal(client: AsyncConvexClient, run_id: str, *records: dict[str, Any]) -> Any:
    with pytest.raises(FunctionError) as raised:
        await send(client, run_id, *records)
    return raised.value.data


def started(key: str, at: float = NOW) -> dict[str, Any]:
    return {
        "kind": "sessionStarted",
        "seq": 0,
        "createdAt": at,
        "sessionKey": key,
        "room": "r",
        "jobId": "AJ_1",
        "agentName": "host",
    }


def said(seq: int, item_id: str, text: str = "Hello", **more: Any) -> dict[str, Any]:
    return {
        "kind": "message",
        "seq": seq,
        "createdAt": NOW + seq,
        "itemId": item_id,
        "role": "user",
        "text": text,
        "interrupted": False,
        **more,
    }


def test_it_type_checks_in_a_project_without_generated_code(project: Path) -> None:
    tsc = ROOT / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [str(find_node()), str(tsc), "--noEmit", "-p", "convex"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_example_has_the_readmes_files(project: Path) -> None:
    for name in ("schema.ts", "auth.config.ts"):
        example = (ROOT / "examples" / "convex" / name).read_text()
        assert example == (project / "convex" / name).read_text()


async def test_a_recorded_session_is_there_once_and_in_order(
    convex: ConvexLocal, tmp_path: Path
) -> None:
    """Agent, recorder and delivery as anybody has them, and the tables of this file alone."""
    key = f"test-{uuid.uuid4().hex}"
    token = AgentToken(convex.agent_key, subject=f"guest:{key}")
    session: AgentSession[None] = AgentSession(
        llm=ScriptedLLM("Hello.", call("look_up"), "It is found."),
        vad=None,
        turn_handling={"turn_detection": "manual"},
    )
    with fake_job_context(room=rtc.Room(), job_id="AJ_1", job_metadata="") as ctx:
        async with AsyncConvexClient(convex.url, token=token, timeout_s=20.0) as client:
            recorder = SessionRecorder.attach(
                session,
                ctx=ctx,
                client=client,
                identity=SessionIdentity(session_key=key),
                outbox_dir=tmp_path / "outbox",
                record_states=True,
            )
            async with session:
                await session.start(_Finder())
                await session.run(user_input="Good morning.")
                await session.run(user_input="Look it up.")
            assert await recorder.aclose(30.0) == 0
            messages = await rows_of(client, key, "messages")
            events = [row["event"] for row in await rows_of(client, key, "events")]
            stored: Any = await client.query("sessions:get", {"sessionKey": key})

    assert [(row["role"], row["text"]) for row in messages] == [
        ("user", "Good morning."),
        ("assistant", "Hello."),
        ("user", "Look it up."),
        ("assistant", "It is found."),
    ]
    assert [event["output"] for event in events if event["kind"] == "toolCall"] == ["found"]
    assert {event["kind"] for event in events} == {"handoff", "stateChanged", "toolCall"}
    assert (stored["status"], stored["provisionalEnd"], stored["runs"]) == ("ended", False, 1.0)
    assert list((tmp_path / "outbox").iterdir()) == []


class _Finder(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Answer.")

    @function_tool
    async def look_up(self) -> str:
        """Look something up."""
        return "found"


async def test_every_kind_of_record_is_folded(client: AsyncConvexClient) -> None:
    """The golden records of version 1, whose rows in the project's own tables are known."""
    key, run_id = f"golden-{uuid.uuid4().hex}", f"golden-{uuid.uuid4().hex}"
    records = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    for one in records:
        if "sessionKey" in one:
            one["sessionKey"] = key

    assert await send(client, run_id, *records) == 22

    messages = await rows_of(client, key, "messages")
    assert [(row["itemId"], row["text"], row["provisional"]) for row in messages] == [
        ("item_user_1", "I would like two kilos of apples.", False),
        ("item_agent_1", "Here you are!", False),
        (f"transcript:{run_id}:16", "Never committed", True),
    ]
    assert messages[1]["metrics"], "a repeat without timings takes none away"
    events = {row["seq"]: row["event"] for row in await rows_of(client, key, "events")}
    assert [(seq, event["kind"]) for seq, event in events.items()] == [
        (4, "toolCall"),
        (5, "toolCall"),
        (6, "error"),
        (12, "lost"),
        (13, "setAside"),
        (14, "setAside"),
        (18, "handoff"),
        (19, "stateChanged"),
    ]
    assert (events[5]["output"], events[5]["isError"]) == ("went", False)
    session: Any = await client.query("sessions:get", {"sessionKey": key})
    assert (session["status"], session["endReason"]) == ("ended", "error")


async def test_every_batch_twice_changes_nothing(conversation: Conversation) -> None:
    for n in range(5):
        conversation.say(f"item_{n}")
        conversation.outbox.append(
            ToolCallRecord(
                created_at=time.time(), call_id=f"c{n}", name="t", arguments="{}", is_error=False
            )
        )
    conversation.end()
    for _ in range(2):
        conversation.outbox.journal.path.with_suffix(".confirmed").unlink(missing_ok=True)
        again = Sender(conversation.outbox.journal, conversation.client, outbox=conversation.outbox)
        assert await again.drain() is None

    assert await conversation.item_ids() == [f"item_{n}" for n in range(5)]
    calls = [row["event"]["callId"] for row in await conversation.rows("events")]
    assert calls == [f"c{n}" for n in range(5)]
    assert (await conversation.session())["runs"] == 1.0


@pytest.mark.parametrize("fault", ["drop_reply", "unavailable", "occ"])
async def test_no_failure_loses_doubles_or_reorders(
    convex: ConvexLocal, conversation: Conversation, fault: str
) -> None:
    with failing(convex, kind=fault, path="sessions:record", probability=0.3):
        conversation.delivery.start()
        for n in range(60):
            conversation.say(f"item_{n}")
            await asyncio.sleep(0.002)
        conversation.end()
        assert await conversation.delivery.aclose(60.0) == 0

    assert await conversation.item_ids() == [f"item_{n}" for n in range(60)]
    assert (await conversation.session())["status"] == "ended"


@contextlib.contextmanager
def failing(convex: ConvexLocal, **fault: Any) -> Iterator[None]:
    """Calls go wrong in this way until the block ends."""
    headers = {"Authorization": f"Convex {convex.admin_key}", "Content-Type": "application/json"}
    url = f"{convex.url}/_local/faults"
    body = json.dumps(fault).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10):
        pass
    try:
        yield
    finally:
        clear = urllib.request.Request(url, headers=headers, method="DELETE")
        with urllib.request.urlopen(clear, timeout=10):
            pass


async def test_a_dead_runs_journal_is_swept_and_given_its_end(conversation: Conversation) -> None:
    conversation.say("item_0")
    directory = conversation.outbox.journal.path.parent
    conversation.outbox.journal.close()  # as the process's death does
    report = await Recovery(conversation.client, directory=directory).sweep()

    assert (report.delivered, report.runs_lost) == (1, 1)
    assert await conversation.item_ids() == ["item_0"]
    session = await conversation.session()
    assert (session["status"], session["endReason"], session["provisionalEnd"]) == (
        "ended",
        "run_lost",
        True,
    )


async def test_a_refused_record_is_set_aside_alone(conversation: Conversation) -> None:
    """Written past the plugin's own checks, as an older or a broken one might."""
    conversation.say("item_0")
    bad = said(conversation.outbox.next_seq, "bad", "x" * (MAX_TEXT_BYTES + 1))
    conversation.outbox.journal.append(encode_line(json.dumps(bad).encode()))
    conversation.outbox._next_seq += 1
    conversation.say("item_2")
    conversation.end()
    conversation.delivery.start()

    assert await conversation.delivery.aclose(30.0) == 0
    assert await conversation.item_ids() == ["item_0", "item_2"]
    [event] = [row["event"] for row in await conversation.rows("events")]
    assert event == {
        "kind": "setAside",
        "code": "text_too_long",
        "field": "text",
        "ofKind": "message",
    }


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (said(1, "i" * 1_025), "field_too_long", "itemId"),
        (said(1, "i", "ä" * 32_769), "text_too_long", "text"),
        (said(1, "i", createdAt=1_793_610.0), "instant_out_of_range", "createdAt"),
        (said(1, "i", startedSpeakingAt=9e15), "instant_out_of_range", "startedSpeakingAt"),
        (
            said(1, "i", metrics={"llmTtftMs": float("inf")}),
            "number_out_of_range",
            "metrics.llmTtftMs",
        ),
        (
            {
                "kind": "usage",
                "seq": 1,
                "createdAt": NOW,
                "models": [{"type": "llm", "provider": "p", "model": f"m{n}"} for n in range(17)],
            },
            "too_many_items",
            "models",
        ),
        (
            {
                "kind": "lost",
                "seq": 1,
                "createdAt": NOW,
                "fromSeq": 1,
                "toSeq": 4,
                "reason": "damaged",
            },
            "number_out_of_range",
            "toSeq",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_record_beyond_a_limit_is_refused_for_good_by_its_seq(
    client: AsyncConvexClient, bad: dict[str, Any], code: str, field: str
) -> None:
    data = await refusal(client, uuid.uuid4().hex, started(uuid.uuid4().hex), bad)

    assert (data["code"], data["seq"], data["field"]) == (code, 1.0, field)


async def test_a_gap_is_refused_with_the_seq_that_is_expected(client: AsyncConvexClient) -> None:
    run_id = uuid.uuid4().hex
    assert await send(client, run_id, started(uuid.uuid4().hex), said(1, "a")) == 1
    data = await refusal(client, run_id, said(2, "b"), said(4, "d"))

    assert (data["code"], data["expected"]) == ("gap", 2.0)
    assert await send(client, run_id, said(1, "a"), said(2, "b")) == 2


async def test_a_kind_that_only_an_app_knows_is_held_with_all_that_follows(
    conversation: Conversation,
) -> None:
    class SlideShown(Record, tag="slideShown", frozen=True, kw_only=True):
        slide: int

    conversation.outbox.append(SlideShown(created_at=time.time(), slide=3))
    conversation.say("item_0")
    sender = Sender(conversation.outbox.journal, conversation.client, outbox=conversation.outbox)
    held = await sender.drain()

    assert held is not None
    assert (held.reason, held.unreachable, sender.set_aside) == ("FunctionError", False, 0)
    assert sender.pending == conversation.outbox.next_seq


async def test_records_of_another_version_are_held(client: AsyncConvexClient) -> None:
    assert await client.query("sessions:recordVersions") == [1.0]
    with pytest.raises(FunctionError) as raised:
        await client.mutation("sessions:record", {"version": 2, "runId": "r", "records": []})

    assert raised.value.code == "version_unsupported"


async def test_a_run_and_its_session_are_their_first_subjects(
    convex: ConvexLocal, conversation: Conversation
) -> None:
    sender = Sender(conversation.outbox.journal, conversation.client, outbox=conversation.outbox)
    assert await sender.drain() is None
    run_id = conversation.outbox.journal.header.run_id
    token = AgentToken(convex.agent_key, subject="guest:somebody-else")
    other = conversation.client.with_token(token)
    refused = await refusal(other, run_id, said(1, "item_0"))
    own_run = uuid.uuid4().hex
    await send(other, own_run, started(conversation.key), said(1, "item_0"))
    codes = []
    for reader in ("get", "messages", "events"):
        page = {} if reader == "get" else {"paginationOpts": {"numItems": 1, "cursor": None}}
        with pytest.raises(FunctionError) as raised:
            await other.query(f"sessions:{reader}", {"sessionKey": conversation.key, **page})
        codes.append(raised.value.code)
    own = await rows_of(other, own_run, "messages")
    await other.aclose()

    assert refused["code"] == "forbidden"
    assert codes == ["forbidden"] * 3
    assert [row["itemId"] for row in own] == ["item_0"], "a session of its own, under its run's id"
    assert await conversation.item_ids() == []


@pytest.mark.parametrize("function", ["get", "messages", "events", "recordVersions", "record"])
async def test_nobody_and_no_other_role_may_call(convex: ConvexLocal, function: str) -> None:
    key = convex.agent_key
    now = int(time.time())
    claims = {"iss": key.issuer, "aud": "convex", "sub": "s", "iat": now, "exp": now + 60}
    page = {"sessionKey": "k", "paginationOpts": {"numItems": 1, "cursor": None}}
    args: dict[str, dict[str, Any]] = {
        "get": {"sessionKey": "k"},
        "messages": page,
        "events": page,
        "record": {"version": 1, "runId": "r", "records": []},
    }
    codes = []
    for token in (None, key.sign(claims), key.sign({**claims, "role": "student"})):
        async with AsyncConvexClient(convex.url, token=token) as client:
            call = client.mutation if function == "record" else client.query
            with pytest.raises(FunctionError) as raised:
                await call(f"sessions:{function}", args.get(function, {}))
            codes.append(raised.value.code)

    assert codes == ["unauthenticated", "forbidden", "forbidden"]


async def test_runs_may_arrive_in_any_order(convex: ConvexLocal) -> None:
    """Two runs of one session, whose batches interleave in every way: the same rows come out."""
    first = [
        [started("key"), said(1, "a"), said(2, "both", "old", metrics={"llmTtftMs": 5.0})],
        [
            said(3, "both", "older"),
            {"kind": "runEnded", "seq": 4, "createdAt": NOW + 4, "reason": "x"},
        ],
    ]
    second = [
        [started("key", NOW + 100), said(1, "both", "new", createdAt=NOW + 101)],
        [
            {"kind": "sessionEnded", "seq": 2, "createdAt": NOW + 200, "reason": "y"},
            {"kind": "runEnded", "seq": 3, "createdAt": NOW + 201, "reason": "x"},
        ],
    ]
    outcomes = []
    for places in itertools.combinations(range(4), 2):
        key = uuid.uuid4().hex
        token = AgentToken(convex.agent_key, subject=f"student:{key}")
        # By their names the second would be the first.
        runs = {"b": iter(first), "a": iter(second)}
        async with AsyncConvexClient(convex.url, token=token) as client:
            for place in range(4):
                run = "b" if place in places else "a"
                batch = [
                    {**one, "sessionKey": key} if "sessionKey" in one else one
                    for one in next(runs[run])
                ]
                await send(client, f"{run}-{key}", *batch)
            rows = await rows_of(client, key, "messages")
            session: Any = await client.query("sessions:get", {"sessionKey": key})
        outcomes.append(json.dumps([rows, session], sort_keys=True).replace(key, "key"))

    shapes = {_without_row_ids(outcome) for outcome in outcomes}
    assert len(shapes) == 1
    [rows, session] = json.loads(shapes.pop())
    assert [(row["itemId"], row["text"]) for row in rows] == [("a", "Hello"), ("both", "new")]
    assert rows[1]["metrics"] == {"llmTtftMs": 5.0}
    assert (session["status"], session["endReason"], session["runs"]) == ("ended", "y", 2.0)


def _without_row_ids(outcome: str) -> str:
    return re.sub(r'"(_id|sessionId|_creationTime)": [^,}]+', r'"\1": 0', outcome)


async def test_a_turn_that_never_became_a_message_is_kept_and_the_others_are_absorbed(
    client: AsyncConvexClient,
) -> None:
    key, run_id = uuid.uuid4().hex, uuid.uuid4().hex
    heard = [
        {"kind": "transcript", "seq": n, "createdAt": NOW + n, "text": text}
        for n, text in enumerate(["Yes.", "I know", "no", "yes"], start=1)
    ]
    late = {"kind": "transcript", "seq": 6, "createdAt": NOW, "text": "x", "itemId": "item_1"}
    await send(client, run_id, started(key), *heard, said(5, "item_1", "Yes, I know."), late)

    rows = await rows_of(client, key, "messages")
    assert [(row["text"], row["provisional"]) for row in rows] == [
        ("no", True),
        ("yes", True),
        ("Yes, I know.", False),
    ]


async def test_a_later_run_takes_back_the_end_and_so_does_a_later_record(
    client: AsyncConvexClient,
) -> None:
    key, first, second = uuid.uuid4().hex, f"b-{uuid.uuid4().hex}", f"a-{uuid.uuid4().hex}"

    async def status() -> tuple[str, bool]:
        session: Any = await client.query("sessions:get", {"sessionKey": key})
        return session["status"], session["provisionalEnd"]

    ended = {"kind": "sessionEnded", "seq": 1, "createdAt": NOW + 1, "reason": "y"}
    await send(client, first, started(key), ended)
    assert await status() == ("ended", False)
    await send(client, second, {**started(key, NOW + 10), "kind": "sessionResumed"})
    assert await status() == ("active", False)
    await send(client, first, {"kind": "runEnded", "seq": 2, "createdAt": NOW + 2, "reason": "x"})
    assert await status() == ("active", False)
    await send(client, second, {"kind": "runEnded", "seq": 1, "createdAt": NOW + 11, "reason": "x"})
    assert await status() == ("ended", True)
    await send(client, second, said(2, "a", createdAt=NOW + 12))
    assert await status() == ("active", False)


async def test_a_run_without_its_start_has_a_session_of_its_own(convex: ConvexLocal) -> None:
    key, run_id = uuid.uuid4().hex, uuid.uuid4().hex
    lost = {
        "kind": "lost",
        "seq": 1,
        "createdAt": NOW,
        "fromSeq": 0,
        "toSeq": 1,
        "reason": "damaged",
    }
    token = AgentToken(convex.agent_key, subject=f"guest:{key}")
    async with AsyncConvexClient(convex.url, token=token) as client:
        assert await send(client, run_id, lost, said(2, "a")) == 2
        assert [row["itemId"] for row in await rows_of(client, key, "messages")] == ["a"]


async def test_a_foreign_key_is_no_agents(convex: ConvexLocal) -> None:
    token = AgentToken(AgentKey.generate(), subject="guest:g")
    async with AsyncConvexClient(convex.url, token=token) as client:
        with pytest.raises(AuthenticationError):
            await client.query("sessions:recordVersions")
