"""A whole short lesson, held, watched from outside, and judged by what it left in Convex.

With `interrupt` the worker is killed in the middle of it, while the student stays in the room. The
worker is started again; LiveKit gives its jobs to nobody else. The school's backend, which is this
demo, then finds no Emma in the room and dispatches her with the same metadata, and she goes on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emma_agent.demo.numbers import (
    LABELS,
    Left,
    Numbers,
    Parts,
    Word,
    exercises_of,
    numbers_of,
    numbers_until,
    words_of,
)
from emma_agent.demo.plan import Plan, StageError
from emma_agent.demo.pupil import GOODBYE, MISTAKE, REPAIRED, Pupil
from emma_agent.demo.stage import lines_of, on_stage, rows_and_ticket, unless_one_ends
from emma_agent.demo.verdict import Verdict, judge, likeness, words

if TYPE_CHECKING:
    from emma_agent.demo.children import Child
    from emma_agent.demo.exchange import Exchange, Heard
    from emma_agent.demo.rows import LiveLesson, SessionRow, SummaryRow
    from emma_agent.demo.screen import Screen
    from emma_agent.demo.services import Services
    from emma_agent.demo.student import Student, Ticket

__all__ = ["Facts", "ShortLesson", "hold_short_lesson", "problems_of"]

DUE: Final = "cheap"
NEW_WORDS: Final = ("money", "ticket")
EXERCISE: Final = "two-apples"
STEPS: Final = ("warm_up", "presentation", "practice", "feedback", "farewell")

# Deadlines in seconds; a run on idle cores needs less than a fifth of each.
_GREETING_S: Final = 60.0
_ANSWER_S: Final = 45.0
_GOODBYE_S: Final = 20.0
_END_S: Final = 30.0
# LiveKit keeps who was killed in the room for 20 s.
_BACK_S: Final = 60.0
# A whole lesson has nine; who is misheard needs one more.
_MOST_TURNS: Final = 16


@dataclass(frozen=True, slots=True)
class Facts:
    """What is judged, beside what was said and heard."""

    last_title: str
    last_summary: str
    greeting: str
    before: Numbers
    after: Numbers
    steps: Sequence[str]
    slides: Sequence[int]
    left: Left | None
    due_before: Word | None
    words: dict[str, Word]
    exercises: dict[str, float]
    session: SessionRow | None
    runs: int = 1
    back: str | None = None
    """What Emma said first after an interruption."""


@dataclass(frozen=True, slots=True)
class ShortLesson:
    """What became of it."""

    verdict: Verdict
    facts: Facts
    summary: SummaryRow | None


@dataclass(slots=True)
class _Held:
    exchanges: list[Exchange] = field(default_factory=list)
    back: str | None = None


async def hold_short_lesson(
    plan: Plan, *, directory: Path, screen: Screen, children: set[Child], interrupt: bool = False
) -> ShortLesson:
    """Hold the lesson, from nothing to the comparison; when it returns, every process is gone.

    Args:
        directory: gets the database, the outbox and the logs.
        children: holds the processes while they run, for someone in a hurry to kill.
        interrupt: kill the worker in the middle, and let the lesson go on.

    Raises:
        StageError: something did not come up, or the lesson did not go on.
    """
    plan = replace(plan, seed="seed:shortLesson")
    async with (
        on_stage(plan, directory=directory, screen=screen, children=children) as services,
        rows_and_ticket(services) as (client, ticket),
    ):
        from emma_agent.demo.rows import LiveLesson, summary_of

        context: Any = await client.query("students:tutoringContext", {})
        time_zone = str(context["student"]["timeZone"])
        last = context["lastSession"] or {}
        before = await numbers_of(client, time_zone=time_zone)
        due_before = (await words_of(client)).get(DUE)
        began_at = time.time()
        screen.heading("The lesson, as its rows appear in Convex (a live query, not the agent)")
        async with (
            LiveLesson.follow(client, ticket.room, on_message=screen.on_message) as live,
            Parts.follow(client, ticket.room) as parts,
        ):
            held = _Held()
            lesson = _attend(ticket, services, screen, held, interrupt=interrupt)
            # The worker may end: where it is killed, its successor carries the lesson.
            needed = [
                child for child in services.needed if child is not services.worker or not interrupt
            ]
            async with screen.printing():
                await unless_one_ends(lesson, needed)
                await live.until(lambda now: _is_there(now, len(held.exchanges)), timeout_s=_END_S)
                await screen.flush()
            summary = await summary_of(client, ticket.room, timeout_s=_END_S)
            after = await numbers_until(
                client,
                time_zone=time_zone,
                lessons_held=before.lessons_held + 1,
                timeout_s=_END_S,
            )
            facts = Facts(
                last_title=str(last.get("lessonTitle", "")),
                last_summary=str(last.get("summary", "")),
                greeting=held.exchanges[0].text,
                before=before,
                after=after,
                steps=[*parts.steps],
                slides=[*parts.slides],
                left=parts.left,
                due_before=due_before,
                words=await words_of(client),
                exercises=await exercises_of(client, since=began_at - 1),
                session=live.session,
                runs=2 if interrupt else 1,
                back=held.back,
            )
    verdict = judge(lines_of(held.exchanges), live.rows)
    # What a language model makes of the same lesson is shown, and not judged.
    more = problems_of(facts) if plan.openai is None else []
    return ShortLesson(Verdict(verdict.matches, [*verdict.problems, *more]), facts, summary)


async def _attend(
    ticket: Ticket, services: Services, screen: Screen, held: _Held, *, interrupt: bool
) -> None:
    """What happens in the room."""
    from emma_agent.demo.student import Student

    pupil = Pupil()
    async with Student.join(ticket, on_exchange=screen.on_exchange) as student:
        # As the student's own list grows, so that what was said before a failure is there.
        held.exchanges = student.exchanges
        heard = await student.listen(timeout_s=_GREETING_S)
        for _ in range(_MOST_TURNS):
            answer = pupil.answer(heard.text)
            await student.say(answer)
            if answer == REPAIRED and interrupt and held.back is None:
                heard = await _interrupted(student, ticket, services, screen)
                held.back = heard.text
                continue
            heard = await student.listen(timeout_s=_ANSWER_S)
            if answer == GOODBYE:
                break
        if not await student.wait_until_over(timeout_s=_GOODBYE_S):
            screen.say("  -- Emma did not end the lesson: the student leaves")


async def _interrupted(
    student: Student, ticket: Ticket, services: Services, screen: Screen
) -> Heard:
    """Kill the worker in the middle of Emma's sentence, bring her back, and hear what she says."""
    from livekit import api

    from emma_agent.demo.school_backend import bring_back

    await student.hear_first_sound(timeout_s=_ANSWER_S)
    os.killpg(services.worker.pid, signal.SIGKILL)
    await services.worker.exited.wait()
    student.stay()
    await screen.flush()
    screen.say(
        f"  -- kill -9 {services.worker.pid}: the worker and all its jobs, in the middle of Emma's "
        "sentence; the student stays in the room"
    )
    await services.start_worker()
    livekit = services.livekit
    async with api.LiveKitAPI(livekit.url, livekit.api_key, livekit.api_secret) as rooms:
        screen.say(
            "  -- the school's backend waits until LiveKit has given up the Emma who is gone"
        )
        try:
            await bring_back(rooms, ticket.room, ticket.metadata, timeout_s=_BACK_S)
        except TimeoutError:
            raise StageError(
                f"LiveKit still had the killed Emma in the room after {_BACK_S:g} s."
            ) from None
    screen.say("  -- and dispatches her again, by the same session_key")
    return await student.listen(timeout_s=_GREETING_S)


