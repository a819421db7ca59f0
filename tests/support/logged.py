"""What was logged: the plugin's events by their names, and what somebody said."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from emma_agent.demo.verdict import words


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """The events at `level` and above, in order."""
    return [record.message for record in caplog.records if record.levelno >= level]


def said_in_logs(directory: Path, said: Iterable[str]) -> dict[str, list[str]]:
    """What of `said` stands in the `*.log` files of a directory, by file; compared as words.

    The first four words of each: a log that cuts is found too.
    """
    phrases = {" ".join(words(text)[:4]) for text in said} - {""}
    found = {}
    for log in sorted(directory.glob("*.log")):
        logged = " ".join(words(log.read_text(encoding="utf-8", errors="replace")))
        found[log.name] = sorted(phrase for phrase in phrases if phrase in logged)
    return found
