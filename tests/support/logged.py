"""What the plugin logged, by the names of its events."""

from __future__ import annotations

import logging

import pytest


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """The events at `level` and above, in order."""
    return [record.message for record in caplog.records if record.levelno >= level]
