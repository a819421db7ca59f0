"""The comparison of what was said and heard with what Convex holds."""

from __future__ import annotations

from typing import Literal

import pytest

from emma_agent.demo.rows import MessageRow
from emma_agent.demo.verdict import Line, judge, likeness

LINES = [
    Line("assistant", "Hello, I am Emma."),
    Line("user", "Yesterday I cooked dinner for my family."),
    Line("assistant", "That sounds delicious. What did you cook?"),
]


def row(
    item_id: str, role: Literal["user", "assistant"], text: str, *, provisional: bool = False
) -> MessageRow:
    return MessageRow(
        item_id=item_id,
        role=role,
        text=text,
        interrupted=False,
        provisional=provisional,
        created_at=0,
        stored_at=0,
    )


HELD = [
    row("item_0", "assistant", "Hello, I am Emma. "),
    row("item_1", "user", "yesterday I cooked dinner for my family"),
    row("item_2", "assistant", "That sounds delicious. What did you cook? "),
]


def test_case_and_punctuation_do_not_count() -> None:
    verdict = judge(LINES, HELD)

    assert verdict.ok
    assert [match.likeness for match in verdict.matches] == [1.0, 1.0, 1.0]


def test_whisper_may_mishear_a_word_of_the_student() -> None:
    held = [HELD[0], row("item_1", "user", "Yesterday I cook dinner for a family."), HELD[2]]

    assert judge(LINES, held).ok


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ([HELD[0], HELD[2]], "does not hold what the student said"),
        ([*HELD, row("item_9", "user", HELD[1].text)], "holds twice"),
        ([*HELD, row("item_9", "assistant", "Goodbye then")], "neither said nor heard"),
        ([HELD[1], HELD[0], HELD[2]], "another order"),
        ([*HELD[:2], row("item_1", "assistant", HELD[2].text)], "the same message twice"),
        ([*HELD, row("transcript:r:1", "user", "yes", provisional=True)], "still provisional"),
        ([HELD[0], row("item_1", "assistant", HELD[1].text), HELD[2]], "the student said"),
        ([*HELD[:2], row("item_2", "assistant", "That sounds")], "what Emma said"),
        ([], "does not hold what Emma said"),
    ],
)
def test_whatever_is_not_once_and_in_order_is_said(held: list[MessageRow], problem: str) -> None:
    verdict = judge(LINES, held)

    assert not verdict.ok
    assert any(problem in sentence for sentence in verdict.problems)


def test_the_table_shows_every_line_and_every_row() -> None:
    verdict = judge(LINES, [HELD[0], row("item_9", "user", "something else entirely")])

    assert [match.line for match in verdict.matches if match.line] == LINES
    assert {match.row.item_id for match in verdict.matches if match.row} == {"item_0", "item_9"}


def test_likeness_is_by_words_in_order() -> None:
    assert likeness("one two three four", "four three two one") < 0.5
    assert likeness("Don't stop!", "dont stop") == 1.0
    assert likeness("", "") == 1.0
