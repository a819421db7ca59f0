"""What was recorded is what LiveKit reports of the session: nothing missing, nothing double.

Lessons of every kind are really held, with models that say what the lesson tells them to, and
compared with `JobContext.make_session_report()`, which LiveKit makes from its own memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from livekit.agents import (
    NOT_GIVEN,
    Agent,
    AgentSession,
    JobContext,
    RunContext,
    StopResponse,
    ToolError,
    function_tool,
    llm,
)
from livekit.agents.llm import ToolFlag

from livekit.plugins.convex import AsyncConvexClient, SessionRecorder
from tests.support.scripted_ears import ScriptedSTT, Silence
from tests.support.scripted_llm import ScriptedLLM, Unfinished, call
from tests.support.scripted_realtime import ScriptedRealtime

if TYPE_CHECKING:
    from tests.unit.plugin.conftest import FoldingConvex

Session = AgentSession[Any]


class Tutor(Agent):
    """Has a tool for each way that a tool can go."""

    def __init__(self) -> None:
        super().__init__(instructions="Be kind.", id="tutor")
        self.go_on = asyncio.Event()

    async def on_user_turn_completed(
        self, turn_ctx: llm.ChatContext, new_message: llm.ChatMessage
    ) -> None:
        match new_message.text_content:
            case "Do not answer":
                raise StopResponse
            case "Break":
                raise RuntimeError

    @function_tool
    async def look_up(self, word: str) -> str:
        """Look a word up."""
        return f"{word} is a word"

    @function_tool
    async def refuse(self) -> str:
        """Refuse."""
        raise ToolError("not today")

    @function_tool
    async def fail(self) -> str:
        """Fail."""
        raise ValueError("private words")

    @function_tool
    async def say_nothing(self) -> None:
        """Return nothing, and want no reply."""
        raise StopResponse

    @function_tool
    async def search(self, context: RunContext[Any]) -> str:
        """Search, which takes time."""
        await context.update("searching")
        await context.update("still searching")
        await self.go_on.wait()
        return "found"

    @function_tool
    async def search_in_vain(self, context: RunContext[Any]) -> str:
        """Search, and break."""
        await context.update("searching")
        await self.go_on.wait()
        raise ValueError("private words")

    @function_tool(flags=ToolFlag.CANCELLABLE)
    async def search_for_ever(self, context: RunContext[Any]) -> str:
        """Search, until the session ends."""
        await context.update("searching")
        await asyncio.Event().wait()
        return "found"

    @function_tool
    async def hand_over(self) -> tuple[Agent, str]:
        """Let the examiner take over."""
        return Agent(instructions="Be strict.", id="examiner"), "over to the examiner"


@dataclass(frozen=True)
class Lesson:
    """A lesson: who speaks in it, and what happens.

    Attributes:
        play: holds it.
        texts: what is said, in the order in which a reader sees it; the last snapshot of each item.
        provisional: finals that no message contains in the end.
    """

    model: Callable[[], llm.LLM[Any] | llm.RealtimeModel]
    play: Callable[[Session, Any, Tutor, ScriptedSTT], Awaitable[None]]
    texts: list[str]
    provisional: list[str] = field(default_factory=list)
    ears: bool = False


async def until(happened: Callable[[], bool]) -> None:
    """Wait for LiveKit's tasks."""
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110  LiveKit's own state has no event
            await asyncio.sleep(0.01)


def said(session: Session, text: str) -> Callable[[], bool]:
    return lambda: text in [m.text_content for m in session.history.messages()]


