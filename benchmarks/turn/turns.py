"""Turns of both sides, pair by pair in one process: what was said, to the answer's first text.

In each pair both sides have a turn of the same kind, in an order that chance decides. Between turns
everything that a turn has left to do is done, since a student takes seconds to answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Literal

from benchmarks.turn.paired import Pair
from benchmarks.turn.sides import ANSWER, SIDES, Call, Side, SideName, Took, bare, emma

__all__ = ["KINDS", "Kind", "measure_lesson"]

Kind = Literal["talk", "read", "write", "tell", "hand over"]
KINDS: Final[dict[Kind, str]] = {
    "talk": "no tool",
    "read": "a tool that reads",
    "write": "a tool that writes a record",
    "tell": "a tool that changes Emma's instructions",
    "hand over": "the next part of the lesson",
}
_TEN: Final[tuple[Kind, ...]] = (
    "talk",
    "write",
    "talk",
    "talk",
    "tell",
    "talk",
    "talk",
    "read",
    "talk",
    "hand over",
)

_SAID: Final = "Yesterday I have went to the market and bought apples and a loaf of bread."
_PAUSE_S: Final = 0.03


def kind_of(turn: int) -> Kind:
    """What happens in that turn of a lesson, counted from 0."""
    return _TEN[turn % len(_TEN)]


def answers_of(kind: Kind, turn: int, *, side: SideName) -> Sequence[str | Call]:
    """What the model answers in that turn; both sides are asked equally often."""
    if kind == "talk":
        return [ANSWER]
    if side == "bare":
        call = Call("hand_over") if kind == "hand over" else Call("look_up", '{"what": "a word"}')
        return [call, ANSWER]
    match kind:
        case "read":
            call = Call("get_student_profile")
        case "write":
            noted = {
                "said": f"have went {turn}",
                "target": f"went {turn}",
                "error_type": "tense",
                "severity": "moderate",
            }
            call = Call("note_correction", json.dumps(noted))
        case "tell":
            call = Call("go_to_slide", json.dumps({"number": 1 + turn // len(_TEN) % 2}))
        case "hand over":
            call = Call("next_step")
    return [call, ANSWER]


def pair_of(emma: Took, bare: Took) -> Pair:
    """What both took."""
    return Pair(emma.wall_s, bare.wall_s, emma.cpu_s - bare.cpu_s)


async def measure_lesson(
    metadata: str,
    *,
    turns: int,
    chance: random.Random,
    on_turn: Callable[[], None] = lambda: None,
) -> dict[Kind, list[Pair]]:
    """Pairs by kind, of one lesson on each side.

    Args:
        metadata: of Emma's job.
        turns: at most 50: a lesson with slides and words due has six parts.
        chance: decides which side has its turn first.
    """
    found: dict[Kind, list[Pair]] = {kind: [] for kind in KINDS}
    async with AsyncExitStack() as stack:
        sides: dict[SideName, Side] = {
            "emma": await stack.enter_async_context(emma(metadata)),
            "bare": await stack.enter_async_context(bare()),
        }
        # As LiveKit does in a job process: what was there before is no work of the collector's.
        gc.collect()
        gc.freeze()
        for turn in range(turns):
            kind = kind_of(turn)
            took: dict[str, Took] = {}
            for name in chance.sample(SIDES, k=len(SIDES)):
                await asyncio.sleep(_PAUSE_S)
                took[name] = await sides[name].turn(_SAID, answers_of(kind, turn, side=name))
            found[kind].append(pair_of(took["emma"], took["bare"]))
            on_turn()
    return found
