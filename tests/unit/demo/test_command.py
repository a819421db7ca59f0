"""How the demo ends when what Convex holds is not what was said."""

from __future__ import annotations

from typing import Any

import pytest

from emma_agent.demo import command
from emma_agent.demo.livekit_server import LiveKitServer, ServerMissingError
from emma_agent.demo.stage import Outcome, Profile
from emma_agent.demo.verdict import Line, judge


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


def test_a_missing_livekit_server_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ServerMissingError, match="run `make setup`"):
        LiveKitServer.choose(tmp_path)
