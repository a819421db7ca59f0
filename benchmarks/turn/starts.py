"""Starts of both sides, pair by pair, each in a process of its own as LiveKit makes them.

LiveKit's worker forks a job process from a server that has imported what `emma_agent.server` asks
for, sets it up, and holds one lesson in it. So does this: nothing that a start needs is warm because
of another start.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.turn.paired import Pair
from benchmarks.turn.sides import SIDES, SideName, Start, side
from benchmarks.turn.turns import pair_of

__all__ = ["StartPair", "measure_starts", "parts_of"]

_WARM: Final = "emma_agent.warm_up"
# As `livekit.agents.worker` has it; and this module, so that it is no part of a start.
_PRELOADED: Final = [
    _WARM,
    __name__,
    "livekit.agents.ipc._preload",
    "livekit.agents.ipc._preload_freeze",
]
_START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class StartPair:
    """A start of each side."""

    emma: Start
    bare: Start

    @property
    def own(self) -> Pair:
        """Without Emma's wait for the network."""
        return pair_of(self.emma.own, self.bare.own)


def measure_starts(
    metadata: Callable[[int], str],
    *,
    pairs: int,
    chance: random.Random,
    on_start: Callable[[], None] = lambda: None,
) -> list[StartPair]:
    """That many starts of each side, in an order that chance decides.

    Args:
        metadata: of Emma's job, by number.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    found = []
    for number in range(pairs):
        starts = {}
        for name in chance.sample(SIDES, k=len(SIDES)):
            starts[name] = _in_a_job_process(name, metadata(number))
            on_start()
        found.append(StartPair(starts["emma"], starts["bare"]))
    return found


def parts_of(starts: Sequence[StartPair]) -> dict[str, list[float]]:
    """Seconds of each start, by what they are."""
    return {
        "Emma, all of it": [pair.emma.whole.wall_s for pair in starts],
        "Emma, waiting for Convex": [pair.emma.waited.wall_s for pair in starts],
        "Emma, without that wait": [pair.emma.own.wall_s for pair in starts],
        "Emma, from AgentSession.start": [pair.emma.session.wall_s for pair in starts],
        "bare, all of it": [pair.bare.whole.wall_s for pair in starts],
        "bare, from AgentSession.start": [pair.bare.session.wall_s for pair in starts],
        "Emma's share, from AgentSession.start": [
            pair.emma.session.wall_s - pair.bare.session.wall_s for pair in starts
        ],
    }


def _in_a_job_process(name: SideName, metadata: str) -> Start:
    context = multiprocessing.get_context("forkserver")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_hold, args=(name, metadata, its))
    process.start()
    its.close()
    try:
        if not mine.poll(_START_S):
            raise TimeoutError(f"a start of {name} took longer than {_START_S:g} s")
        start = mine.recv()
        assert isinstance(start, Start)
        process.join(_START_S)
    except EOFError:
        raise RuntimeError(f"the process of a start of {name} ended too early") from None
    finally:
        mine.close()
        process.kill()
        process.join()
    return start


def _hold(name: SideName, metadata: str, to_parent: Connection) -> None:
    """A job process: set up, then one lesson, no longer than its greeting."""
    if _WARM not in sys.modules:
        raise RuntimeError(f"{_WARM} was not imported before: run this where the project lies")
    to_parent.send(asyncio.run(_start(name, metadata)))


async def _start(name: SideName, metadata: str) -> Start:
    async with side(name, metadata) as greeted:
        return greeted.start
