"""Logging: one stream with LiveKit's own, and nothing a student said in it."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Iterator

import pytest
import structlog
from livekit.agents.cli.log import JsonFormatter

from emma_agent.logs import configure_logging, get_logger


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What the production formatter prints of everything that reaches the root."""
    configure_logging()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    structlog.contextvars.clear_contextvars()
    yield stream
    structlog.contextvars.clear_contextvars()
    root.removeHandler(handler)
    root.setLevel(level)


def entries(stream: io.StringIO) -> list[dict[str, object]]:
    """The lines as objects, without what differs from run to run."""
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in lines:
        for key in ("timestamp", "pid", "code.file.path", "code.function.name", "code.line.number"):
            del line[key]
    return lines


def test_an_entry_is_one_line_with_its_keys_and_the_lessons(stream: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(room="r1", session_key="s1")
    get_logger("emma_agent.lesson").warning("lesson.context_late", wait_s=2.0, function="f")
    assert entries(stream) == [
        {
            "message": "lesson.context_late",
            "level": "WARNING",
            "name": "emma_agent.lesson",
            "room": "r1",
            "session_key": "s1",
            "wait_s": 2.0,
            "function": "f",
        }
    ]


def test_an_exception_is_shown_once(stream: io.StringIO) -> None:
    try:
        raise KeyError("a")
    except KeyError:
        get_logger("emma_agent.x").exception("thing.failed")
    [entry] = entries(stream)
    assert str(entry.pop("exc_info")).count("Traceback") == 1
    assert entry == {"message": "thing.failed", "level": "ERROR", "name": "emma_agent.x"}


def test_entries_below_the_level_are_left_out(stream: io.StringIO) -> None:
    logging.getLogger().setLevel(logging.INFO)
    get_logger("emma_agent.y").debug("thing.happened")
    assert entries(stream) == []


@pytest.mark.parametrize("name", ["livekit.agents", "livekit.plugins.convex"])
def test_what_livekit_marks_as_personal_is_left_out(stream: io.StringIO, name: str) -> None:
    logging.getLogger(name).debug(
        "received user transcript",
        extra={"lk.pii.user_transcript": "I live in", "language": "en", "spiii.pip": 1},
    )
    assert entries(stream) == [
        {
            "message": "received user transcript",
            "level": "DEBUG",
            "name": name,
            "language": "en",
            "spiii.pip": 1,
        }
    ]


def test_entries_can_be_sent_to_the_main_process() -> None:
    """LiveKit pickles the records of a job process."""
    configure_logging()
    kept: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = kept.append  # type: ignore[method-assign, assignment]
    logger = logging.getLogger("emma_agent.pickled")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    get_logger("emma_agent.pickled").info("session.closed", duration_s=1.5, max_latency_s=None)
    logger.removeHandler(handler)
    assert pickle.loads(pickle.dumps(kept[0])).duration_s == 1.5
