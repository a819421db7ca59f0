"""What was recorded of the turns of a lesson with real audio: the demo's, heard and spoken offline.

Shown beside the rest and not judged: nearly all of it is the silence that ends a turn, speech
recognition and voice.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

from emma_agent.demo.exchange import Exchange, Heard, Said
from emma_agent.demo.plan import Plan
from emma_agent.demo.rows import LiveLesson, MessageRow
from emma_agent.demo.screen import Screen
from emma_agent.demo.stage import SENTENCES, on_stage, rows_and_ticket, unless_one_ends

__all__ = ["Answer", "answers_in", "show_lesson", "table_of"]

Kind = Literal["pipeline", "realtime"]

_GREETING_S: Final = 60.0
_ANSWER_S: Final = 45.0
_END_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to something that was said; milliseconds, None where nothing was recorded.

    Attributes:
        e2e: from the end of the student's speech to the first sound of the answer.
        end_of_turn: of this, until it was decided that the turn is over.
        transcription: of the end of the turn, until the words were known.
        model: its first token, from when it was asked.
        voice: its first sound, from the first text it was given.
        heard: as `e2e`, but measured at the student's ear and not recorded.
    """

    e2e: float | None
    end_of_turn: float | None
    transcription: float | None
    model: float | None
    voice: float | None
    heard: float | None = None

    @property
    def rest(self) -> float | None:
        """What the parts leave of the whole. Below 0 if the model began before the turn was over."""
        if self.e2e is None or None in (self.end_of_turn, self.model, self.voice):
            return None
        return self.e2e - sum(part or 0.0 for part in (self.end_of_turn, self.model, self.voice))


def answers_in(rows: Sequence[MessageRow], exchanges: Sequence[Exchange] = ()) -> list[Answer]:
    """The answers among the rows of a lesson, in order.

    Args:
        exchanges: what the student said and heard.
    """
    heard = list(_heard(exchanges))
    found: list[Answer] = []
    said: Mapping[str, float] | None = None
    for row in rows:
        if row.role == "user":
            said = row.metrics or {}
        elif said is not None:
            answer = row.metrics or {}
            found.append(
                Answer(
                    e2e=answer.get("e2eLatencyMs"),
                    end_of_turn=said.get("endOfTurnDelayMs"),
                    transcription=said.get("transcriptionDelayMs"),
                    model=answer.get("llmTtftMs"),
                    voice=answer.get("ttsTtfbMs"),
                    heard=heard[len(found)] if len(found) < len(heard) else None,
                )
            )
            said = None
    return found


def table_of(kind: Kind, answers: Sequence[Answer]) -> Table:
    """What was recorded, a row for each answer."""
    table = Table(
        title=f"Recorded of a lesson with real audio, {kind}: from the end of speech to the first "
        "sound, ms",
        caption="Offline speech and a scripted model on this machine; not judged. Empty: LiveKit tells "
        "nothing of it. The transcription is part of the end of the turn; a rest below 0: the model "
        "was asked before the turn had ended.",
    )
    names = ("whole", "end of turn", "transcription", "model", "voice", "rest", "at the ear")
    for name in ("answer", *names):
        table.add_column(name)
    for number, answer in enumerate(answers, 1):
        values = (
            answer.e2e,
            answer.end_of_turn,
            answer.transcription,
            answer.model,
            answer.voice,
            answer.rest,
            answer.heard,
        )
        table.add_row(str(number), *("" if one is None else f"{one:.0f}" for one in values))
    return table


def show_lesson(kind: Kind, *, out: Console, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Hold the lesson and print its table; returns the same as values."""
    say(f"a lesson with real audio, {kind} …")
    with tempfile.TemporaryDirectory(prefix="emma-bench-audio-") as folder:
        answers = asyncio.run(_hold(kind, Path(folder)))
    out.print(table_of(kind, answers))
    return [{**asdict(answer), "rest": answer.rest} for answer in answers]


async def _hold(kind: Kind, directory: Path) -> list[Answer]:
    # Here: importing it takes seconds, in which the services come up.
    from emma_agent.demo.student import Student

    screen = Screen(Console(file=io.StringIO()))
    async with (
        on_stage(Plan(speech=kind), directory=directory, screen=screen, children=set()) as services,
        rows_and_ticket(services) as (client, ticket),
        LiveLesson.follow(client, ticket.room) as live,
    ):

        async def attend() -> list[Exchange]:
            async with Student.join(ticket) as student:
                await student.listen(timeout_s=_GREETING_S)
                for sentence in SENTENCES:
                    await student.say(sentence)
                    await student.listen(timeout_s=_ANSWER_S)
                return student.exchanges

        exchanges = await unless_one_ends(attend(), services.needed)
        await live.until(_over, timeout_s=_END_S)
        return answers_in(live.messages, exchanges)


def _over(live: LiveLesson) -> bool:
    session = live.session
    return session is not None and session.status == "ended" and not session.provisional_end


def _heard(exchanges: Sequence[Exchange]) -> Iterator[float]:
    """Milliseconds from each end of speech to the first sound of what followed."""
    ended_at: float | None = None
    for exchange in exchanges:
        match exchange:
            case Said():
                ended_at = exchange.ended_at
            case Heard() if ended_at is not None:
                yield 1e3 * (exchange.started_at - ended_at)
                ended_at = None
