"""The two that are compared: Emma as her worker runs her, and an agent that is LiveKit and no more.

Both are text sessions with the same options and the same instant model, in a job of their own. Emma
is what `emma_agent.server.entrypoint` makes of a job: prefetch, plan kept live, journal on disk,
delivery. The bare agent has a sentence of instructions and two tools, and nothing is kept of it.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeVar
from unittest.mock import patch

from livekit.agents import (
    NOT_GIVEN,
    Agent,
    AgentSession,
    FlushSentinel,
    ModelSettings,
    NotGiven,
    RunContext,
    UserInputTranscribedEvent,
    function_tool,
    llm,
)
from livekit.agents.testing import fake_job_context
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions
from livekit.agents.voice.io import TextOutput

from emma_agent import server
from emma_agent.lesson import LessonState
from emma_agent.listening import HELP_AFTER_S, Tuning, turn_handling
from emma_agent.patience import CONNECTING
from emma_agent.tools.described import described
from livekit.plugins.convex import AsyncConvexClient

__all__ = ["SIDES", "Call", "InstantModel", "Side", "SideName", "Start", "bare", "emma", "side"]

SideName = Literal["emma", "bare"]
SIDES: Final[tuple[SideName, ...]] = ("emma", "bare")

GREETING: Final = "Hello again! Shall we begin?"
ANSWER: Final = "That is well said. And what did you do after that?"
# As long as what the student's profile takes as JSON.
_LOOKED_UP: Final = json.dumps({"answer": "What somebody looked up. " * 16})

# Both connect to a room that is not there, and wait as long as the fastest connection to a LiveKit
# server on the same machine takes (81 ms of 37 measured). What a job does meanwhile costs nobody time.
_CONNECT_S: Final = 0.08

# Nobody waits as long for an answer that comes at once.
_TURN_S: Final = 30.0
_SETTLED_S: Final = 30.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds, by the clock and of this thread's processor time."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Took:
        return cls(time.perf_counter(), time.thread_time())

    def __add__(self, more: Took) -> Took:
        return Took(self.wall_s + more.wall_s, self.cpu_s + more.cpu_s)

    def __sub__(self, earlier: Took) -> Took:
        return Took(self.wall_s - earlier.wall_s, self.cpu_s - earlier.cpu_s)


@dataclass(frozen=True, slots=True)
class Call:
    """The model asks for a tool; `arguments` is JSON."""

    name: str
    arguments: str = "{}"


class InstantModel(llm.LLM[Any]):
    """Answers at once with what it was told to, after a greeting.

    Before that it does what LiveKit's OpenAI plugin does before it sends: prompt, conversation and
    tools are turned into JSON. A longer prompt costs that, and it is nobody else's time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[str | Call] = [GREETING]

    @property
    def model(self) -> str:
        return "instant"

    @property
    def provider(self) -> str:
        return "benchmark"

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        answer = self.answers.pop(0) if self.answers else "."
        return _Answering(
            self, answer, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options
        )


