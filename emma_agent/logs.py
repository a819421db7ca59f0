"""Logging: structlog through the standard library, in one stream with LiveKit's own.

LiveKit ships the records of its job processes to the worker's main process, which adds
the job's fields and prints them once, as JSON (`start`) or coloured (`dev`). So no
handler is added here: structlog hands its entries to `logging` and they take the same way.

What a student says never reaches that way. LiveKit marks such values with a key that
has a whole `pii` segment (`lk.pii.user_transcript`); `DropPii` takes them off a record
in the process where it is made.
"""

from __future__ import annotations

import logging
from typing import Final

import structlog
from livekit.agents import Plugin

__all__ = ["DropPii", "configure_logging", "get_logger"]

Logger = structlog.stdlib.BoundLogger


class DropPii(logging.Filter):
    """Removes every field of a record whose key has a whole `pii` segment."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, without those fields."""
        for key in [key for key in record.__dict__ if "pii" in key.split(".")]:
            del record.__dict__[key]
        return True


_DROP_PII: Final = DropPii()


def configure_logging() -> None:
    """Set structlog up and guard LiveKit's loggers; safe to call again.

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
    plugins = [plugin.logger for plugin in Plugin.registered_plugins]
    for logger in (logging.getLogger("livekit.agents"), *plugins):
        if logger is not None and _DROP_PII not in logger.filters:
            logger.addFilter(_DROP_PII)


def get_logger(name: str) -> Logger:
    """A logger for one module; `name` is its `__name__`."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger
