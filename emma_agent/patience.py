"""Patience with the model that thinks: what Emma says while it is silent, and when it fails.

Used where a pipeline asks its language model (`Tutor.llm_node`). A model that is silent for a while
gets a moment, with a word to the student; one that stays silent, fails, or answers nothing is given up,
and the student is asked to say it again. So no turn ends in silence and no failure ends a lesson. What
she says then is her answer on the record; the failure is an error on it. Numbers and what happens in
realtime: docs/speech.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from livekit.agents import (
    Agent,
    APIConnectOptions,
    ErrorEvent,
    FlushSentinel,
    ModelSettings,
    llm,
)
from livekit.agents.voice.agent_session import SessionConnectOptions

from emma_agent.listening import primary_subtag
from emma_agent.logs import get_logger

__all__ = [
    "CONNECTING",
    "GIVE_UP_AFTER_S",
    "MOMENT_AFTER_S",
    "SENTENCES",
    "EmptyAnswerError",
    "Sentences",
    "SilentModelError",
    "answer_patiently",
    "patiently",
    "sentences_in",
]

log = get_logger(__name__)

# Longer than people leave a question without a sound, and longer than a model usually thinks.
MOMENT_AFTER_S: Final = 5.0
# Of silence altogether, the moment included.
GIVE_UP_AFTER_S: Final = 25.0

CONNECTING: Final = SessionConnectOptions(
    # One more try; together within GIVE_UP_AFTER_S. LiveKit's own would take 45 s.
    llm_conn_options=APIConnectOptions(max_retry=1, retry_interval=0.5, timeout=12.0),
    stt_conn_options=APIConnectOptions(max_retry=1, retry_interval=0.5, timeout=5.0),
    tts_conn_options=APIConnectOptions(max_retry=1, retry_interval=0.5, timeout=5.0),
    # In a row. An hour without a single word in between is no lesson any more; a model that is
    # away for some minutes is back before.
    max_unrecoverable_errors=20,
)
"""How often, and how long, a session asks its models."""

Chunk = llm.ChatChunk | str | FlushSentinel
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sentences:
    """What she says, in one language."""

    moment: str
    """While the model is silent."""
    again: str
    """Instead of an answer."""
    ready: str
    """Instead of words that nobody had asked for, as at the beginning."""


SENTENCES: Final[Mapping[str, Sentences]] = {
    "en": Sentences(
        "One moment, please.",
        "Sorry, I lost my thread. Could you say that again, please?",
        "Sorry, I need a moment. Say something when you are ready, and we will go on.",
    ),
    "de": Sentences(
        "Einen Moment, bitte.",
        "Entschuldigung, ich habe den Faden verloren. Kannst du das bitte noch einmal sagen?",
        "Entschuldigung, ich brauche einen Moment. Sag etwas, wenn du bereit bist.",
    ),
    "es": Sentences(
        "Un momento, por favor.",
        "Perdona, he perdido el hilo. ¿Puedes repetirlo, por favor?",
        "Perdona, necesito un momento. Di algo cuando estés listo y seguimos.",
    ),
    "fr": Sentences(
        "Un instant, s'il te plaît.",
        "Pardon, j'ai perdu le fil. Tu peux répéter, s'il te plaît ?",
        "Pardon, j'ai besoin d'un instant. Dis quelque chose quand tu es prêt, et on continue.",
    ),
    "ja": Sentences(
        "少々お待ちください。",
        "すみません、話がわからなくなりました。もう一度言ってください。",
        "すみません、少し待ってください。準備ができたら、何か言ってください。",
    ),
    "ar": Sentences(
        "لحظة من فضلك.",
        "عذرًا، لم أتمكن من المتابعة. هل يمكنك أن تقول ذلك مرة أخرى من فضلك؟",
        "عذرًا، أحتاج إلى لحظة. قل شيئًا عندما تكون مستعدًا لنكمل.",
    ),
}
"""By primary subtag; English for all others."""


def sentences_in(language: str | None) -> Sentences:
    """What she says in a language, BCP 47."""
    return SENTENCES.get(primary_subtag(language) or "en", SENTENCES["en"])


class SilentModelError(Exception):
    """The model gave nothing for too long."""


class EmptyAnswerError(Exception):
    """The model ended an answer that had nothing in it."""


def answer_patiently(
    agent: Agent,
    chat_ctx: llm.ChatContext,
    tools: list[llm.Tool],
    model_settings: ModelSettings,
    *,
    language: str | None,
    sleep: Sleep = asyncio.sleep,
) -> AsyncGenerator[Chunk, None]:
    """LiveKit's own `llm_node`, with patience.

    Args:
        language: BCP 47, of what she says when the model says nothing.
    """
    told: list[Exception] = []

    def on_error(event: ErrorEvent) -> None:
        if isinstance(event.error, llm.LLMError) and not event.error.recoverable:
            told.append(event.error.error)

    def failed(error: Exception) -> None:
        log.warning(
            "tutor.no_answer",
            error=type(error).__name__,
            remedy="the student is asked to say it again; see that the language model answers",
        )
        # LiveKit tells of what fails within a request, once.
        model = agent.session.llm
        if not told and isinstance(model, llm.LLM):
            wrong = llm.LLMError(
                timestamp=time.time(), label=model.label, error=error, recoverable=False
            )
            agent.session.emit("error", ErrorEvent(error=wrong, source=model))

    async def answer() -> AsyncGenerator[Chunk, None]:
        agent.session.on("error", on_error)
        try:
            async with aclosing(
                patiently(
                    Agent.default.llm_node(agent, chat_ctx, tools, model_settings),
                    sentences=sentences_in(language),
                    student_waits=_student_waits(chat_ctx),
                    may_use_tools=model_settings.tool_choice != "none",
                    failed=failed,
                    sleep=sleep,
                )
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            agent.session.off("error", on_error)

    return answer()


async def patiently(
    answer: AsyncIterable[Chunk],
    *,
    sentences: Sentences,
    student_waits: bool,
    may_use_tools: bool,
    failed: Callable[[Exception], None],
    sleep: Sleep = asyncio.sleep,
) -> AsyncGenerator[Chunk, None]:
    """`answer` as it comes, and a sentence where it does not come.

    Args:
        student_waits: somebody has said something that is not answered yet.
        may_use_tools: whether a call of a tool is part of an answer.
        failed: told why the model was given up.
    """
    spoken = called = False
    silence = _Silence(sleep)
    chunks: asyncio.Queue[Chunk | _End] = asyncio.Queue()
    reading = asyncio.create_task(_read(answer, chunks), name="patience.read")
    try:
        while True:
            chunk = await silence.or_first_of(chunks)
            if isinstance(chunk, _End):
                break
            if chunk is _MOMENT:
                if not spoken and not called:
                    # Flushed, so that it is spoken at once.
                    yield f"{sentences.moment} "
                    yield FlushSentinel()
                continue
            text, uses_tool = _contents(chunk)
            spoken, called = spoken or text, called or (uses_tool and may_use_tools)
            if text or uses_tool:
                silence.over()
            yield chunk
    finally:
        silence.over()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    error = chunk.error
    if error is None and student_waits and not spoken and not called:
        error = EmptyAnswerError()
    if error is None:
        return
    failed(error)
    if called:
        return  # What the tool did is answered in a request of its own.
    if spoken:
        yield FlushSentinel()
    yield (" " if spoken else "") + (sentences.again if student_waits else sentences.ready)


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing more comes."""

    error: Exception | None