class _Answering(llm.LLMStream):
    def __init__(self, model: InstantModel, answer: str | Call, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self._answer = answer

    async def _run(self) -> None:
        messages, _ = self._chat_ctx.to_provider_format(format="openai")
        tools = llm.ToolContext(self._tools).parse_function_tools("openai", strict=True)
        json.dumps({"messages": messages, "tools": tools, "stream": True}).encode()
        match self._answer:
            case Call(name=name, arguments=arguments):
                number = len(self._chat_ctx.items)
                asked = llm.FunctionToolCall(
                    name=name, arguments=arguments, call_id=f"call_{number}"
                )
                delta = llm.ChoiceDelta(role="assistant", tool_calls=[asked])
            case str(text):
                delta = llm.ChoiceDelta(role="assistant", content=text)
        used = llm.CompletionUsage(completion_tokens=12, prompt_tokens=1500, total_tokens=1512)
        self._event_ch.send_nowait(llm.ChatChunk(id="chunk", delta=delta))
        self._event_ch.send_nowait(llm.ChatChunk(id="chunk", usage=used))


class _FirstText(TextOutput):
    """Where the answer goes: knows when its first text came."""

    def __init__(self) -> None:
        super().__init__(label="benchmark", next_in_chain=None)
        self._came_at: asyncio.Future[Took] | None = None

    def expect(self) -> asyncio.Future[Took]:
        """When the next text comes."""
        self._came_at = asyncio.get_running_loop().create_future()
        return self._came_at

    async def capture_text(self, text: str) -> None:
        if self._came_at is not None and not self._came_at.done() and text:
            self._came_at.set_result(Took.now())

    def flush(self) -> None:
        return None


class _TextSession(AgentSession[Any]):
    """A session without a room."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first_text = _FirstText()
        self.begun_at = Took.now()
        self.greeted_at = self.first_text.expect()

    async def start(self, agent: Agent, **_: Any) -> None:  # type: ignore[override]
        self.output.transcription = self.first_text
        self.begun_at = Took.now()
        await super().start(agent)


@dataclass(frozen=True, slots=True)
class _TextSpeech:
    """Emma's models: one that answers, and nothing to hear or to speak with."""

    stt: ClassVar[NotGiven] = NOT_GIVEN
    tts: ClassVar[NotGiven] = NOT_GIVEN
    writer: ClassVar[None] = None
    turn_detection: ClassVar[Literal["vad"]] = "vad"
    llm: InstantModel

    def tune(self, tuning: Tuning) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Start:
    """From the entrypoint's first line to the greeting's first text, and parts of it.

    Attributes:
        session: of this, since `AgentSession.start`.
        waited: of this, in `LessonState.ready` with a request to Convex under way.
    """

    whole: Took
    session: Took
    waited: Took = Took(0.0, 0.0)

    @property
    def own(self) -> Took:
        """Without the wait for the network; what this thread worked meanwhile counts."""
        return Took(self.whole.wall_s - self.waited.wall_s + self.waited.cpu_s, self.whole.cpu_s)


class _Network:
    """Measures how long a lesson that waits to be ready waits for requests."""

    def __init__(self) -> None:
        self.waited = Took(0.0, 0.0)
        self._requests = 0
        self._waiting = 0
        self._since: Took | None = None

    @contextmanager
    def request(self) -> Iterator[None]:
        self._count(requests=1)
        try:
            yield
        finally:
            self._count(requests=-1)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self._count(waiting=1)
        try:
            yield
        finally:
            self._count(waiting=-1)

    def _count(self, *, requests: int = 0, waiting: int = 0) -> None:
        self._requests += requests
        self._waiting += waiting
        both = self._requests > 0 and self._waiting > 0
        if both and self._since is None:
            self._since = Took.now()
        elif not both and self._since is not None:
            self.waited += Took.now() - self._since
            self._since = None


@contextmanager
def _measured() -> Iterator[_Network]:
    """`LessonState.ready`, and requests to Convex, are measured in this block."""
    network = _Network()
    ready, query, mutation = LessonState.ready, AsyncConvexClient.query, AsyncConvexClient.mutation

    async def timed_ready(lesson: LessonState, *args: Any, **kwargs: Any) -> None:
        with network.waiting():
            await ready(lesson, *args, **kwargs)

    async def timed_query(client: AsyncConvexClient, *args: Any, **kwargs: Any) -> Any:
        with network.request():
            return await query(client, *args, **kwargs)

    async def timed_mutation(client: AsyncConvexClient, *args: Any, **kwargs: Any) -> Any:
        with network.request():
            return await mutation(client, *args, **kwargs)

    with (
        patch.object(LessonState, "ready", timed_ready),
        patch.object(AsyncConvexClient, "query", timed_query),
        patch.object(AsyncConvexClient, "mutation", timed_mutation),
    ):
        yield network


class Side:
    """A session that is under way; `emma` and `bare` make it."""

    def __init__(
        self, session: _TextSession, model: InstantModel, start: Start, lesson: LessonState | None
    ) -> None:
        self.start = start
        self._session = session
        self._model = model
        self._lesson = lesson
        # The job that is current for whatever is begun in it: two are held in one process.
        self._job = contextvars.copy_context()

    async def turn(self, said: str, answers: Sequence[str | Call]) -> Took:
        """From what the student said to the first text of the answer.

        Returns once the whole answer is given, and nothing is under way any more.

        Args:
            answers: of the model, one after the other: calls of tools, and a text.
        """
        return await self._in_job(self._turn(said, answers))

    async def _turn(self, said: str, answers: Sequence[str | Call]) -> Took:
        self._model.answers[:] = answers
        first_text = self._session.first_text.expect()
        began = Took.now()
        # In a spoken turn the last words of the transcript come right before the answer is begun.
        self._session.emit(
            "user_input_transcribed",
            UserInputTranscribedEvent(transcript=said, is_final=True, language="en"),
        )
        handle = self._session.generate_reply(user_input=said)
        async with asyncio.timeout(_TURN_S):
            came = await first_text
            await handle
        assert not self._model.answers, "the model was not asked as often as the turn says"
        await self._settled()
        return came - began

    async def _settled(self) -> None:
        """Convex has confirmed what was said: the next turn of either side is alone."""
        if self._lesson is not None and self._lesson.recorder is not None:
            await self._lesson.recorder.flush(_SETTLED_S)
            assert not self._lesson.recorder.stats.pending, "Convex has not taken the records"

    async def _in_job(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.create_task(work, context=self._job)


@asynccontextmanager
async def emma(metadata: str) -> AsyncIterator[Side]:
    """Emma in a job with this metadata, greeted; the job ends with the block."""
    model, sessions = InstantModel(), list[_TextSession]()

    def new_session(**options: Any) -> _TextSession:
        sessions.append(_TextSession(**options))
        return sessions[-1]

    with fake_job_context(job_metadata=metadata) as ctx:
        server.set_up_process(ctx.proc)
        ctx.proc.userdata["speech"] = _TextSpeech(model)
        with (
            patch.object(server, "AgentSession", new_session),
            patch.object(ctx, "connect", _connect),
            _measured() as network,
        ):
            began = Took.now()
            await server.entrypoint(ctx)
            [session] = sessions
            greeted = await session.greeted_at
        lesson = ctx.proc.userdata["lesson"]
        assert lesson.context is not None, "Convex took too long: this machine is too busy"
        start = Start(greeted - began, greeted - session.begun_at, network.waited)
        try:
            yield Side(session, model, start, lesson)
        finally:
            await session.aclose()
            await server.on_session_end(ctx)


async def _connect() -> None:
    await asyncio.sleep(_CONNECT_S)


class _Bare(Agent):
    def __init__(self, *, chat_ctx: llm.ChatContext | None = None) -> None:
        super().__init__(
            instructions="You are a language tutor. Be brief.",
            chat_ctx=NOT_GIVEN if chat_ctx is None else chat_ctx,
        )

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="Greet the student.")

    def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[llm.Tool], model_settings: ModelSettings
    ) -> AsyncIterable[llm.ChatChunk | str | FlushSentinel]:
        # As Emma does: else LiveKit works the tools' schemas out in each request, which takes longer
        # than all that is compared here, and would hide it.
        return Agent.default.llm_node(self, chat_ctx, described(tools), model_settings)

    @function_tool
    async def look_up(self, context: RunContext[None], what: str) -> str:
        """Look something up.

        Args:
            what: A few words.
        """
        return _LOOKED_UP

    @function_tool
    async def hand_over(self, context: RunContext[None]) -> Agent:
        """Let the next agent take over."""
        return _Bare(chat_ctx=self.chat_ctx.copy(exclude_instructions=True))


@asynccontextmanager
async def bare(_metadata: str = "") -> AsyncIterator[Side]:
    """The bare agent in a job, greeted; the job ends with the block."""
    model = InstantModel()
    with fake_job_context():
        began = Took.now()
        await _connect()
        session = _TextSession(
            llm=model,
            turn_handling=turn_handling(Tuning(), "vad"),
            user_away_timeout=HELP_AFTER_S,
            conn_options=CONNECTING,
        )
        await session.start(_Bare())
        greeted = await session.greeted_at
        start = Start(greeted - began, greeted - session.begun_at)
        try:
            yield Side(session, model, start, None)
        finally:
            await session.aclose()


def side(name: SideName, metadata: str) -> AbstractAsyncContextManager[Side]:
    """The side of that name, an asynchronous context manager."""
    return emma(metadata) if name == "emma" else bare()