async def plain(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    await session.generate_reply()
    await session.run(user_input="I goed home")


async def spoken(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    await ears.hear("My name", "is Sam")
    await until(said(session, "Hello, Sam!"))


async def interruption(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    reply = session.generate_reply(user_input="Tell me a story")
    await until(lambda: session.agent_state == "speaking")
    await session.interrupt()
    await reply
    await session.run(user_input="Another one")


async def unanswered(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    for words in ("Do not answer", "Break"):
        await ears.hear(words)
        await asyncio.sleep(0.4)
    await ears.hear("Hello")
    await until(said(session, "Good morning!"))


async def handoff(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    await session.run(user_input="Examine me")
    await session.run(user_input="Go")


async def tools(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    for words in ("One", "Two", "Three", "Four", "Five"):
        await session.run(user_input=words)


async def late_result(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    reply = session.generate_reply(user_input="Search")
    await until(said(session, "One moment."))
    tutor.go_on.set()
    await until(said(session, "Here it is."))
    await reply


async def cut_off(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    session.generate_reply(user_input="Search")
    await until(said(session, "One moment."))


async def model_fails(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    await session.generate_reply(user_input="Are you there?")
    await session.run(user_input="And now?")


async def realtime(session: Session, model: Any, tutor: Tutor, ears: ScriptedSTT) -> None:
    """A transcript that comes when its answer is over, a final that is repeated, a tool."""
    await session.generate_reply()
    asked_at = time.time()
    await asyncio.sleep(0.02)
    model.answer("Fine, and you?", item_id="answer")
    await until(said(session, "Fine, and you?"))
    model.hear("asked", "How are", turn_started_at=asked_at)
    model.hear("asked", "How are you?", turn_started_at=asked_at)
    model.hear("next", "What is went?", turn_started_at=time.time())
    model.answer(call("look_up", '{"word": "went"}'))
    await until(said(session, "It is a word."))


LESSONS = {
    "plain": Lesson(
        lambda: ScriptedLLM("Hello!", "You went home?"),
        plain,
        ["Hello!", "I goed home", "You went home?"],
    ),
    "spoken": Lesson(
        lambda: ScriptedLLM("Hello, Sam!"), spoken, ["My name is Sam", "Hello, Sam!"], ears=True
    ),
    "interruption": Lesson(
        lambda: ScriptedLLM(Unfinished("Once upon a time "), "There was a king."),
        interruption,
        ["Tell me a story", "Once upon a time ", "Another one", "There was a king."],
    ),
    "StopResponse": Lesson(
        lambda: ScriptedLLM("Good morning!"),
        unanswered,
        ["Hello", "Good morning!"],
        provisional=["Do not answer", "Break"],
        ears=True,
    ),
    "handoff": Lesson(
        lambda: ScriptedLLM(call("hand_over"), "You are examined.", "Very well."),
        handoff,
        ["Examine me", "You are examined.", "Go", "Very well."],
    ),
    "tools": Lesson(
        lambda: ScriptedLLM(
            *(call("look_up", '{"word": "went"}'), "1"),
            *(call("refuse"), "2"),
            *(call("fail"), "3"),
            *(call("nothing"), "4"),
            call("say_nothing"),
        ),
        tools,
        ["One", "1", "Two", "2", "Three", "3", "Four", "4", "Five"],
    ),
    "late result": Lesson(
        lambda: ScriptedLLM(call("search"), "One moment.", "Here it is."),
        late_result,
        ["Search", "One moment.", "Here it is."],
    ),
    "late failure": Lesson(
        lambda: ScriptedLLM(call("search_in_vain"), "One moment.", "Here it is."),
        late_result,
        ["Search", "One moment.", "Here it is."],
    ),
    "cut off": Lesson(
        lambda: ScriptedLLM(call("search_for_ever"), "One moment."),
        cut_off,
        ["Search", "One moment."],
    ),
    "model fails": Lesson(
        lambda: ScriptedLLM(RuntimeError(), "I am."),
        model_fails,
        ["Are you there?", "And now?", "I am."],
    ),
    "realtime": Lesson(
        lambda: ScriptedRealtime("Hello!", "It is a word."),
        realtime,
        ["Hello!", "How are you?", "Fine, and you?", "What is went?", "It is a word."],
    ),
}


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS.keys())
async def test_what_was_recorded_is_what_livekit_reports(
    lesson: Lesson,
    ctx: JobContext,
    client: AsyncConvexClient,
    folding: FoldingConvex,
    tmp_path: Path,
) -> None:
    ears = ScriptedSTT()
    model, tutor = lesson.model(), Tutor()
    session = Session(
        llm=model,
        stt=ears if lesson.ears else NOT_GIVEN,
        vad=None,
        turn_handling={
            "turn_detection": "stt" if lesson.ears else "manual",
            "endpointing": {"min_delay": 0.05, "max_delay": 0.1},
        },
    )
    if lesson.ears:
        session.input.audio = Silence()
    recorder = SessionRecorder.attach(session, ctx=ctx, client=client, outbox_dir=tmp_path)
    async with session:
        await session.start(tutor)
        await lesson.play(session, model, tutor, ears)
    report = ctx.make_session_report(session).to_dict()
    assert await recorder.aclose(timeout_s=10.0) == 0

    recorded = Recorded(folding.folded)
    assert recorder.stats.lost == 0
    assert recorded.announced() == announced(report)
    assert recorded.items() == items(report)
    # After a tool's report LiveKit asks once or twice, as it happens; a script that is over says ".".
    assert [text for text in recorded.texts() if text != "."] == lesson.texts
    assert recorded.finals() == finals(report)
    assert recorded.provisional() == lesson.provisional
    assert recorded.tool_calls() == tool_calls(report)
    assert recorded.handoffs() == handoffs(report)
    assert recorded.usage() == usage(report)
    assert len(recorded.of("error")) == sum(report["errors"].values())
    assert [f"CR_{r['reason'].upper()}" for r in recorded.of("sessionEnded")] == [
        report["close_reason"]
    ]
    assert "private" not in str(folding.folded)


class Recorded:
    """A run's records, as the fold puts them together."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self._records if record["kind"] == kind]

    def announced(self) -> list[str]:
        """The item of each record of one, repeats too."""
        return [r["itemId"] for r in self._records if r["kind"] in ("message", "handoff")]

    def _messages(self) -> list[dict[str, Any]]:
        latest: dict[str, dict[str, Any]] = {}
        for record in self.of("message"):
            place = latest.get(record["itemId"], record)
            latest[record["itemId"]] = {
                **record,
                "createdAt": place["createdAt"],
                "seq": place["seq"],
            }
        return sorted(latest.values(), key=lambda r: (r["createdAt"], r["seq"]))

    def items(self) -> list[tuple[Any, ...]]:
        return [
            (r["itemId"], r["role"], r["text"], r["interrupted"], r.get("transcriptConfidence"))
            for r in self._messages()
        ]

    def texts(self) -> list[str]:
        return [record["text"] for record in self._messages()]

    def finals(self) -> list[tuple[str, str | None]]:
        return [(r["text"], r.get("language")) for r in self.of("transcript")]

    def provisional(self) -> list[str]:
        texts = " ".join(self.texts())
        ids = {record["itemId"] for record in self.of("message")}
        return [
            r["text"]
            for r in self.of("transcript")
            if r["text"] not in texts and r.get("itemId") not in ids
        ]

    def tool_calls(self) -> list[tuple[Any, ...]]:
        calls: dict[int, dict[str, Any]] = {}
        for record in self.of("toolCall"):
            calls[record.get("resultOf", record["seq"])] = record
        return [
            (r["callId"], r["name"], r["arguments"], r.get("output"), r["isError"])
            for r in calls.values()
        ]

    def handoffs(self) -> list[tuple[str, str | None, str]]:
        return [(r["itemId"], r.get("oldAgent"), r["newAgent"]) for r in self.of("handoff")]

    def usage(self) -> dict[str, Any]:
        """The last snapshot, by model."""
        snapshots = self.of("usage")
        return (
            {m["type"]: m.get("inputTokens") for m in snapshots[-1]["models"]} if snapshots else {}
        )


def announced(report: dict[str, Any]) -> list[str]:
    return [
        event["item"]["id"]
        for event in report["events"]
        if event["type"] == "conversation_item_added"
    ]


def items(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    """LiveKit's messages; of an item that a model repeated, the last that is said of it."""
    found: dict[str, tuple[Any, ...]] = {}
    for item in report["chat_history"]["items"]:
        if item["type"] == "message":
            text = "\n".join(item["content"])
            confidence = item.get("transcript_confidence")
            found[item["id"]] = (item["id"], item["role"], text, item["interrupted"], confidence)
    return list(found.values())


def finals(report: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [
        (event["transcript"], event["language"])
        for event in report["events"]
        if event["type"] == "user_input_transcribed" and event["is_final"]
    ]


def tool_calls(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    """LiveKit's calls, each with what it came to.

    Its history has a further pair for each report after the first (`…_update_1`), which tells of
    nothing that lasts, and one for a late result (`…_final`).
    """
    items = report["chat_history"]["items"]
    outputs = {
        item["call_id"]: (item["output"], item["is_error"])
        for item in items
        if item["type"] == "function_call_output"
    }
    ended = {
        event["update"]["call_id"]: event["update"]
        for event in report["events"]
        if event["type"] == "tool_execution_updated"
        and event["update"]["type"] == "tool_call_ended"
    }
    calls = []
    for item in items:
        call_id = item.get("call_id", "")
        if item["type"] != "function_call" or "_update_" in call_id or "_final" in call_id:
            continue
        output = outputs.get(call_id, (None, True))
        if call_id in ended and ended[call_id]["id"] == f"{call_id}_final":
            output = outputs.get(f"{call_id}_final", (None, True))
        calls.append((call_id, item["name"], item["arguments"], *output))
    return calls


def handoffs(report: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    return [
        (item["id"], item.get("old_agent_id"), item["new_agent_id"])
        for item in report["chat_history"]["items"]
        if item["type"] == "agent_handoff"
    ]


def usage(report: dict[str, Any]) -> dict[str, Any]:
    return {
        entry["type"].removesuffix("_usage"): entry.get("input_tokens", 0)
        for entry in report["usage"] or []
    }
