"""Lets a model write the summaries of a lesson, once and within a deadline.

Where there is no model, or it fails, is silent or writes nonsense, they are composed of what the
lesson noted. What it answers can only become text of a summary, on one line and of bounded length.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from functools import cache
from importlib import resources
from typing import Any, Final

from livekit.agents import APIConnectOptions, JobContext, llm

from emma_agent.lesson import LessonState
from emma_agent.logs import get_logger
from emma_agent.records import SessionSummaryRecord
from emma_agent.recurring import weightiest
from emma_agent.summaries import (
    MAX_SUMMARY_BYTES,
    RATINGS,
    Held,
    Said,
    Summary,
    bounded,
    composed,
    fact,
    held,
)
from emma_agent.tokens import tokens_in

__all__ = ["request", "summarise", "write"]

log = get_logger(__name__)

# The last of the talk that a model reads, and how much of one turn.
_MOST_TURNS: Final = 80
_MOST_TOKENS: Final = 4_000
_TURN: Final = 400
_AIM: Final = 160
_MOST_NOTED: Final = 24

# Two texts, and a fence around them; a model that goes on is cut off.
_MOST_CHARACTERS: Final = 8 * MAX_SUMMARY_BYTES
_FEWEST_LETTERS: Final = 8
# What no summary needs: an address, a way to reach someone, markup.
_UNWANTED: Final = re.compile(
    r"://|\bwww\.|\S@\S|</?[a-z!]|\]\(|\d(?:[ ()/.-]{0,2}\d){7,}", re.IGNORECASE
)


async def summarise(
    ctx: JobContext, lesson: LessonState, writer: llm.LLM[Any] | None, *, timeout_s: float
) -> None:
    """At the end of a job: put the summary on the record; what is pending is delivered meanwhile."""
    recorder = lesson.recorder
    try:
        history = ctx.primary_session.history
    except RuntimeError:
        return  # the job ended before its session began
    before = lesson.resumed.messages if lesson.resumed else ()
    earlier = [Said(turn.role, turn.text, turn.created_at) for turn in before]
    written_of = held(lesson, history, earlier=earlier)
    if written_of is None or recorder is None:
        return
    flushing = asyncio.create_task(recorder.flush(timeout_s), name="summaries.flush")
    try:
        summary = await write(writer, written_of, timeout_s=timeout_s)
    finally:
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
    recorder.record(
        SessionSummaryRecord(
            created_at=time.time(),
            for_student=summary.for_student,
            for_teacher=summary.for_teacher,
            source=summary.source,
        )
    )


async def write(writer: llm.LLM[Any] | None, written_of: Held, *, timeout_s: float) -> Summary:
    """Ask the model for both texts, once; never raises but when it is cancelled.

    Args:
        writer: None where there is no model of text.
        timeout_s: from now until its last word.
    """
    if writer is None:
        return composed(written_of)
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _ask(writer, written_of, timeout_s=timeout_s)
        summary, trouble = _parsed(answer), "no summary in its answer"
    # A model of any provider, with errors of its own; their texts may hold what was said.
    except Exception as error:  # noqa: BLE001
        summary, trouble = None, type(error).__name__
    duration_s = round(time.monotonic() - started, 3)
    if summary is None:
        log.warning(
            "summary.composed",
            reason=trouble,
            duration_s=duration_s,
            remedy="the model wrote no summary; it is made of what the lesson noted",
        )
        return composed(written_of)
    log.info("summary.written", duration_s=duration_s)
    return summary


async def _ask(writer: llm.LLM[Any], written_of: Held, *, timeout_s: float) -> str:
    """What the model says; what else it wants, a tool, is not heard."""
    chat_ctx = llm.ChatContext.empty()
    chat_ctx.add_message(role="system", content=_instructions())
    chat_ctx.add_message(role="user", content=request(written_of))
    options = APIConnectOptions(max_retry=0, timeout=timeout_s)
    parts: list[str] = []
    async with writer.chat(chat_ctx=chat_ctx, conn_options=options) as stream:
        async for chunk in stream:
            if chunk.delta and chunk.delta.content:
                parts.append(chunk.delta.content)
                if sum(map(len, parts)) > _MOST_CHARACTERS:
                    break
    return "".join(parts)


def request(written_of: Held) -> str:
    """What the model gets to know of the lesson, as JSON: data, in one message of its own.

    Who the student is, it does not.
    """
    known, lesson = written_of.known, written_of.known.plan.lesson
    student = known.context.student if known.context else None
    facts = {
        "student_language": student.native_language if student else None,
        "lesson": None
        if lesson is None
        else {
            "title": fact(lesson.title),
            "level": lesson.level,
            "language": lesson.language,
            "aims": [fact(each, _AIM) for each in lesson.objectives[:_MOST_NOTED]],
        },
        "came_to": known.step,
        "slide": None if known.slide is None else known.slide + 1,
        "aims_reached": written_of.finished,
        "minutes": written_of.minutes,
        "new_words": [fact(word) for word in known.new_words],
        "reviews": {fact(each.word): RATINGS[each.rating] for each in written_of.reviews},
        "mistakes": [
            {
                "said": fact(each.said),
                "right": fact(each.target),
                "type": each.error_type,
                "then_said_right": each.repaired,
            }
            for each in weightiest(known.corrections)[:_MOST_NOTED]
        ],
        "exercises": [
            {"id": fact(each.exercise_id), "answer": fact(each.answer), "score": each.score}
            for each in written_of.answers
        ],
        "next_lesson": fact(known.plan.next_lesson.title) if known.plan.next_lesson else None,
        "summary_before_interruption": known.earlier,
        "conversation": _last_turns(written_of.talk),
    }
    return json.dumps(facts, ensure_ascii=False)


def _last_turns(talk: tuple[Said, ...]) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    tokens = 0
    for said in reversed(talk[-_MOST_TURNS:]):
        text = fact(said.text, _TURN)
        tokens += tokens_in(text)
        if turns and tokens > _MOST_TOKENS:
            break
        turns.append({"student" if said.role == "user" else "emma": text})
    return turns[::-1]


def _parsed(answer: str) -> Summary | None:
    """The summary in a model's answer, text and nothing but text; None if there is none."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        value = json.loads(answer[start : end + 1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    texts = [_checked(value.get(name)) for name in ("student", "teacher")]
    if texts[0] is None or texts[1] is None:
        return None
    return Summary(texts[0], texts[1], "model")


def _checked(text: object) -> str | None:
    if not isinstance(text, str):
        return None
    text = bounded(text)
    if _UNWANTED.search(text) or sum(map(str.isalpha, text)) < _FEWEST_LETTERS:
        return None
    return text


@cache
def _instructions() -> str:
    return resources.files("emma_agent.prompts").joinpath("summary.txt").read_text("utf-8").strip()
