"""Is what Convex holds what was said and heard: each thing once, and in order? Pure.

The witness is the student: its own script for what it said, the `lk.transcription` stream for
what it heard. Words are compared without case and punctuation; the student's own words came
through Whisper, so a few may differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from emma_agent.demo.rows import MessageRow

__all__ = ["Line", "Match", "Verdict", "judge", "likeness", "words"]

# Of the words in the same order. Emma's text is the model's own on both sides; only the
# student's went through a microphone and Whisper tiny (up to 22 % of words wrong, measured).
EMMA_LIKENESS: Final = 0.9
STUDENT_LIKENESS: Final = 0.6


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was said or heard."""

    role: str
    text: str

    @property
    def threshold(self) -> float:
        """The least likeness at which a row counts as this line."""
        return STUDENT_LIKENESS if self.role == "user" else EMMA_LIKENESS


@dataclass(frozen=True, slots=True)
class Match:
    """One line of the table: what was said or heard, and the row that holds it."""

    line: Line | None
    row: MessageRow | None
    likeness: float = 0.0

    @property
    def ok(self) -> bool:
        """The line has its row, and the row its line."""
        return self.line is not None and self.row is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The table, and one plain sentence for everything that is not as it should be."""

    matches: list[Match]
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Nothing is missing, twice, or out of order."""
        return not self.problems


def words(text: str) -> list[str]:
    """The words alone: lower case, letters and digits."""
    return re.findall(r"[^\W_]+", text.lower().replace("'", ""))


def likeness(one: str, other: str) -> float:
    """Share of words the two have in common in the same order, 0 to 1."""
    return SequenceMatcher(None, words(one), words(other), autojunk=False).ratio()


def judge(lines: Sequence[Line], rows: Sequence[MessageRow]) -> Verdict:
    """Compare.

    Args:
        lines: said and heard, in order.
        rows: as `messages:list` returns them.
    """
    problems: list[str] = []
    if waiting := sum(row.provisional for row in rows):
        problems.append(f"{_rows(waiting)} still provisional after the lesson.")
    kept = [row for row in rows if not row.provisional]
    if len({row.item_id for row in kept}) != len(kept):
        problems.append("Convex holds the same message twice.")

    matches: list[Match] = []
    free = list(kept)
    for line in lines:
        fitting = [row for row in free if row.role == line.role and _fits(line, row)]
        if not fitting:
            matches.append(Match(line, None))
            problems.append(f"Convex does not hold what {_who(line.role)} said: “{line.text}”.")
            continue
        row = fitting[0]
        free.remove(row)
        matches.append(Match(line, row, likeness(line.text, row.text)))
    for row in free:
        matches.append(Match(None, row))
        again = any(row.role == line.role and _fits(line, row) for line in lines)
        kind = "twice" if again else "though it was neither said nor heard"
        problems.append(f"Convex holds {kind}: “{row.text}”.")
    order = [kept.index(match.row) for match in matches if match.ok and match.row is not None]
    if order != sorted(order):
        problems.append("Convex holds the messages in another order than they were said.")
    return Verdict(matches, problems)


def _fits(line: Line, row: MessageRow) -> bool:
    return likeness(line.text, row.text) >= line.threshold


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count} rows are"


def _who(role: str) -> str:
    return "the student" if role == "user" else "Emma"
