"""Journals delivered to the project's real functions: each thing once, in order, whatever fails."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from livekit.plugins.convex import (
    AgentKey,
    AgentToken,
    AsyncConvexClient,
    Outbox,
    SweepReport,
    deliver_dead_journals,
)
from livekit.plugins.convex.delivery import Delivery
from livekit.plugins.convex.journal import FORMAT, Header, Journal, encode_line
from livekit.plugins.convex.limits import MAX_TEXT_BYTES, RECORD_VERSION
from livekit.plugins.convex.records import (
    MessageRecord,
    RunEndedRecord,
    SessionEndedRecord,
    SessionStartedRecord,
    ToolCallRecord,
    TranscriptRecord,
)
from livekit.plugins.convex.recovery import Recovery
from livekit.plugins.convex.sender import Sender
from livekit.plugins.convex.set_aside import SetAside

if TYPE_CHECKING:
    from tests.contract.conftest import Deployment, LocalDeployment

GOLDEN = Path(__file__).parents[1] / "golden"


class Lesson:
    """A guest's session on one deployment: its outbox, its delivery, and what Convex holds of it."""

    def __init__(self, deployment: Deployment, directory: Path, **header: Any) -> None:
        self.key = f"test-{uuid.uuid4().hex}"
        self.directory = directory
        self.subject = f"guest:{self.key}"
        token = AgentToken(deployment.key, subject=self.subject)
        self.client = AsyncConvexClient(deployment.url, token=token, timeout_s=20.0)
        fields: dict[str, Any] = {
            "format": FORMAT,
            "record_version": RECORD_VERSION,
            "run_id": uuid.uuid4().hex,
            "session_key": self.key,
            "subject": self.subject,
            "deployment": self.client.url,
            "started_at_ms": time.time() * 1000,
            "steady_at_ms": 0.0,
        }
        self.outbox = Outbox.open(directory, Header(**{**fields, **header}))
        self.delivery = Delivery(self.outbox, self.client)
        self.outbox.append(
            SessionStartedRecord(
                created_at=time.time(),
                session_key=self.key,
                room="room-test",
                job_id="AJ_test",
                agent_name="test",
            )
        )

    def say(self, item_id: str, text: str = "Good morning") -> None:
        self.outbox.append(
            MessageRecord(
                created_at=time.time(),
                item_id=item_id,
                role="user",
                text=text,
                interrupted=False,
            )
        )

    def end(self) -> None:
        self.outbox.append(SessionEndedRecord(created_at=time.time(), reason="user_initiated"))
        self.outbox.append(RunEndedRecord(created_at=time.time(), reason="done"))

    async def messages(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor: Any = None
        while True:
            page: Any = await self.client.query(
                "messages:list",
                {"sessionKey": self.key, "paginationOpts": {"numItems": 100, "cursor": cursor}},
            )
            rows += page["page"]
            cursor = page["continueCursor"]
            if page["isDone"]:
                return rows

    async def item_ids(self) -> list[str]:
        return [row["itemId"] for row in await self.messages()]

    async def session(self) -> dict[str, Any]:
        session: Any = await self.client.query("sessions:get", {"sessionKey": self.key})
        assert isinstance(session, dict)
        return session

    async def aclose(self) -> None:
        await self.delivery.aclose(0.0)
        await self.client.aclose()


@pytest.fixture
async def lessons() -> AsyncIterator[list[Lesson]]:
    opened: list[Lesson] = []
    yield opened
    for lesson in opened:
        await lesson.aclose()


@pytest.fixture(params=["convex-local", pytest.param("real", marks=pytest.mark.deployment)])
def lesson(
    request: pytest.FixtureRequest, tmp_path: Path, lessons: list[Lesson]
) -> Callable[..., Lesson]:
    def open_lesson(**header: Any) -> Lesson:
        if request.param == "real":
            from tests.contract.conftest import Deployment, _real_url

            target: Deployment = Deployment(_real_url(), AgentKey.from_env())
        else:
            target = request.getfixturevalue("convex_local")
        lessons.append(Lesson(target, tmp_path / "outbox", **header))
        return lessons[-1]

    return open_lesson


@pytest.fixture
async def failing(convex_local: LocalDeployment) -> AsyncIterator[Callable[..., None]]:
    """Lets calls of `sessions:record` go wrong until the test ends."""

    def fail(kind: str, **how: Any) -> None:
        convex_local._ask("POST", {"kind": kind, "path": "sessions:record", **how})

    yield fail
    await asyncio.to_thread(convex_local.clear)


async def test_a_session_is_in_convex_once_and_in_order(lesson: Callable[..., Lesson]) -> None:
    held = lesson()
    held.delivery.start()
    for n in range(10):
        held.outbox.append(TranscriptRecord(created_at=time.time(), text=f"word {n}"))
        held.say(f"item_{n}", text=f"word {n}")
        held.outbox.append(
            ToolCallRecord(
                created_at=time.time(), call_id=f"c{n}", name="t", arguments="{}", is_error=False
            )
        )
    held.end()

    assert await held.delivery.aclose(30.0) == 0

    assert await held.item_ids() == [f"item_{n}" for n in range(10)]
    session = await held.session()
    assert (session["status"], session["messageCount"], session["runs"]) == ("ended", 10.0, 1.0)
    assert list(held.directory.iterdir()) == []


async def test_every_batch_twice_changes_nothing(lesson: Callable[..., Lesson]) -> None:
    held = lesson()
    for n in range(5):
        held.say(f"item_{n}")
    held.end()
    for _ in range(2):
        held.outbox.journal.path.with_suffix(".confirmed").unlink(missing_ok=True)
        again = Sender(held.outbox.journal, held.client, outbox=held.outbox)
        assert await again.drain() is None

    assert await held.item_ids() == [f"item_{n}" for n in range(5)]
    assert (await held.session())["messageCount"] == 5.0


@pytest.mark.parametrize(
    ("fault", "probability"), [("drop_reply", 0.3), ("unavailable", 0.3), ("occ", 0.3)]
)
async def test_no_failure_loses_doubles_or_reorders(
    convex_local: LocalDeployment,
    lessons: list[Lesson],
    tmp_path: Path,
    failing: Callable[..., None],
    fault: str,
    probability: float,
) -> None:
    held = Lesson(convex_local, tmp_path / "outbox")
    lessons.append(held)
    held.delivery = Delivery(held.outbox, held.client, jitter=lambda low, high: 0.0)
    await asyncio.to_thread(failing, fault, probability=probability)
    held.delivery.start()
    for n in range(60):
        held.say(f"item_{n}")
        await asyncio.sleep(0.002)
    held.end()

    assert await held.delivery.aclose(60.0) == 0
    assert await held.item_ids() == [f"item_{n}" for n in range(60)]
    assert (await held.session())["messageCount"] == 60.0


async def test_a_record_convex_refuses_is_set_aside_alone_and_taken_once_it_fits(
    lesson: Callable[..., Lesson],
) -> None:
    """Written past our own checks, as an older or a broken plugin might."""
    held = lesson()
    held.say("item_0")
    seq = held.outbox.next_seq
    bad = {
        "seq": seq,
        "kind": "message",
        "createdAt": time.time() * 1000,
        "itemId": "bad",
        "role": "user",
        "text": "x" * (MAX_TEXT_BYTES + 1),
        "interrupted": False,
    }
    held.outbox.journal.append(encode_line(json.dumps(bad).encode()))
    held.outbox._next_seq += 1
    held.say("item_2")
    held.end()
    held.delivery.start()

    assert await held.delivery.aclose(30.0) == 0
    assert await held.item_ids() == ["item_0", "item_2"]
    assert (await held.session())["status"] == "ended"
    assert [path.suffix for path in held.directory.iterdir()] == [".dead"]

    client = held.client.with_token(held.client.token)
    with SetAside.take(held.directory, held.outbox.journal.header.run_id) as taken:
        as_it_was = await taken.retry(client, seq)
        cut = await taken.retry(client, seq, truncate=True)
    await client.aclose()
    assert (as_it_was.outcome, as_it_was.reason, as_it_was.field) == (
        "refused",
        "text_too_long",
        "text",
    )
    assert (cut.outcome, cut.cut) == ("taken", ("text",))
    assert [(row["itemId"], len(row["text"])) for row in await held.messages()] == [
        ("item_0", len("Good morning")),
        ("bad", MAX_TEXT_BYTES),
        ("item_2", len("Good morning")),
    ]
    session = await held.session()
    assert (session["status"], session["messageCount"]) == ("ended", 3)
    assert list(held.directory.iterdir()) == []


async def test_records_of_a_newer_version_are_held(lesson: Callable[..., Lesson]) -> None:
    held = lesson(record_version=99)
    sender = Sender(held.outbox.journal, held.client, outbox=held.outbox)
    reason = await sender.drain()

    assert reason is not None
    assert (reason.reason, reason.unreachable) == ("version_unsupported", False)
    assert (sender.delivered, sender.pending) == (0, held.outbox.next_seq)


async def test_a_run_belongs_to_its_first_subject(lesson: Callable[..., Lesson]) -> None:
    held = lesson()
    assert await Sender(held.outbox.journal, held.client, outbox=held.outbox).drain() is None
    held.say("item_0")
    token = held.client.token
    assert isinstance(token, AgentToken)
    other = held.client.with_token(AgentToken(token.key, subject="guest:somebody-else"))
    reason = await Sender(held.outbox.journal, other, outbox=held.outbox).drain()
    await other.aclose()

    assert reason is not None
    assert reason.reason == "forbidden"


async def test_a_foreign_key_is_held_and_named(lesson: Callable[..., Lesson]) -> None:
    held = lesson()
    foreign = AgentToken(AgentKey.generate(), subject=held.subject)
    client = held.client.with_token(foreign)
    reason = await Sender(held.outbox.journal, client, outbox=held.outbox).drain()
    await client.aclose()

    assert reason is not None
    assert (reason.reason, reason.unreachable) == ("AuthenticationError", False)
    assert reason.remedy


async def test_a_damaged_journal_is_delivered_around_the_damage(
    lesson: Callable[..., Lesson],
) -> None:
    held = lesson()
    for n in range(4):
        held.say(f"item_{n}")
    held.end()
    path = held.outbox.journal.path
    held.outbox.journal.close()
    path.write_bytes(path.read_bytes().replace(b"item_2", b"item_X"))
    sender = Sender(Journal.adopt(path), held.client)

    assert await sender.drain() is None
    assert sender.finish()
    assert await held.item_ids() == ["item_0", "item_1", "item_3"]
    assert (await held.session())["status"] == "ended"


async def test_a_dead_runs_journal_is_swept_to_convex(lesson: Callable[..., Lesson]) -> None:
    held = lesson()
    held.say("item_0")
    held.end()
    held.outbox.journal.close()  # as the process's death does
    report = await Recovery(held.client, directory=held.directory).sweep()

    assert (report.delivered, report.records) == (1, 4)
    assert await held.item_ids() == ["item_0"]


async def test_a_job_that_starts_finds_what_its_former_one_left(
    lesson: Callable[..., Lesson],
) -> None:
    """Also if two start at once: once they ask, Convex has all of it, and the run is over."""
    held = lesson()
    for n in range(100):
        held.say(f"item_{n}")
    held.outbox.journal.close()  # as the process's death does

    async def start_job() -> SweepReport:
        report = await deliver_dead_journals(
            held.client, held.directory, subject=held.subject, timeout_s=60.0
        )
        assert await held.item_ids() == [f"item_{n}" for n in range(100)]
        return report

    reports = await asyncio.gather(start_job(), start_job())

    assert sorted(report.delivered for report in reports) == [0, 1]
    assert sum(report.records for report in reports) == 102
    assert (await held.session())["status"] == "ended"
    assert list(held.directory.iterdir()) == []


async def test_the_golden_journal_is_taken_by_todays_functions(
    lesson: Callable[..., Lesson], tmp_path: Path
) -> None:
    """Journals of every version there ever was are folded still."""
    held = lesson()
    own = {b"run_golden_v1": uuid.uuid4().hex, b"session_golden": held.key}
    lines = (GOLDEN / "journal-v1.journal").read_bytes().splitlines()
    path = tmp_path / "golden.journal"
    payloads = [line[9:] for line in lines]
    # Under names of its own, so that it can be delivered to one deployment more than once.
    for name, ours in own.items():
        payloads = [payload.replace(name, ours.encode()) for payload in payloads]
    path.write_bytes(b"".join(map(encode_line, payloads)))
    sender = Sender(Journal.adopt(path), held.client)

    assert await sender.drain() is None
    assert sender.finish()
    messages = await held.messages()
    assert [(row["itemId"], row["provisional"]) for row in messages] == [
        ("item_1", False),
        ("item_2", False),
    ]
    assert messages[0]["metrics"]["endOfTurnDelayMs"] == 500.0
