"""Logging: structlog through the standard library, in one stream with LiveKit's own.

LiveKit ships the records of its job processes to the worker's main process, which adds
the job's fields and prints them once, as JSON (`start`) or coloured (`dev`). So no
handler is added here: structlog hands its entries to `logging` and they take the same way.

What a student says never reaches that way, at any level: `WithoutWords` takes it off LiveKit's
records in the process where they are made. Nor does it reach a trace: `configure_tracing`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Final

import structlog
from livekit.agents import Plugin, telemetry
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_tracer_provider

__all__ = ["WithoutWords", "configure_logging", "configure_tracing", "get_logger"]

Logger = structlog.stdlib.BoundLogger

# "asyncio" tells of exceptions that nobody took, "livekit" of those in listeners.
_LOGGERS: Final = ("livekit.agents", "livekit", "asyncio")
# What LiveKit hands over of an error, beside the exception itself.
_ERROR_FIELDS: Final = ("error", "errors")


class WithoutWords(logging.Filter):
    """Takes off a record what may hold words of a student.

    - each field whose key has a whole `pii` segment: LiveKit marks such values so
      (`lk.pii.user_transcript`);
    - the text of an exception or of a provider's error, in the message, in a field and in the
      traceback: a server may answer with what it was sent, pydantic with what it could not
      validate. Its type and code stay, and where it happened.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, without that."""
        for key in [key for key in record.__dict__ if "pii" in key.split(".")]:
            del record.__dict__[key]
        foreign: list[object] = [*_chain(sys.exception())]
        if record.exc_info and (error := record.exc_info[1]) is not None:
            foreign += _chain(error)
            record.exc_text, record.exc_info = _traceback(error), None
        for field in _ERROR_FIELDS:
            value = record.__dict__.get(field)
            # Text is what we ourselves give there: a type.
            if value is not None and not isinstance(value, str):
                foreign.append(value)
                record.__dict__[field] = _named(value)
        if foreign:
            _rewrite(record, foreign)
        return True


_WITHOUT_WORDS: Final = WithoutWords()


def configure_logging() -> None:
    """Set structlog up and guard LiveKit's loggers and traces; safe to call again.

    Called where `emma_agent.server` is imported: in the worker's main process and in
    each job process. A logger's filter sees only what is logged to that very logger,
    so each of LiveKit's has its own; handlers are not there yet at this point.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.render_to_log_kwargs,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    for name in _LOGGERS:
        _guard(logging.getLogger(name))
    for plugin in Plugin.registered_plugins:
        _guard_plugin(plugin)
    # One is imported when a lesson needs it: an avatar's.
    Plugin.emitter.on("plugin_registered", _guard_plugin)
    configure_tracing()


def configure_tracing() -> None:
    """Let spans go out without what was said, if an operator collects them; safe to call again.

    LiveKit marks such attributes, and by itself leaves them in for every collector but its own.
    LIVEKIT_TELEMETRY_ALLOW_PII=1 leaves them in.
    """
    # For a provider that is handed to LiveKit later.
    os.environ.setdefault("LIVEKIT_TELEMETRY_ALLOW_PII", "0")
    provider = get_tracer_provider()
    if isinstance(provider, TracerProvider):
        telemetry.set_tracer_provider(provider)


def get_logger(name: str) -> Logger:
    """A logger for one module; `name` is its `__name__`."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger


def _guard(logger: logging.Logger) -> None:
    if _WITHOUT_WORDS not in logger.filters:
        logger.addFilter(_WITHOUT_WORDS)


def _guard_plugin(plugin: Plugin) -> None:
    if plugin.logger is not None:
        _guard(plugin.logger)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, those it came of and those in it."""
    seen = set[int]()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions


def _named(error: object) -> str:
    """The type of an error, and its code if it has one."""
    codes = (getattr(error, name, None) for name in ("status_code", "status", "code"))
    code = next((code for code in codes if isinstance(code, int | str)), None)
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"


def _traceback(error: BaseException) -> str:
    """Where it happened, and what came of what; lines of code hold nobody's words."""
    told = [
        "".join(
            [
                "Traceback (most recent call last):\n",
                *traceback.format_tb(each.__traceback__),
                _named(each),
            ]
        )
        for each in _chain(error)
    ]
    return "\n\nof which came:\n\n".join(reversed(told))


def _rewrite(record: logging.LogRecord, foreign: list[object]) -> None:
    message = record.getMessage()
    for error in foreign:
        for text in (str(error), repr(error)):
            if text:
                message = message.replace(text, _named(error))
    if message != record.getMessage():
        record.msg, record.args = message, None
