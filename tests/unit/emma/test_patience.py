"""A model that is silent, fails, or goes round in circles: Emma says something, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import (
    AgentSession,
    APIConnectOptions,
    ErrorEvent,
    FlushSentinel,
    RunResult,
    llm,
    stt,
)
from livekit.agents.testing import fake_job_context
from livekit.agents.voice.run_result import FunctionCallOutputEvent

from emma_agent import patience
from emma_agent.lesson import LessonState
from emma_agent.patience import (
    CONNECTING,
    GIVE_UP_AFTER_S,
    MOMENT_AFTER_S,
    SENTENCES,
    Chunk,
    patiently,
)
from emma_agent.tutor import Tutor
from livekit.plugins.convex import AsyncConvexClient, ErrorRecord, SessionRecorder
from livekit.plugins.convex.testing import FakeConvex
from tests.support.folded import Folded
from tests.support.lessons import in_lesson, known_student, lesson_of, text_session
from tests.support.scripted_ears import ScriptedSTT
from tests.support.scripted_llm import Answer, Broken, Late, ScriptedLLM, Unfinished
from tests.support.talking import use
from tests.support.waits import Waits
from tests.support.wire import LESSON

ENGLISH = SENTENCES["en"]


class Model:
    """An answer of the model, chunk by chunk as the test gives it; None ends it."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
        self.closed = False

    async def answer(self) -> AsyncIterator[Chunk]:
        try:
            while (chunk := await self.chunks.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed = True


class Turn:
    """One answer, waited for patiently."""

    def __init__(self, *, student_waits: bool = True, may_use_tools: bool = True) -> None:
        self.model = Model()
        self.waits = Waits()
        self.failures: list[str] = []
        self._chunks = patiently(
            self.model.answer(),
            sentences=ENGLISH,
            student_waits=student_waits,
            may_use_tools=may_use_tools,
            failed=lambda error: self.failures.append(type(error).__name__),
            sleep=self.waits.sleep,
        )

    def give(self, *chunks: Chunk | Exception | None) -> None:
        for chunk in chunks:
            self.model.chunks.put_nowait(chunk)

    async def next(self) -> Chunk:
        return await anext(self._chunks)

    async def rest(self) -> list[Chunk]:
        return [chunk async for chunk in self._chunks]


def a_call() -> llm.ChatChunk:
    wanted = llm.FunctionToolCall(name="next_slide", arguments="{}", call_id="c")
    return llm.ChatChunk(id="1", delta=llm.ChoiceDelta(role="assistant", tool_calls=[wanted]))


async def test_an_answer_passes_as_it_is() -> None:
    turn = Turn()
    turn.give("Good", " morning.", None)
    assert await turn.rest() == ["Good", " morning."]
    assert turn.failures == []
    assert turn.model.closed


async def test_a_silent_model_gets_a_moment_and_is_heard_after_it() -> None:
    turn = Turn()
    first = asyncio.ensure_future(turn.next())
    await turn.waits.end_the_next()
    assert await first == "One moment, please. "
    assert isinstance(await turn.next(), FlushSentinel)
    turn.give("Here I am.", None)
    assert await turn.rest() == ["Here I am."]
    assert turn.failures == []


async def test_the_moment_is_said_once_and_then_the_model_is_given_up() -> None:
    turn = Turn()
    rest = asyncio.ensure_future(turn.rest())
    await turn.waits.end_the_next()
    await turn.waits.end_the_next()
    moment, _, again = await rest
    assert (moment, again) == ("One moment, please. ", ENGLISH.again)
    assert turn.failures == ["SilentModelError"]
    assert turn.waits.begun == [MOMENT_AFTER_S, GIVE_UP_AFTER_S - MOMENT_AFTER_S]
    assert turn.model.closed


async def test_a_silence_in_the_middle_of_a_sentence_has_no_moment() -> None:
    turn = Turn()
    turn.give("Yesterday I")
    assert await turn.next() == "Yesterday I"
    rest = asyncio.ensure_future(turn.rest())
    await turn.waits.end_the_next()
    await turn.waits.end_the_next()
    flush, again = await rest
    assert isinstance(flush, FlushSentinel)
    assert again == f" {ENGLISH.again}"


async def test_what_a_tool_did_is_answered_by_itself() -> None:
    turn = Turn()
    turn.give(a_call(), ConnectionError())
    assert len(await turn.rest()) == 1
    assert turn.failures == ["ConnectionError"]


async def test_a_call_that_nobody_may_make_is_no_answer() -> None:
    """LiveKit drops it, so that the student would hear nothing."""
    turn = Turn(may_use_tools=False)
    turn.give(a_call(), None)
    assert (await turn.rest())[1:] == [ENGLISH.again]


async def test_nothing_is_an_answer_only_where_nobody_waits() -> None:
    asked, unasked = Turn(), Turn(student_waits=False)
    asked.give(None)
    unasked.give(None)
    assert await asked.rest() == [ENGLISH.again]
    assert await unasked.rest() == []
    assert (asked.failures, unasked.failures) == (["EmptyAnswerError"], [])


async def test_who_stops_listening_stops_the_model() -> None:
    """As when the student interrupts."""
    turn = Turn()
    listening = asyncio.ensure_future(turn.next())
    await turn.waits.begins()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert turn.model.closed


def test_two_tries_are_no_longer_than_one_patience() -> None:
    options = CONNECTING.llm_conn_options
    tries = (options.max_retry + 1) * options.timeout + options.max_retry * options.retry_interval
    assert tries <= GIVE_UP_AFTER_S <= 30.0
    waited: list[APIConnectOptions] = [CONNECTING.stt_conn_options, CONNECTING.tts_conn_options]
    assert all(each.max_retry <= 1 and each.timeout <= 5.0 for each in waited)


def test_the_page_on_speech_has_the_numbers() -> None:
    text = (Path(__file__).parents[3] / "docs" / "speech.md").read_text(encoding="utf-8")
    assert f"gives nothing for {MOMENT_AFTER_S:g} s |" in text
    assert f"gives nothing for {GIVE_UP_AFTER_S:g} s, the moment included" in text
    assert f"the language model has {CONNECTING.llm_conn_options.timeout:g} s for each try" in text
    assert f"{CONNECTING.stt_conn_options.timeout:g} s to\nconnect" in text
    assert f"after {CONNECTING.max_unrecoverable_errors} failures of one kind" in text


# In a lesson


class Lesson:
    """Emma in a text session, and what LiveKit says of errors there."""

    def __init__(self, session: AgentSession[LessonState]) -> None:
        self.session = session
        self.errors: list[tuple[str, str, bool]] = []
        self.closed = False
        session.on("error", self._on_error)
        session.on("close", self._on_close)

    async def answer_to(self, said: str) -> str:
        result: RunResult[None] = await self.session.run(user_input=said)
        texts = [
            event.item.text_content
            for event in result.events
            if event.type == "message" and event.item.role == "assistant"
        ]
        return " / ".join(text or "" for text in texts)

    def _on_error(self, event: ErrorEvent) -> None:
        record = ErrorRecord.from_event(event, created_at=0.0)
        self.errors.append((record.source, record.error_type, record.recoverable))

    def _on_close(self, _: Any) -> None:
        self.closed = True


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No patience at all: for models that do not answer in any time."""
    monkeypatch.setattr(patience, "MOMENT_AFTER_S", 0.0)
    monkeypatch.setattr(patience, "GIVE_UP_AFTER_S", 0.0)


@pytest.mark.parametrize(
    ("answer", "said", "error"),
    [
        (Unfinished(""), "One moment, please. " + ENGLISH.again, "SilentModelError"),
        (ConnectionError("…"), ENGLISH.again, "APIConnectionError"),
        (Broken("Yesterday I"), f"Yesterday I {ENGLISH.again}", "APIConnectionError"),
        ("", ENGLISH.again, "EmptyAnswerError"),
    ],
    ids=["silent", "failing", "failing half-way", "empty"],
)
async def test_a_turn_without_an_answer_is_answered_and_recorded(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, said: str, error: str
) -> None:
    model = ScriptedLLM("Hello!", answer, "There I am again.")
    async with in_lesson(lesson_of(known_student()), model) as session:
        lesson = Lesson(session)
        with monkeypatch.context() as impatient:
            if isinstance(answer, Unfinished):
                impatient.setattr(patience, "MOMENT_AFTER_S", 0.0)
                impatient.setattr(patience, "GIVE_UP_AFTER_S", 0.0)
            assert await lesson.answer_to("I buyed bread.") == said
        assert await lesson.answer_to("I bought bread.") == "There I am again."
        history = [message.text_content for message in session.history.messages()]
    assert history[-4:] == ["I buyed bread.", said, "I bought bread.", "There I am again."]
    assert lesson.errors == [("ScriptedLLM", error, False)]


async def test_a_slow_model_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MOMENT_AFTER_S", 0.0)
    late = asyncio.Event()
    model = ScriptedLLM("Hello!", Late("It is a fruit.", late))
    async with in_lesson(lesson_of(known_student()), model) as session:
        lesson = Lesson(session)
        answer = asyncio.ensure_future(lesson.answer_to("What is a plum?"))
        await asyncio.sleep(0.05)
        late.set()
        assert await answer == "One moment, please. It is a fruit."
    assert lesson.errors == []


@pytest.mark.usefixtures("hurried")
async def test_a_greeting_that_fails_asks_for_nothing_to_be_repeated() -> None:
    async with in_lesson(lesson_of(known_student()), ScriptedLLM(Unfinished(""))) as session:
        [greeting] = session.history.messages()
    assert greeting.text_content == "One moment, please. " + ENGLISH.ready


@pytest.mark.parametrize("language", ["de-AT", "es", "fr", "ja", "ar", "cy"])
async def test_she_says_it_in_the_language_of_the_lesson(language: str) -> None:
    context = known_student(lesson={**LESSON, "language": language})
    model = ScriptedLLM("Hello!", ConnectionError("…"))
    async with in_lesson(lesson_of(context), model) as session:
        answer = await Lesson(session).answer_to("Ja.")
    assert answer == SENTENCES.get(language[:2], ENGLISH).again


async def test_a_model_that_stays_away_ends_no_lesson() -> None:
    """LiveKit's own limit is three failures in a row; in text no voice takes the count back."""
    turns = 12
    failing: list[Answer] = [ConnectionError("…")] * turns
    model = ScriptedLLM("Hello!", *failing, "At last.")
    lesson = lesson_of(known_student())
    session = AgentSession[LessonState](
        userdata=lesson,
        llm=model,
        vad=None,
        turn_handling={"turn_detection": "manual"},
        conn_options=CONNECTING,
    )
    async with session:
        await session.start(Tutor(lesson), capture_run=True)
        talk = Lesson(session)
        answers = [await talk.answer_to("Hello?") for _ in range(turns)]
        assert await talk.answer_to("Hello?") == "At last."
        assert not talk.closed
    await lesson.aclose()
    assert answers == [ENGLISH.again] * turns
    assert len(talk.errors) == turns


async def test_words_that_were_not_understood_are_asked_for_again() -> None:
    lesson = lesson_of(known_student(lesson={**LESSON, "language": "de"}))
    async with in_lesson(lesson, ScriptedLLM("Hallo!")) as session:
        heard = asyncio.Event()
        session.on("conversation_item_added", lambda _: heard.set())
        for recoverable in (True, False):
            error = stt.STTError(
                timestamp=0.0, label="ears", error=TimeoutError(), recoverable=recoverable
            )
            session.emit("error", ErrorEvent(error=error, source=ScriptedSTT()))
        await heard.wait()
        said = [message.text_content for message in session.history.messages()]
    assert said == ["Hallo!", SENTENCES["de"].again]


async def test_a_tool_that_is_not_there_is_answered_with_a_sentence() -> None:
    model = ScriptedLLM("Hello!", use("order_pizza", size="large"), "Let us go on.")
    async with in_lesson(lesson_of(known_student()), model) as session:
        result: RunResult[None] = await session.run(user_input="I am hungry.")
    [output] = [e.item for e in result.events if isinstance(e, FunctionCallOutputEvent)]
    assert output.is_error
    assert "order_pizza" in output.output
    assert result.events[-1].item.text_content == "Let us go on."  # type: ignore[union-attr]


async def test_a_model_that_calls_one_tool_again_and_again_is_stopped() -> None:
    """LiveKit takes the tools away after three calls; this model asks for one all the same."""
    model = ScriptedLLM("Hello!", *[use("get_progress")] * 20)
    async with in_lesson(lesson_of(known_student()), model) as session:
        lesson = Lesson(session)
        assert await lesson.answer_to("How am I doing?") == ENGLISH.again
        outputs = [item for item in session.history.items if item.type == "function_call_output"]
    assert 0 < len(outputs) < 6
    assert len(model.asked) == len(outputs) + 2
    assert [error for _, error, _ in lesson.errors] == ["EmptyAnswerError"]


@pytest.mark.parametrize(
    ("answers", "said", "calls", "error"),
    [
        ((Unfinished(""),), f"One moment, please. {ENGLISH.again}", [], "SilentModelError"),
        ((ConnectionError("…"),), ENGLISH.again, [], "APIConnectionError"),
        (("",), ENGLISH.again, [], "EmptyAnswerError"),
        ((use("order_pizza"), "Let us go on."), "Let us go on.", [("order_pizza", True)], None),
        (
            [use("next_slide")] * 20,
            ENGLISH.again,
            [("next_slide", False), *[("next_slide", True)] * 3],
            "EmptyAnswerError",
        ),
    ],
    ids=["silent", "failing", "empty", "a tool that is not there", "one tool twenty times"],
)
async def test_what_went_wrong_and_what_she_said_are_in_convex(
    monkeypatch: pytest.MonkeyPatch,
    convex: FakeConvex,
    tmp_path: Path,
    answers: Sequence[Answer],
    said: str,
    calls: list[tuple[str, bool]],
    error: str | None,
) -> None:
    folded, lesson = Folded(convex), lesson_of(known_student())
    session = text_session(lesson, ScriptedLLM("Hello!", *answers))
    async with AsyncConvexClient(convex.url) as client:
        with fake_job_context() as ctx:
            lesson.recorder = SessionRecorder.attach(
                session, ctx=ctx, client=client, identity=lesson.identity, outbox_dir=tmp_path
            )
            async with session:
                await session.start(Tutor(lesson), capture_run=True)
                if said.startswith(ENGLISH.moment):
                    monkeypatch.setattr(patience, "MOMENT_AFTER_S", 0.0)
                    monkeypatch.setattr(patience, "GIVE_UP_AFTER_S", 0.0)
                await session.run(user_input="I buyed bread.")
            assert await lesson.recorder.aclose(timeout_s=10.0) == 0
    await lesson.aclose()
    assert folded.said() == [
        ("assistant", "Hello!"),
        ("user", "I buyed bread."),
        ("assistant", said),
    ]
    made = [(call["name"], call["isError"]) for call in folded.of_kind("toolCall")]
    assert made == calls
    errors = [each["errorType"] for each in folded.of_kind("error")]
    assert errors == ([] if error is None else [error])
