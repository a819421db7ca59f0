"""The scenarios of `make chaos` that take seconds, and the judge that they all stand before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import Seen, Stage, Verdict, judge


@pytest.mark.parametrize(
    "scenario", [one for one in SCENARIOS if one.short], ids=lambda scenario: scenario.name
)
async def test_every_promise_is_kept(scenario: Scenario, tmp_path: Path) -> None:
    async with Stage.set_up(tmp_path) as stage:
        verdict = await scenario.play(stage)
    assert verdict.kept, verdict


SEEN = Seen(messages=["a", "b", "c"], tools=["t"])
HELD: dict[str, Any] = {"status": "ended", "messages": ["a", "b", "c"], "tools": ["t"]}


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ({}, Verdict(sent=4, stored=4)),
        # Killed between the append and the witness.
        ({"messages": ["a", "b", "c", "d"]}, Verdict(sent=4, stored=5)),
        ({"messages": ["a", "c"]}, Verdict(sent=4, stored=3, lost=1)),
        ({"tools": []}, Verdict(sent=4, stored=3, lost=1)),
        ({"messages": ["a", "b", "b", "c"]}, Verdict(sent=4, stored=5, doubled=1)),
        ({"tools": ["t", "t"]}, Verdict(sent=4, stored=5, doubled=1)),
        ({"messages": ["b", "a", "c"]}, Verdict(sent=4, stored=4, reordered=1)),
        ({"status": "active"}, Verdict(sent=4, stored=4, open=1)),
        ({"status": None, "messages": [], "tools": []}, Verdict(sent=4, lost=4, open=1)),
    ],
)
def test_the_judge_sees_what_is_broken(held: dict[str, Any], verdict: Verdict) -> None:
    assert judge(SEEN, {**HELD, **held}) == verdict


def test_promises_about_nothing_are_not_kept() -> None:
    assert not Verdict().kept
    assert Verdict(sent=1, stored=1).kept
    for broken in ({"lost": 1}, {"doubled": 1}, {"reordered": 1}, {"open": 1}):
        assert not Verdict(sent=1, stored=1, **broken).kept
