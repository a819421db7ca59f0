"""What Emma can do in a lesson: one module for each family of function tools.

Tools read and write `RunContext.userdata` (`LessonState`) in memory. Who the student is
comes from there too and is never an argument. What a model gets wrong is answered by a sentence
that it can act on (`ToolError`).
"""

from __future__ import annotations

from typing import Final

from emma_agent.tools import (
    corrections,
    finish,
    practice,
    preferences,
    profile,
    slides,
    vocabulary,
)

__all__ = ["TOOLS"]

TOOLS: Final = (
    *profile.TOOLS,
    *slides.TOOLS,
    *corrections.TOOLS,
    *vocabulary.TOOLS,
    *practice.TOOLS,
    *preferences.TOOLS,
    *finish.TOOLS,
)
"""All of them, in an order that stays, since providers cache it with the prompt."""
