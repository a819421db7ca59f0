"""One lesson on the stage: held, watched from outside, and compared with what Convex holds.

    LiveKit server ── worker ── student          two turns, real audio
                        │          │
    offline speech    Convex ── live queries ── screen

Used by the command (`command.py`) and, as a library, by the end-to-end test.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from emma_agent.demo.children import Child, ChildEndedError
from emma_agent.demo.exchange import Exchange, Said
from emma_agent.demo.livekit_server import ServerMissingError
from emma_agent.demo.plan import Plan, StageError
from emma_agent.demo.screen import Screen
from emma_agent.demo.services import AGENT_NAME, Services, run_services
from emma_agent.demo.speech import missing_packages
from emma_agent.demo.verdict import Line, Verdict, judge, words

if TYPE_CHECKING:
    from emma_agent.demo.rows import LiveLesson, MessageRow, SessionRow, SummaryRow
    from emma_agent.demo.student import Ticket
    from livekit.plugins.convex import AsyncConvexClient

__all__ = [
    "SENTENCES",
    "Outcome",
    "hold_lesson",
    "lines_of",
    "on_stage",
    "rows_and_ticket",
    "unless_one_ends",
]

SENTENCES: Final = (
    "Yesterday I cooked dinner for my family.",
    "Please tell me what is in my student profile.",
)
"""What the student says: Whisper tiny.en hears both without a fault, and only a tool call
answers the second."""

# Deadlines in seconds; a run on idle cores needs less than a fifth of each.
_GREETING_S: Final = 60.0
_ANSWER_S: Final = 45.0
_ROWS_S: Final = 20.0
_END_S: Final = 20.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one lesson."""

    session_key: str
    exchanges: Sequence[Exchange]
    rows: Sequence[MessageRow]
    session: SessionRow | None
    profile: Profile
    rows_during_lesson: int
    """Committed messages that Convex held before the student left."""
    verdict: Verdict
    summary: SummaryRow | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """What Convex knows of the student, and only a tool can tell."""

    name: str
    level: str


async def hold_lesson(
    plan: Plan, *, directory: Path, screen: Screen, children: set[Child]
) -> Outcome:
    """Hold one lesson, from nothing to the comparison; when it returns, every process is gone.

    Args:
        directory: gets the database, the outbox and the logs.
        children: holds the processes while they run, for someone in a hurry to kill.

    Raises:
        StageError: something did not come up, or the lesson did not go on.
    """
    async with on_stage(plan, directory=directory, screen=screen, children=children) as services:
        return await _hold(services, screen)


@asynccontextmanager
async def on_stage(
    plan: Plan, *, directory: Path, screen: Screen, children: set[Child]
) -> AsyncIterator[Services]:
    """The services of a lesson; what goes wrong with them is a StageError."""
    if missing := missing_packages():
        raise StageError(
            f"The demo needs {', '.join(missing)}, not installed here: run `make setup`."
        )
    try:
        async with run_services(
            plan, directory=directory, screen=screen, children=children
        ) as services:
            yield services
    except ChildEndedError as error:
        raise StageError(str(error), log=error.child.log) from error
    except ServerMissingError as error:
        raise StageError(str(error)) from error


@asynccontextmanager
async def rows_and_ticket(services: Services) -> AsyncIterator[tuple[AsyncConvexClient, Ticket]]:
    """A client that may see the lesson, and the student's way into its room.

    Raises:
        StageError: the lesson did not go on, or Convex could not be read.
    """
    # Here, not above: these take seconds to import, in which the services come up.
    from emma_agent.demo.student import StudentError, Ticket
    from livekit.plugins.convex import AgentKey, AgentToken, AsyncConvexClient, ConvexClientError

    session_key = f"demo-{secrets.token_hex(8)}"
    ticket = Ticket.issue(
        url=services.livekit.url,
        api_key=services.livekit.api_key,
        api_secret=services.livekit.api_secret,
        room=session_key,
        identity="student",
        agent_name=AGENT_NAME,
        metadata={
            "student_id": services.student_id,
            "lesson_id": services.lesson_id,
            "session_key": session_key,
        },
    )
    token = AgentToken(
        AgentKey.from_env(services.deployment.agent),
        subject=f"student:{services.student_id}",
        student_id=services.student_id,
    )
    try:
        async with AsyncConvexClient(url=services.deployment.url, token=token) as client:
            yield client, ticket
    except StudentError as error:
        raise StageError(str(error), log=services.worker.log) from error
    except ConvexClientError as error:
        raise StageError(
            f"Convex could not be read ({type(error).__name__}): {error}", log=services.worker.log
        ) from error


