"""How the demo ends when what Convex holds is not what was said."""

from __future__ import annotations

from typing import Any

import pytest

from emma_agent.demo import command
from emma_agent.demo.livekit_server import LiveKitServer, ServerMissingError
from emma_agent.demo.short_lesson import ShortLesson
from emma_agent.demo.stage import Outcome, Profile
from emma_agent.demo.verdict import Line, Verdict, judge
from tests.support.short_lesson import FACTS


def test_a_sentence_that_is_missing_is_exit_code_1_and_a_plain_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = [Line("assistant", "Hello, I am Emma.")]

    async def hold_lesson(*_: Any, **__: Any) -> Outcome:
        return Outcome(
            session_key="lesson",
            exchanges=[],
            rows=[],
            session=None,
            profile=Profile(name="Carlos", level="A2"),
            rows_during_lesson=0,
            verdict=judge(heard, []),
        )

    monkeypatch.setattr(command, "hold_lesson", hold_lesson)
    for name in ("CONVEX_URL", "NEXT_PUBLIC_CONVEX_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    assert command.main([]) == 1

    shown = capsys.readouterr().out
    assert "Hello, I am Emma." in shown
    assert "What to try next" not in shown
    assert "Each thing once" not in shown


async def nothing_held(*_: Any, **__: Any) -> Any:
    raise AssertionError("no lesson was asked for")


@pytest.mark.parametrize(
    ("options", "interrupt"),
    [(["--lesson", "short"], False), (["--resume"], True), (["--resume", "--lesson=short"], True)],
)
def test_a_short_lesson_that_left_too_little_is_exit_code_1(
    options: list[str],
    interrupt: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[bool] = []

    async def hold_short_lesson(*_: Any, interrupt: bool, **__: Any) -> ShortLesson:
        asked.append(interrupt)
        return ShortLesson(Verdict([], ["The mistake was noted 0 times."]), FACTS, None)

    monkeypatch.setattr(command, "hold_short_lesson", hold_short_lesson)
    monkeypatch.setattr(command, "hold_lesson", nothing_held)
    for name in ("CONVEX_URL", "NEXT_PUBLIC_CONVEX_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    assert command.main(options) == 1

    shown = capsys.readouterr().out
    assert asked == [interrupt]
    assert "The mistake was noted 0 times." in shown
    assert "words mastered" in shown
    assert "What to try next" not in shown


def test_the_crash_goes_with_no_other_lesson(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--crash", "--resume"])

    assert ended.value.code == 2
    assert "neither --lesson nor --resume" in capsys.readouterr().err


def test_a_missing_livekit_server_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ServerMissingError, match="run `make setup`"):
        LiveKitServer.choose(tmp_path)
