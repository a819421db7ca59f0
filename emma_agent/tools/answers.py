"""What tools have in common: answers that a model reads, and sentences it can act on."""

from __future__ import annotations

import json
from typing import Final

from livekit.agents import ToolError

__all__ = ["as_json", "checked"]

_MOST: Final = 300


def as_json(**values: object) -> str:
    """An answer as JSON, without what is not known."""
    # LiveKit would hand a dict to the model as Python's str() of it.
    known = {name: value for name, value in values.items() if value is not None}
    return json.dumps(known, ensure_ascii=False)


def checked(name: str, text: str, *, most: int = _MOST) -> str:
    """An argument of the model, without blanks around it.

    Args:
        most: characters.

    Raises:
        ToolError: it is empty or too long.
    """
    text = text.strip()
    if not text:
        raise ToolError(f"{name} is empty; call the tool again with {name}.")
    if len(text) > most:
        raise ToolError(f"{name} is too long; call the tool again with {most} characters at most.")
    return text