async def _hold(services: Services, screen: Screen) -> Outcome:
    async with rows_and_ticket(services) as (client, ticket):
        from emma_agent.demo.rows import LiveLesson, summary_of

        profile = _profile(await client.query("students:tutoringContext", {}))
        screen.heading("The lesson, as its rows appear in Convex (a live query, not the agent)")
        async with LiveLesson.follow(client, ticket.room, on_message=screen.on_message) as live:
            lesson = _attend(ticket, live, screen)
            exchanges, during = await unless_one_ends(lesson, services.needed)
            await live.until(_closed, timeout_s=_END_S)
            # It may take a moment longer: a model writes it.
            summary = await summary_of(client, ticket.room, timeout_s=_END_S)
        return Outcome(
            session_key=ticket.room,
            exchanges=exchanges,
            rows=live.rows,
            session=live.session,
            profile=profile,
            rows_during_lesson=during,
            summary=summary,
            verdict=_judge(exchanges, live, profile),
        )


async def _attend(ticket: Ticket, live: LiveLesson, screen: Screen) -> tuple[list[Exchange], int]:
    """What happens in the room: what was said and heard, and how many rows there were by then."""
    from emma_agent.demo.student import Student

    printing = asyncio.create_task(screen.print_rows())
    try:
        async with Student.join(ticket, on_exchange=screen.on_exchange) as student:
            await student.listen(timeout_s=_GREETING_S)
            for sentence in SENTENCES:
                await student.say(sentence)
                await student.listen(timeout_s=_ANSWER_S)
            count = len(student.exchanges)
            await live.until(lambda now: len(now.messages) >= count, timeout_s=_ROWS_S)
            during = len(live.messages)
            await screen.flush()
        return student.exchanges, during
    finally:
        printing.cancel()
        await asyncio.gather(printing, return_exceptions=True)


async def unless_one_ends(work: Coroutine[Any, Any, _T], children: Sequence[Child]) -> _T:
    """The result of `work`; ChildEndedError as soon as a child ends that it needs."""
    task = asyncio.create_task(work)
    ends = {asyncio.create_task(child.exited.wait()): child for child in children}
    try:
        await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ChildEndedError(next(child for end, child in ends.items() if end.done()))
        return task.result()
    finally:
        for pending in (task, *ends):
            pending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(task, *ends, return_exceptions=True)


def _closed(live: LiveLesson) -> bool:
    session = live.session
    return session is not None and session.status == "ended" and not session.provisional_end


def _profile(context: object) -> Profile:
    student = context.get("student") if isinstance(context, dict) else None
    if not isinstance(student, dict):
        raise StageError("Convex does not know the student that the demo has put there.")
    return Profile(name=str(student.get("name")), level=str(student.get("level")))


def lines_of(exchanges: Sequence[Exchange]) -> list[Line]:
    """What was said and heard, as the table has it."""
    return [
        Line("user" if isinstance(exchange, Said) else "assistant", exchange.text)
        for exchange in exchanges
    ]


def _judge(exchanges: Sequence[Exchange], live: LiveLesson, profile: Profile) -> Verdict:
    lines = lines_of(exchanges)
    verdict = judge(lines, live.rows)
    problems = list(verdict.problems)
    if not set(words(f"{profile.name} {profile.level}")) & set(words(lines[-1].text)):
        problems.append("Emma's last answer tells nothing of the profile: the tool was no help.")
    session = live.session
    if session is None:
        problems.append("Convex holds no session.")
    elif not _closed(live):
        problems.append("The session was not closed in Convex after the student had left.")
    elif session.message_count != len(live.messages):
        problems.append(
            f"The session counts {session.message_count} messages; "
            f"Convex holds {len(live.messages)}."
        )
    return Verdict(verdict.matches, problems)