def _is_there(live: LiveLesson, messages: int) -> bool:
    session = live.session
    closed = session is not None and session.status == "ended" and not session.provisional_end
    return closed and len(live.messages) >= messages


def problems_of(facts: Facts) -> list[str]:
    """One plain sentence for everything that the lesson should have left and did not. Pure."""
    problems = [*_of_the_way(facts), *_of_learning(facts), *_of_the_page(facts)]
    session = facts.session
    if session is None:
        problems.append("Convex holds no session.")
    elif session.status != "ended" or session.provisional_end:
        problems.append("The session was not closed in Convex after the lesson.")
    elif session.runs != facts.runs:
        problems.append(f"The session had {session.runs} runs instead of {facts.runs}.")
    return problems


def _of_the_way(facts: Facts) -> list[str]:
    problems = []
    if facts.last_title not in facts.greeting:
        problems.append(f"Emma's greeting does not name the last lesson, {facts.last_title}.")
    noted = facts.last_summary.split(". ")[0]
    if noted not in facts.greeting:
        problems.append(f"Emma's greeting does not know of the last lesson: {noted}.")
    if tuple(facts.steps) != STEPS:
        problems.append(
            f"The lesson went through {', '.join(facts.steps) or 'no part'} instead of "
            f"{', '.join(STEPS)}."
        )
    if tuple(facts.slides) != (0, 1):
        shown = ", ".join(str(slide + 1) for slide in facts.slides) or "none"
        problems.append(f"The slides on were {shown}, instead of 1 and 2, each once.")
    if facts.back is not None and ({"hello", "hi"} & set(words(facts.back))):
        problems.append(f"Emma greeted again after the interruption: “{facts.back}”.")
    if facts.left is None or not facts.left.over:
        problems.append("The end of the lesson was not on the record as an intended one.")
    return problems


