"""A worker is killed in the middle of a sentence, before your eyes; then it is started again.

Convex is away from the first answer on, so that what was said since is on the worker's disk and
nowhere else when the kill comes.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

from emma_agent.demo.children import Child
from emma_agent.demo.plan import Plan, StageError
from emma_agent.demo.screen import Screen
from emma_agent.demo.services import Services
from emma_agent.demo.stage import (
    SENTENCES,
    lines_of,
    on_stage,
    rows_and_ticket,
    unless_one_ends,
)
from emma_agent.demo.verdict import Verdict, judge

if TYPE_CHECKING:
    from emma_agent.demo.exchange import Exchange
    from emma_agent.demo.rows import LiveLesson
    from emma_agent.demo.student import Ticket

__all__ = ["kill_and_recover"]

# Deadlines in seconds; a run on idle cores needs less than a fifth of each.
_GREETING_S: Final = 60.0
_ANSWER_S: Final = 45.0
# The new worker sweeps when it starts, and every 15 s.
_RECOVERY_S: Final = 60.0


async def kill_and_recover(
    plan: Plan, *, directory: Path, screen: Screen, children: set[Child]
) -> Verdict:
    """Hold a lesson that is cut off, bring the worker back, and compare.

    Args:
        directory: gets the database, the outbox and the logs.
        children: holds the processes while they run, for someone in a hurry to kill.

    Raises:
        StageError: something did not come up, the lesson did not go on, or the deployment is not
            one of this machine.
    """
    if plan.convex is not None:
        raise StageError(
            "This demo takes Convex away for a while, which it does to its own alone: unset "
            "CONVEX_URL."
        )
    async with (
        on_stage(plan, directory=directory, screen=screen, children=children) as services,
        rows_and_ticket(services) as (client, ticket),
    ):
        from emma_agent.demo.rows import LiveLesson

        screen.heading("The lesson, as its rows appear in Convex (a live query, not the agent)")
        async with LiveLesson.follow(client, ticket.room, on_message=screen.on_message) as live:
            printing = asyncio.create_task(screen.print_rows())
            try:
                others = [child for child in services.needed if child is not services.worker]
                cut_off = _cut_off(ticket, services, live, screen)
                exchanges = await unless_one_ends(cut_off, others)
                await services.start_worker()
                count = len(exchanges)
                await live.until(lambda now: _is_back(now, count), timeout_s=_RECOVERY_S)
                await screen.flush()
            finally:
                printing.cancel()
                await asyncio.gather(printing, return_exceptions=True)
    verdict = judge(lines_of(exchanges), live.rows)
    problems = list(verdict.problems)
    if live.session is None or live.session.status != "ended":
        problems.append("The session of the killed worker was not closed in Convex.")
    return Verdict(verdict.matches, problems)


async def _cut_off(
    ticket: Ticket, services: Services, live: LiveLesson, screen: Screen
) -> list[Exchange]:
    """The lesson until the kill; what was said and heard whole."""
    from emma_agent.demo.student import Student

    async with Student.join(ticket, on_exchange=screen.on_exchange) as student:
        await student.listen(timeout_s=_GREETING_S)
        await live.until(lambda now: len(now.messages) >= 1, timeout_s=_ANSWER_S)
        await screen.flush()
        await _convex_is_away(services, True)
        screen.say("  -- Convex is taken away: from here on, only the worker's disk has it")
        await student.say(SENTENCES[0])
        await student.listen(timeout_s=_ANSWER_S)
        await student.say(SENTENCES[1])
        await student.hear_first_sound(timeout_s=_ANSWER_S)
        os.killpg(services.worker.pid, signal.SIGKILL)
        await services.worker.exited.wait()
        screen.say(
            f"  -- kill -9 {services.worker.pid}: the worker and all its jobs, in the middle of "
            "Emma's sentence"
        )
        held = len(live.messages)
        screen.say(f"  -- said and heard so far: {len(student.exchanges)}; in Convex: {held}")
    await _convex_is_away(services, False)
    screen.say("  -- Convex is back; the worker is started again")
    return student.exchanges


def _is_back(live: LiveLesson, count: int) -> bool:
    closed = live.session is not None and live.session.status == "ended"
    return closed and len(live.messages) >= count


async def _convex_is_away(services: Services, away: bool) -> None:
    """From now on every call of `sessions:record` is refused, or none."""
    headers = {"Authorization": f"Convex {services.deployment.admin_key}"}
    fault = {"kind": "unavailable", "path": "sessions:record"} if away else None
    async with (
        aiohttp.ClientSession() as http,
        http.request(
            "POST" if away else "DELETE",
            f"{services.deployment.url}/_local/faults",
            json=fault,
            headers=headers,
        ) as reply,
    ):
        reply.raise_for_status()
