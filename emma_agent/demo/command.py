"""`python -m emma_agent.demo`: hold a lesson on this machine and show what Convex holds of it."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from rich.console import Console

from emma_agent.demo.children import Child, last_lines
from emma_agent.demo.crash import kill_and_recover
from emma_agent.demo.plan import Plan, StageError
from emma_agent.demo.screen import Screen
from emma_agent.demo.short_lesson import ShortLesson, hold_short_lesson
from emma_agent.demo.stage import hold_lesson

__all__ = ["main"]

_ABOUT: Final = """\
Hold a lesson with a simulated student, with real audio through a real LiveKit server, and show
what Convex holds of it: two turns of talk, or a whole short lesson (--lesson short). Needs no key,
no account and no internet. OPENAI_API_KEY, if set, replaces the offline speech; CONVEX_URL, if set,
replaces convex-local."""

_NEXT: Final = """\
What to try next:
  OPENAI_API_KEY=… make demo      the same lesson with a real language model
  make demo LESSON=short          a whole lesson: words, slides, a mistake, and what was learnt
  make demo RESUME=1              the same, with the worker killed in the middle: it goes on
  make demo-crash                 kill -9 in the middle of a sentence: nothing is missing
  make test                       everything this rests on, broken on purpose
  python -m emma_agent dev        a worker for your own LiveKit room; starts convex-local
  README.md                       a real LiveKit and a real Convex; the plugin in your own agent"""

Mode = Literal["quick", "short", "resume", "crash"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PLAIN_WIDTH: Final = 110


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        The exit code: 0 all is held; 1 it is not, or something did not come up; 128 plus the
        signal's number if one came, 130 for Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="python -m emma_agent demo", description=_ABOUT)
    parser.add_argument(
        "--lesson",
        choices=("quick", "short"),
        default="quick",
        help="quick (the default): two turns of talk, in half a minute. short: a whole lesson from "
        "the greeting to the farewell, in under three, and the student's page of numbers before "
        "and after it",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="hold the short lesson, and kill the worker in the middle of it: the student stays in "
        "the room, the worker is started again, and the lesson goes on where it was",
    )
    parser.add_argument(
        "--crash",
        action="store_true",
        help="kill the worker in the middle of a sentence while Convex is away, start it again, "
        "and compare",
    )
    chosen = parser.parse_args(argv)
    if chosen.crash and (chosen.resume or chosen.lesson == "short"):
        parser.error("--crash has a lesson of its own; it goes with neither --lesson nor --resume")
    mode: Mode = "quick"
    if chosen.crash:
        mode = "crash"
    elif chosen.resume or chosen.lesson == "short":
        mode = "resume" if chosen.resume else "short"
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    try:
        return asyncio.run(_run(Screen(console), mode))
    except KeyboardInterrupt:
        # Before or after the loop listens to signals itself; no child is there then.
        return 128 + signal.SIGINT


async def _run(screen: Screen, mode: Mode) -> int:
    lesson = asyncio.current_task()
    assert lesson is not None
    children: set[Child] = set()
    stopped_by: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if stopped_by:
            for child in children:
                child.kill()
            return
        stopped_by.append(number)
        screen.say("\nStopping …")
        lesson.cancel()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)

    began_at = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="emma-demo-"))
    keep = False
    try:
        return await _hold(screen, directory, children, began_at, mode)
    except StageError as error:
        keep = error.log is not None
        lines = last_lines(error.log) if error.log else []
        screen.failure(str(error), log=error.log, lines=lines)
        return 1
    except asyncio.CancelledError:
        if not stopped_by:
            raise
        return 128 + stopped_by[0]
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


async def _hold(
    screen: Screen, directory: Path, children: set[Child], began_at: float, mode: Mode
) -> int:
    plan = Plan.from_environment(os.environ)
    screen.heading("Emma teaches a simulated student, out loud, on this machine")
    if plan.openai is None:
        screen.say(
            "No key, no account, no internet. Whisper tiny.en hears, espeak-ng speaks; what Emma "
            "answers is scripted: no language model is at work."
        )
    else:
        by = plan.openai.get("OPENAI_BASE_URL") or "OpenAI (which costs money)"
        screen.say(f"OPENAI_API_KEY is set: hearing, thinking and voice are by {by}.")
    if plan.convex is not None:
        screen.say(f"CONVEX_URL is set: the lesson is kept at {plan.convex.url}.")
    short = None
    if mode in ("short", "resume"):
        short = await hold_short_lesson(
            plan,
            directory=directory,
            screen=screen,
            children=children,
            interrupt=mode == "resume",
        )
        verdict = short.verdict
        conclusion = "Each thing once and in order, and each part of the lesson."
    elif mode == "crash":
        verdict = await kill_and_recover(
            plan, directory=directory, screen=screen, children=children
        )
        conclusion = "Each thing once and in order; the sentence that was cut off was never whole."
    else:
        outcome = await hold_lesson(plan, directory=directory, screen=screen, children=children)
        verdict = outcome.verdict
        conclusion = (
            f"Each thing once and in order; {outcome.rows_during_lesson} rows were there while the "
            "lesson still ran. Emma's last answer is what her tool read in Convex."
        )
    screen.caption()
    screen.heading("What Convex holds, and what the student said and heard")
    screen.table(verdict)
    if short is not None:
        _show(screen, short, writer="the script" if plan.openai is None else "the model")
    if not verdict.ok:
        for problem in verdict.problems:
            screen.failure(problem, log=None, lines=())
        return 1
    screen.say(f"{conclusion} {time.monotonic() - began_at:.0f} s.")
    screen.say(f"\n{_NEXT}")
    return 0


def _show(screen: Screen, lesson: ShortLesson, *, writer: str) -> None:
    """What the lesson left: its course, its summary, and the student's page."""
    facts = lesson.facts
    screen.heading("What the lesson left in Convex")
    screen.say(f"  parts: {', '.join(('greeting', *facts.steps)).replace('_', '-')}")
    screen.say(f"  slides: {', '.join(str(slide + 1) for slide in facts.slides)}")
    for noted in facts.left.corrections if facts.left else ():
        state = "then said right" if noted.repaired else "not yet said right"
        screen.say(f"  mistake: {noted.said} -> {noted.target} ({noted.error_type}, {state})")
    if lesson.summary is not None:
        by = writer if lesson.summary.source == "model" else "the lesson's records"
        screen.say(f"  summary, by {by}: {lesson.summary.for_student}")
    screen.heading("The student's page of numbers, from public queries of Convex")
    screen.numbers(facts.before, facts.after)