_MOMENT: Final = FlushSentinel()


def _contents(chunk: Chunk) -> tuple[bool, bool]:
    """Whether it has text, and whether it calls a tool."""
    if isinstance(chunk, llm.ChatChunk):
        delta = chunk.delta
        return bool(delta and delta.content), bool(delta and delta.tool_calls)
    return isinstance(chunk, str) and chunk != "", False


async def _read(answer: AsyncIterable[Chunk], chunks: asyncio.Queue[Chunk | _End]) -> None:
    error: Exception | None = None
    try:
        async for chunk in answer:
            chunks.put_nowait(chunk)
    except Exception as failure:  # noqa: BLE001  somebody else's code, and the lesson goes on
        error = failure
    chunks.put_nowait(_End(error))


class _Silence:
    """How long the model gives nothing: a moment, and then it is given up."""

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self._had_moment = False
        self._passing: asyncio.Future[None] | None = None

    async def or_first_of(self, chunks: asyncio.Queue[Chunk | _End]) -> Chunk | _End:
        """What comes first: a chunk, `_MOMENT` once, or the end."""
        if not chunks.empty():
            return chunks.get_nowait()
        if self._passing is None:
            wait_s = GIVE_UP_AFTER_S - MOMENT_AFTER_S if self._had_moment else MOMENT_AFTER_S
            self._passing = asyncio.ensure_future(self._sleep(wait_s))
        getting = asyncio.ensure_future(chunks.get())
        try:
            waiting: set[asyncio.Future[Any]] = {getting, self._passing}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Of one that is done this changes nothing.
            getting.cancel()
        if getting.done() and not getting.cancelled():
            return getting.result()
        self._passing = None
        if self._had_moment:
            return _End(SilentModelError())
        self._had_moment = True
        return _MOMENT

    def over(self) -> None:
        """The model gave something, or nobody waits any more."""
        self._had_moment = False
        if self._passing is not None:
            self._passing.cancel()
            self._passing = None


def _student_waits(chat_ctx: llm.ChatContext) -> bool:
    said = (message.role for message in reversed(chat_ctx.messages()))
    return next((role for role in said if role in ("user", "assistant")), None) == "user"
