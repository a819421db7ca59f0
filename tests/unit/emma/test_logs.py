"""Logging: one stream with LiveKit's own, and nothing a student said in it."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import pickle
from collections.abc import Iterator

import pytest
import structlog
from livekit.agents import Plugin
from livekit.agents.cli.log import JsonFormatter
from livekit.agents.telemetry import tracer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from emma_agent import logs
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


SECRET = "I live in Elm Street"


class ProviderError(Exception):
    """As the exceptions of model providers: with a code, and the server's answer as its text."""

    status_code = 429


def test_what_a_server_answered_is_left_out_of_a_message(stream: io.StringIO) -> None:
    """LiveKit writes it there while it handles the error (`llm.py`, "failed to generate…")."""
    logger = logging.getLogger("livekit.agents")
    try:
        raise ProviderError(f"cannot process: {SECRET}")
    except ProviderError as error:
        logger.warning(f"failed to generate LLM completion: {error}, retrying in 0.1s")
        logger.error("failed to say text: %s", str(error))
    assert [entry["message"] for entry in entries(stream)] == [
        "failed to generate LLM completion: ProviderError 429, retrying in 0.1s",
        "failed to say text: ProviderError 429",
    ]


def test_a_traceback_tells_where_and_not_what(stream: io.StringIO) -> None:
    try:
        try:
            raise ProviderError(SECRET)
        except ProviderError as error:
            raise ExceptionGroup(SECRET, [ValueError(SECRET)]) from error
    except ExceptionGroup:
        logging.getLogger("livekit.agents").exception("exception occurred while executing tool")
    [entry] = entries(stream)
    told = str(entry["exc_info"])
    assert SECRET not in told
    assert "raise ExceptionGroup(SECRET, [ValueError(SECRET)]) from error" in told
    for name in ("ProviderError 429", "ValueError", "ExceptionGroup"):
        assert name in told


def test_an_exception_that_nobody_took_keeps_its_text_to_itself(stream: io.StringIO) -> None:
    async def fail() -> None:
        raise ValueError(SECRET)

    async def forget() -> None:
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()

    asyncio.run(forget())
    written = stream.getvalue()
    assert "Task exception was never retrieved" in written
    assert SECRET not in written.replace("raise ValueError(SECRET)", "")


@pytest.mark.parametrize("field", ["error", "errors"])
def test_a_providers_error_is_named_and_not_told(stream: io.StringIO, field: str) -> None:
    """LiveKit's realtime session writes it in the message and beside it."""

    class Refusal:
        code = "invalid_value"

        def __str__(self) -> str:
            return f"Refusal(message={SECRET!r})"

    refusal = Refusal()
    logging.getLogger("livekit.agents").error(
        f"OpenAI returned an error: {refusal}", extra={field: refusal}
    )
    [entry] = entries(stream)
    assert entry["message"] == "OpenAI returned an error: Refusal invalid_value"
    assert entry[field] == "Refusal invalid_value"


def test_a_plugin_that_is_imported_later_is_guarded_too(stream: io.StringIO) -> None:
    class Late(Plugin):
        def __init__(self) -> None:
            logger = logging.getLogger("livekit.plugins.late")
            super().__init__("late", "1.0", "livekit.plugins.late", logger)

    plugin = Late()
    Plugin.register_plugin(plugin)
    Plugin.registered_plugins.remove(plugin)
    logging.getLogger("livekit.plugins.late").warning("said", extra={"lk.pii.text": SECRET})
    assert [entry["message"] for entry in entries(stream)] == ["said"]
    assert SECRET not in stream.getvalue()


def test_what_we_name_ourselves_is_kept(stream: io.StringIO) -> None:
    try:
        raise ProviderError(SECRET)
    except ProviderError as error:
        logging.getLogger("livekit.plugins.convex").warning(
            "outbox.delivery_delayed", extra={"error": type(error).__name__}
        )
    [entry] = entries(stream)
    assert (entry["message"], entry["error"]) == ("outbox.delivery_delayed", "ProviderError")


def test_spans_go_to_an_operators_collector_without_what_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(logs, "get_tracer_provider", lambda: provider)
    before = tracer._tracer_provider
    monkeypatch.setenv("LIVEKIT_TELEMETRY_ALLOW_PII", "")
    monkeypatch.delenv("LIVEKIT_TELEMETRY_ALLOW_PII")
    try:
        configure_logging()
        with (
            pytest.raises(ValueError, match=SECRET),
            tracer.start_as_current_span("llm_node") as span,
        ):
            span.set_attribute("lk.pii.chat_ctx", SECRET)
            span.set_attribute("gen_ai.input.messages", SECRET)
            span.set_attribute("lk.response.ttft", 0.5)
            raise ValueError(SECRET)
    finally:
        tracer.set_provider(before)
    [written] = exporter.get_finished_spans()
    assert written.attributes is not None
    assert written.attributes["lk.response.ttft"] == 0.5
    assert SECRET not in written.to_json()