def _of_learning(facts: Facts) -> list[str]:
    problems = []
    corrections = facts.left.corrections if facts.left else []
    ours = [each for each in corrections if words(each.target) == words(REPAIRED)]
    if len(ours) != 1:
        problems.append(f"The mistake was noted {len(ours)} times instead of once.")
    elif likeness(ours[0].said, MISTAKE) < 1:
        problems.append(f"The mistake was noted as “{ours[0].said}”.")
    elif not ours[0].repaired:
        problems.append("The mistake was said right, but not noted as repaired.")
    reviews = facts.words[DUE].reviews if DUE in facts.words else 0
    expected = (facts.due_before.reviews if facts.due_before else 0) + 1
    if reviews != expected:
        problems.append(f"The word “{DUE}” has {reviews} reviews instead of {expected}.")
    new = [str(word.get("word")) for word in (facts.left.new_words if facts.left else [])]
    if sorted(new) != sorted(NEW_WORDS):
        problems.append(
            f"The new words are {', '.join(new) or 'none'} instead of {', '.join(NEW_WORDS)}."
        )
    if facts.exercises != {EXERCISE: 1.0}:
        problems.append(f"The exercises are {facts.exercises}, instead of {EXERCISE} with 1.")
    return problems


def _of_the_page(facts: Facts) -> list[str]:
    before, after = facts.before, facts.after
    corrections = facts.left.corrections if facts.left else []
    mastered = DUE in facts.words and facts.words[DUE].mastered
    expected = replace(
        before,
        words_mastered=before.words_mastered + mastered,
        words_learning=before.words_learning + len(NEW_WORDS) - mastered,
        corrections=before.corrections + len(corrections),
        repaired=before.repaired + sum(each.repaired for each in corrections),
        lessons_completed=before.lessons_completed + 1,
        lessons_held=before.lessons_held + 1,
        streak_days=before.streak_days + 1,
        minutes=after.minutes,
    )
    problems = [
        f"On the student's page, {name} is {getattr(after, key):g} instead of "
        f"{getattr(expected, key):g}."
        for key, name in LABELS.items()
        if getattr(after, key) != getattr(expected, key)
    ]
    if not mastered:
        problems.append(f"The word “{DUE}” was known and is not mastered.")
    if after.minutes <= before.minutes:
        problems.append("On the student's page, the minutes are what they were.")
    return problems
